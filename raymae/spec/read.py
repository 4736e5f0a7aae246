"""YAML 1.2 in, plain values and their lines out, with overrides laid over them."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from raymae.errors import Problem, SpecError, line_of, one_line, shorten

MAX_BYTES = 100_000
MAX_DEPTH = 32
MAX_VALUES = 5_000  # aliases of aliases multiply
PLAIN_TAGS = {"map", "seq", "str", "int", "float", "bool", "null"}
MAX_INT = 2**63 - 1  # what a Parquet column of integers holds

Tree = dict[str, Any]  # plain values by key, as they nest


def too_long(origin: str) -> Problem:
    """That a text is longer than a sweep file may be."""
    return Problem(origin, "", f"a sweep file holds at most {MAX_BYTES} bytes, this has more")


def parse_yaml(text: str, origin: str, lines: dict[str, int]) -> Any:
    """Read YAML 1.2 as plain values, and note the line of every dotted key in `lines`.

    Raises:
        SpecError: It is not YAML 1.2, too large or too deep, or holds more than text, numbers, lists and mappings.
    """
    other = re.search(r"^%YAML(?!\s+1\.2\s*$).*", text, re.MULTILINE)
    if other is not None:  # 1.1 would read `on` as true and 010 as 8
        line = text.count("\n", 0, other.start()) + 1
        raise SpecError([Problem(f"{origin}:{line}", "", f"must be YAML 1.2, got {other[0].strip()!r}")])
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise SpecError([too_long(origin)])
    yaml = YAML(typ="rt", pure=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor may be defined anew
            _measure(text, origin)
            tree = yaml.load(io.StringIO(text))
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = mark.line + 1 if mark is not None else text.count("\n", 0, position) + 1 if position is not None else 0
        where = f"{origin}:{line}" if line else origin
        reason = getattr(error, "problem", None) or one_line(error)
        raise SpecError([Problem(where, "", f"not valid YAML 1.2: {reason}")]) from None
    except RecursionError:
        raise SpecError([Problem(origin, "", f"nested deeper than {MAX_DEPTH} levels")]) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
        # ruamel lets these out for malformed tags, dates and anchors
        digits = re.search(r"\d{4300,}", text)
        if digits is not None:
            line = text.count("\n", 0, digits.start()) + 1
            message = f"whole numbers go up to {MAX_INT}, got one of {len(digits[0])} digits"
            raise SpecError([Problem(f"{origin}:{line}", "", message)]) from None
        raise SpecError([Problem(origin, "", f"not valid YAML 1.2: {error or type(error).__name__}")]) from None
    return _plain(tree, "", lines, origin, itertools.count(1), 0)


def _measure(text: str, origin: str) -> None:
    """Refuse a text that grows without bound when it is loaded, event by event, before anything is built of it.

    Raises:
        SpecError: It is nested too deep, or holds too many values once aliases are replaced by what they stand for.
    """
    sizes: dict[str, int] = {}  # values below each anchor
    around: list[tuple[str | None, int]] = []  # the anchors of the lists and mappings that are open, values before each
    total = 0
    for event in YAML(typ="rt", pure=True).parse(io.StringIO(text)):
        where = f"{origin}:{event.start_mark.line + 1}"
        if isinstance(event, AliasEvent):
            total += sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = around.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, NodeEvent):
            total += 1
            if isinstance(event, CollectionStartEvent):
                around.append((event.anchor, total - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        if len(around) > 2 * MAX_DEPTH:  # a little too deep is refused below, with its key
            raise SpecError([Problem(where, "", f"nested deeper than {MAX_DEPTH} levels")])
        if total > 2 * MAX_VALUES:  # a key and its value are two
            message = f"a sweep file holds at most {MAX_VALUES} values (do aliases multiply?)"
            raise SpecError([Problem(where, "", message)])


def place(origin: str, key: str, lines: Mapping[str, int]) -> str:
    """Name the file and, if known, the line of a dotted key."""
    line = line_of(key, lines)
    return f"{origin}:{line}" if line else origin


def _plain(node: Any, key: str, lines: dict[str, int], origin: str, count: Iterator[int], depth: int) -> Any:
    """ruamel's round-trip types as plain values, noting each key's line on the way."""

    def refuse(message: str) -> NoReturn:
        raise SpecError([Problem(place(origin, key, lines), key, message)])

    if depth > MAX_DEPTH:
        refuse(f"nested deeper than {MAX_DEPTH} levels (does an anchor refer to itself?)")
    if next(count) > MAX_VALUES:
        refuse(f"a sweep file holds at most {MAX_VALUES} values (do aliases multiply?)")
    tag = getattr(getattr(node, "tag", None), "value", None)
    if tag is not None and str(tag).removeprefix("tag:yaml.org,2002:") not in PLAIN_TAGS:
        refuse(f"has the tag {tag}; use text, numbers, lists and mappings")
    if isinstance(node, CommentedMap):
        result = {}
        for name, value in node.items():
            if not isinstance(name, str):
                refuse(f"keys are text, got {name!r}")
            if not name.isprintable():
                refuse(f"keys are printable text, got {name!r}")
            path = f"{key}.{name}" if key else str(name)
            position = node.lc.data.get(name) if node.lc.data else None
            if position:
                lines[path] = position[0] + 1
            result[str(name)] = _plain(value, path, lines, origin, count, depth + 1)
        return result
    if isinstance(node, (CommentedSeq, list)):
        return [_plain(item, key, lines, origin, count, depth + 1) for item in node]
    if isinstance(node, int) and not -MAX_INT <= node <= MAX_INT:
        refuse(f"whole numbers go up to {MAX_INT}, got one of {node.bit_length()} bits")
    if isinstance(node, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node):
        refuse(f"text must not hold zero bytes or halves of characters, got {shorten(str(node))}")
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    if node is None:
        return None
    refuse(f"holds a {type(node).__name__}; use text, numbers, lists and mappings")


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> list[str]:
    """Lay `key.path=value` strings over a sweep file's values, and list the keys that no longer are the file's.

    Raises:
        SpecError: One has another form, or its value is not YAML.
    """
    done: list[str] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise SpecError([Problem("--set", text, "must have the form key.path=value, such as search.num_trials=4")])
        node = tree
        for depth, part in enumerate(parts[:-1]):
            names = node.get(part)
            if depth == 0 and part == "arms" and isinstance(names, list):
                if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
                    message = f"goes into a list of distinct names of arms, got {shorten(names)}"
                    raise SpecError([Problem("--set", key.strip(), message)])
                node[part] = {name: {} for name in names}
            if not isinstance(node.get(part), dict):
                if node.get(part) is not None:  # what stood there is gone: an error here is no longer the file's
                    done.append(".".join(parts[: depth + 1]))
                node[part] = {}
            node = node[part]
        try:
            node[parts[-1]] = parse_yaml(value, "--set", {}) if value.strip() else None
        except SpecError as error:
            first = error.problems[0]
            inside = f"{key.strip()}.{first.key}" if first.key else key.strip()
            raise SpecError([Problem("--set", inside, first.message)]) from None
        if node[parts[-1]] is None and len(parts) == 2 and parts[0] == "space":
            del node[parts[-1]]  # searched no longer
        done.append(".".join(parts))
    return done
