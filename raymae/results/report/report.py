"""`raymae report`: one HTML page that opens without a network, and the same answer in Markdown."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from raymae.errors import ResultsError
from raymae.results.report import figures
from raymae.results.store.columns import last_attempts
from raymae.results.store.folder import Place
from raymae.results.store.store import Store
from raymae.results.verdict.headline import headline, synthetic
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.numbers import duration, p_cell, p_value, significant
from raymae.results.verdict.verdict import Verdict, plain

Importance = Mapping[str, Mapping[str, float]]

MAX_FAILURES = 200
MAX_PICTURES, PICTURE_BYTES = 24, 3_000_000


def render_report(store: Store | str | os.PathLike[str], *, importance: Importance | None = None) -> str:
    """The report of a sweep, finished or not, as one HTML page.

    Args:
        store: The sweep, or its folder as a path or a URI.
        importance: From arm to parameter to its share of importance (see
            `raymae.search.decide.importance`); None where nobody computed it.

    Raises:
        ResultsError: No sweep there, or the storage failed.
    """
    return page_of(collect(store if isinstance(store, Store) else Store.open(store), importance))


def write_report(store: Store, *, importance: Importance | None = None, to: str | None = None) -> tuple[str, str]:
    """Write `report.html` and `report.md`.

    Args:
        store: The sweep.
        importance: As in `render_report`.
        to: Folder or URI to write them to; the sweep's own by default.

    Returns:
        Where the two were written.

    Raises:
        ResultsError: The storage failed.
    """
    found = collect(store, importance)
    place = Place(to if to is not None else store.root)
    try:
        place.make()
        for name, text in (("report.html", page_of(found)), ("report.md", markdown_of(found))):
            place.write(name, text.encode())
    except OSError as error:
        raise ResultsError(f"{place.root}: cannot write the report: {error}; name another folder with --to") from None
    return place.uri("report.html"), place.uri("report.md")


def collect(store: Store, importance: Importance | None = None) -> dict[str, Any]:
    """Everything that the page and the Markdown show, as plain values."""
    objective, spec, trials = store.objective(), store.spec(), store.trials()
    verdict = verdict_now(store, trials)
    last = last_attempts(trials).sort_index()  # in the order in which they ended
    search, all_search = (rows[rows["stage"] == "search"] for rows in (last, trials))
    params = figures.searched(spec, search)
    failed = last[last["status"] == "failed"]
    meta = store.meta()
    return {
        "verdict": verdict,
        "headline": headline(verdict),
        "synthetic": synthetic(verdict.data.name, verdict.data.source),
        "about": {name: arm["about"] for name, arm in meta["task"]["arms"].items()},
        "num_trials": {word: int((last["status"] == word).sum()) for word in ("completed", "stopped", "failed")},
        "failed": [{"trial_id": row["trial_id"], "arm": row["arm"], "error": str(row["error"] or "no reason kept")}
                   for row in failed.head(MAX_FAILURES).to_dict("records")],
        "environment": store.environment(),
        "created_at": meta["created_at"],
        "version": meta["raymae_version"],
        "command": _command(store),
        "importance_known": importance is not None,
        "importance": {arm: dict(shares) for arm, shares in (importance or {}).items()},
        "pictures": _pictures(store, verdict, last),
        "spec": json.dumps(meta["spec"], indent=1, ensure_ascii=False),
        "plots": {
            "metric": objective.metric, "mode": objective.mode, "params": params,
            "order": [arm.arm for arm in verdict.arms], "scores": _scores(verdict),
            "pareto": plain(verdict.pareto),
            "references": {arm.arm: figures.short(arm.val.score) for arm in verdict.arms
                           if arm.kind == "reference" and arm.val.score is not None},
            "trials": figures.trial_columns(last, objective, [param["name"] for param in params]),
            "responses": figures.responses(search, params, objective),
            "progress": figures.progress(all_search, objective),
            "learning": figures.learning(search, store.reports(), objective),
        },
    }


def _scores(verdict: Verdict) -> list[dict[str, Any]]:
    """Mean and interval of every arm that has a test score."""
    return [{"arm": arm.arm, "kind": arm.kind, "mean": test.mean, "ci95": test.ci95}
            for arm in verdict.arms if (test := verdict.test(arm)) is not None]


def _command(store: Store) -> str:
    """What to type for the same sweep again."""
    command = [str(word) for word in store.environment().get("command", [])]
    if not command:
        return ""
    return shlex.join(["raymae", *command[1:]])


def _pictures(store: Store, verdict: Verdict, last: Any) -> list[dict[str, str]]:
    """What each arm's best configuration does: the pictures of its first replicate that has any."""
    place, left = Place(store.root), PICTURE_BYTES
    found: list[dict[str, str]] = []
    names = place.names("pictures")
    replicates = last[last["stage"] == "replicate"]
    for arm in verdict.arms:
        ids = sorted(replicates[replicates["arm"] == arm.arm]["trial_id"])
        for trial in ids:
            mine = [name for name in names if name.startswith(f"{trial}-")]
            for name in mine:
                data = place.read(f"pictures/{name}")
                if len(found) == MAX_PICTURES or len(data) > left:
                    continue
                left -= len(data)
                what = name.removeprefix(f"{trial}-").removesuffix(".png")
                found.append({"arm": arm.arm, "trial": trial, "what": what,
                              "data": base64.b64encode(data).decode()})
            if mine:
                break
    return found


