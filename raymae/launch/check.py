"""`raymae cluster check`: a cluster file against Ray's own schema and our rules, without asking any cloud."""

from __future__ import annotations

import contextlib
import copy
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raymae.errors import Problem, SpecError, line_of, one_line
from raymae.launch import Finding
from raymae.launch.doors import compose_problems, policy_problems
from raymae.launch.kubernetes import manifest_problems
from raymae.launch.price_list import price_lists
from raymae.launch.prices import Node, nodes_of, price_range
from raymae.launch.rules import broken_rules

MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class CheckedCluster:
    """What is known about a cluster file.

    Attributes:
        file: Its path.
        provider: `aws`, `gcp`, `azure`, `local`, `kubernetes`, `compose`, or `policy`.
        problems: Everything that is wrong, in file order; empty if it may be used.
        nodes: Its node types, the head first; empty where machines have no price.
        usd_per_hour: With no trial waiting and at most, about, on demand; None if it is not known.
        region: Where these prices hold.
        dated: And since when, ISO.
    """

    file: str
    provider: str
    problems: tuple[Problem, ...]
    nodes: tuple[Node, ...] = ()
    usd_per_hour: tuple[float, float] | None = None
    region: str | None = None
    dated: str | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values, as `raymae cluster check --json` prints them."""
        low, high = self.usd_per_hour or (None, None)
        return {
            "file": self.file, "provider": self.provider, "ok": not self.problems,
            "problems": [vars(problem) for problem in self.problems],
            "nodes": [vars(node) for node in self.nodes],
            "usd_per_hour": {"idle": low, "most": high, "region": self.region, "dated": self.dated,
                             "kind": "about, on demand; check"},
        }

    def node_rows(self) -> list[dict[str, object]]:
        """The node types whose price is known, a row each, under the headings that people read."""
        return [
            {"type": node.name, "machine": node.machine, "GPUs": node.gpus,
             "market": "spot" if node.spot else "on demand", "nodes": f"{node.fewest} to {node.most}",
             "$/h each": f"{node.usd_per_hour:.2f}"} for node in self.nodes if node.usd_per_hour is not None
        ]

    def costs(self) -> str:
        """Say what an hour costs, in one line."""
        if self.usd_per_hour is None:
            return "What its machines cost per hour is not known here."
        low, high = self.usd_per_hour
        return (f"Costs {low:.2f} $/h with no trial waiting, at most {high:.2f} $/h: about, {self.region} on demand, "
                f"{self.dated}, check (raymae cluster prices --refresh). Spot is usually less. Volumes, traffic and "
                "storage are not in it.")


def check_cluster(path: str | os.PathLike[str], *, unset: Sequence[str] = ()) -> CheckedCluster:
    """Check a cluster file: a launcher's (`ray up`), Kubernetes manifests, one for `docker compose`, or a policy of
    AWS's.

    Args:
        path: The YAML file.
        unset: Placeholders that may still stand in it.

    Raises:
        SpecError: It cannot be read as YAML.
    """
    name = os.fspath(path)
    text = read_text(path)
    try:
        documents = [one for one in yaml.safe_load_all(text) if one is not None]
        lines = _lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise SpecError([Problem(where, "", f"is not YAML: {getattr(error, 'problem', None) or error}")]) from None
    if not documents or not all(isinstance(one, dict) for one in documents):
        raise SpecError([Problem(name, "", "a cluster file is a mapping of keys, or several separated by `---`")])

    def problems(findings: Iterable[Finding], document: int) -> list[Problem]:
        found = []
        for key, message in findings:
            line = line_of(key, lines[document]) or lines[document].get("", 1)
            found.append((line, Problem(f"{name}:{line}", key, message)))
        return [problem for _, problem in sorted(found, key=lambda pair: pair[0])]

    if "apiVersion" in documents[0]:
        found = [one for number, document in enumerate(documents)
                 for one in problems(manifest_problems(document, documents), number)]
        return CheckedCluster(name, "kubernetes", tuple(found))
    for key, kind, rule in (("services", "compose", compose_problems), ("Statement", "policy", policy_problems)):
        if key in documents[0] and "provider" not in documents[0]:
            return CheckedCluster(name, kind, tuple(problems(rule(documents[0]), 0)))
    if len(documents) > 1:
        raise SpecError([Problem(name, "", f"a file for `ray up` is one document, this holds {len(documents)}")])
    (document,) = documents
    filled, message = _as_ray_reads_it(document)
    kind = str((document.get("provider") or {}).get("type"))
    if filled is None:
        return CheckedCluster(name, kind, (Problem(name, message[0], message[1]),))
    found = problems(broken_rules(document, filled, unset), 0)
    nodes, prices = nodes_of(filled), price_lists().get(kind)
    return CheckedCluster(
        name, kind, tuple(found), tuple(nodes), price_range(nodes, filled["max_workers"]),
        prices.region if prices else None, prices.dated if prices else None,
    )


def read_text(path: str | os.PathLike[str]) -> str:
    """A cluster file's text.

    Raises:
        SpecError: There is no such file, or it is too large or not UTF-8.
    """
    name = os.fspath(path)
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error))
        raise SpecError([Problem(name, "", f"cannot read the cluster file: {reason}")]) from None
    if len(raw) > MAX_BYTES:
        raise SpecError([Problem(name, "", f"a cluster file holds at most {MAX_BYTES} bytes, this has {len(raw)}")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([Problem(name, "", f"must be UTF-8 text: {error.reason} at byte {error.start}")]) from None


def _as_ray_reads_it(document: dict[str, Any]) -> tuple[dict[str, Any] | None, tuple[str, str]]:
    """The file with Ray's defaults filled in, or None and which key Ray's own validation refuses, and why."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    heard = io.StringIO()
    try:
        # it prints, colours and exits by itself
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            filled = prepare_config(copy.deepcopy(document))
            validate_config(filled)
    except jsonschema.ValidationError as error:
        return None, (".".join(map(str, error.absolute_path)), f"Ray refuses it: {error.message}")
    except SystemExit as error:
        return None, ("provider", f"Ray refuses it: {one_line(heard.getvalue() or error, -1).strip()}")
    except KeyError as error:
        return None, (str(error.args[0]), "Ray refuses it: this key is missing")
    except Exception as error:  # whatever Ray's own code stumbles over
        return None, ("", f"Ray refuses it: {one_line(error, -1).strip()}")
    if not filled.get("available_node_types") or "head_node_type" not in filled:
        return None, ("available_node_types", "Ray refuses it: there are no node types")
    return filled, ("", "")


def _lines(text: str) -> list[dict[str, int]]:
    """Line of every dotted key, by document, as written: what an alias stands for is where its anchor is."""
    documents: list[dict[str, int]] = []

    def walk(node: yaml.Node, lines: dict[str, int], prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            pairs = [(str(key.value), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            pairs = [(str(index), item, item) for index, item in enumerate(node.value)]
        else:
            return
        for name, key, value in pairs:
            dotted = f"{prefix}.{name}" if prefix else name
            lines[dotted] = key.start_mark.line + 1
            walk(value, lines, dotted)

    for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            continue
        documents.append({"": node.start_mark.line + 1})
        walk(node, documents[-1], "")
    return documents