def page_of(found: Mapping[str, Any]) -> str:
    """The HTML page of what `collect` returned.

    Text is escaped by the template, data is JSON in which no tag can end, and the page's own policy forbids every
    connection, every form, and every script but the two it was written with.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters |= {"significant": significant, "duration": duration, "p_value": p_value}
    scripts = [plotly(), _asset("page.js")]
    return environment.from_string(_asset("page.html.j2")).render(
        **found, css=_asset("page.css"), plotly=scripts[0], script=scripts[1], data=json_in_html(found["plots"]),
        importance_data=json_in_html(found["importance"]), hashes=" ".join(map(_hash, scripts)),
    )


def json_in_html(value: Any) -> str:
    """JSON that may stand inside a `<script type="application/json">`: no `<`, `>` or `&` of anybody's text is left."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@lru_cache(maxsize=1)
def plotly() -> str:
    """The drawing library, as its Python package brings it."""
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return (files("raymae.results.report") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=4)
def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def markdown_of(found: Mapping[str, Any]) -> str:
    """The summary of what `collect` returned, as Markdown."""
    verdict: Verdict = found["verdict"]
    metric = verdict.objective.metric
    count = found["num_trials"]
    lines = [f"# {_md(verdict.sweep)}", "", f"**{_md(found['headline'])}**", ""]
    lines += [f"{_md(verdict.task)} on {_md(verdict.data.name)} ({verdict.data.source} data); "
              f"{count['completed']} trials completed, {count['stopped']} stopped, {count['failed']} failed.", ""]
    lines += [f"| arm | test {metric}, mean | 95 % interval | seeds | best val {metric} | compute |",
              "|---|---|---|---|---|---|"]
    for arm in verdict.arms:
        test = verdict.test(arm)
        interval = " to ".join(map(significant, test.ci95)) if test and test.ci95 else "–"
        lines.append(f"| {_md(arm.arm)} | {significant(test.mean if test else None)} | {interval} | {arm.n} | "
                     f"{significant(arm.val.score)} | {duration(arm.compute_s)} |")
    if verdict.pairs:
        lines += ["", "| difference | value | 95 % interval | p | p (Holm) | verdict |", "|---|---|---|---|---|---|"]
        for pair in verdict.pairs:
            interval = " to ".join(map(significant, pair.ci95)) if pair.ci95 else "–"
            lines.append(f"| {_md(pair.a)} − {_md(pair.b)} | {significant(pair.difference)} | {interval} | "
                         f"{p_cell(pair.p)} | {p_cell(pair.p_holm)} | {pair.verdict} |")
    if found["importance"]:
        lines += ["", "## What mattered", ""]
        for arm, shares in found["importance"].items():
            told = ", ".join(f"{_md(name)} {share:.0%}" for name, share in shares.items())
            lines.append(f"* {_md(arm)}: {told}")
    if found["failed"]:
        lines += ["", "## Failed trials", ""]
        lines += [f"* {_md(one['trial_id'])}: {_md(one['error'].strip().splitlines()[0])}" for one in found["failed"]]
    if found["command"]:
        lines += ["", "## Again", "", f"    {found['command']}"]
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """Text that stays text in a Markdown table."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
