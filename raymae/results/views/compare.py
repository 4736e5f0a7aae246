"""`raymae compare`: several sweeps in one table, tasks x arms, with the report's numbers beside this project's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raymae.errors import ResultsError
from raymae.results.store.folder import Place
from raymae.results.store.manifest import SWEEP
from raymae.results.store.store import Store
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.numbers import aligned, half_width, interval_decimals, number, p_value, significant
from raymae.results.verdict.published import published
from raymae.results.verdict.verdict import plain
from raymae.spec import SweepSpec

if TYPE_CHECKING:
    from rich.console import RenderableType

START, END = "<!-- compare -->", "<!-- /compare -->"
HEADER = ("task", "data", "test metric", "mae", "scratch", "other arms", "mae − scratch, 95 %", "verdict",
          "report: mae", "report: no MAE")


def sweeps_in(roots: Iterable[str]) -> tuple[list[str], list[str]]:
    """The sweeps that paths or URIs name, and those of them that name none.

    A folder that is no sweep stands for the sweeps directly in it, without those that `--fresh` moved aside.
    """
    found, empty = [], []
    for root in roots:
        place = Place(root)
        try:
            if SWEEP in place.names():
                found.append(root)
                continue
            below = [place.uri(name) for name in place.folders()
                     if ".old-" not in name and SWEEP in place.names(name)]
        except OSError as error:
            raise ResultsError(f"{root}: cannot list: {error}") from None
        found += below
        if not below:
            empty.append(root)
    return found, empty


def across(roots: Sequence[str]) -> list[dict[str, Any]]:
    """Every sweep's arms and its primary comparison, as plain values.

    Args:
        roots: Folders of sweeps, paths or URIs.

    Returns:
        For each sweep `sweep`, `root`, `task`, `data`, `settings`, `metric`, `mode`, `complete`, `pair` (`mae` minus
        `scratch`, or None) and `arms`, best first: `arm`, `kind`, `n`, `mean`, `ci95`, `pair` (`mae` minus this arm),
        and `report`: the report's number, or None.

    Raises:
        ResultsError: One of them is no sweep, or cannot be read.
    """
    return [_sweep(Store.open(root)) for root in roots]


def _sweep(store: Store) -> dict[str, Any]:
    verdict = verdict_now(store)
    spec, objective = store.spec(), verdict.objective
    pairs = {pair.b: plain(pair) for pair in verdict.pairs if pair.a == "mae"}
    arms = []
    for arm in verdict.arms:
        test = verdict.test(arm)
        report = published(verdict.task, arm.arm, objective.metric, spec.settings)
        arms.append({
            "arm": arm.arm, "kind": arm.kind, "n": arm.n, "mean": test and test.mean, "ci95": test and test.ci95,
            "pair": pairs.get(arm.arm),
            "report": report and {"metric": report.metric, "value": report.value, "data": report.data,
                                  "note": report.note},
        })
    return {
        "sweep": verdict.sweep, "root": store.root, "task": verdict.task, "data": plain(verdict.data),
        "settings": _settings(spec), "metric": objective.metric, "mode": objective.mode, "complete": verdict.complete,
        "pair": pairs.get("scratch"), "arms": arms,
    }


def _settings(spec: SweepSpec) -> dict[str, Any]:
    """What the sweep fixes about its problem: two sweeps of one task differ in these."""
    fraction = spec.training.model_dump(exclude_unset=True).get("label_fraction")
    size = {} if spec.size is None else {"size": spec.size}
    return {**size, **spec.settings, **({} if fraction is None else {"label_fraction": fraction})}


def table(sweeps: Sequence[Mapping[str, Any]]) -> RenderableType:
    """For the terminal: one row for each task and arm."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for sweep in sweeps:
        state = "" if sweep["complete"] else ", unfinished"
        about = f"  {sweep['task']} on {_data(sweep)}, test {sweep['metric']}{state}"
        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for title, width in (("arm", 14), ("mean ± 95 %", 22), ("seeds", 5), ("mae minus it", 28), ("verdict", 20),
                             ("report", 22)):
            shown.add_column(title, width=width, justify="left" if title in ("arm", "verdict") else "right")
        for arm in sweep["arms"]:
            pair = arm["pair"]
            shown.add_row(*map(Text, (arm["arm"], _score(arm), str(arm["n"]), _interval(pair),
                                      pair["verdict"] if pair else "", _reported(arm["report"], sweep))))
        parts += [Text.assemble((sweep["sweep"], "bold"), about), shown, ""]
    return Group(*parts[:-1])


def markdown(sweeps: Sequence[Mapping[str, Any]]) -> str:
    """For the README: one row a sweep, between the two markers."""
    lines = [START, "| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for sweep in sweeps:
        arms = {arm["arm"]: arm for arm in sweep["arms"]}
        scores = {name: _score(arm) for name, arm in arms.items()}
        others = [f"{arm} {scores[arm]}" for arm in arms if arm not in ("mae", "scratch")]
        pair = sweep["pair"]
        sure = f"{pair['verdict']}, {p_value(pair['p'])}" if pair else "–"
        seeds = sorted({arm["n"] for arm in sweep["arms"] if arm["kind"] != "reference"})
        told = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}" if seeds else "0"
        cells = (
            sweep["task"], _data(sweep) + ("" if sweep["complete"] else ", unfinished"),
            f"{sweep['metric']} ({'less' if sweep['mode'] == 'min' else 'more'} is better), {told} seeds",
            scores.get("mae", "–"), scores.get("scratch", "–"), "; ".join(others) or "–",
            _interval(pair), sure,
            *(_reported(arms[arm]["report"], sweep) if arm in arms else "–" for arm in ("mae", _without(arms))),
        )
        lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
    return "\n".join([*lines, END]) + "\n"


def into(text: str, sweeps: Sequence[Mapping[str, Any]], where: str) -> str:
    """A Markdown text with the table between its markers replaced.

    Raises:
        ResultsError: It has not exactly one pair of markers.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(END) < text.index(START):
        raise ResultsError(f"{where}: needs one {START} and after it one {END}, got {text.count(START)} and "
                           f"{text.count(END)}; the table goes between them")
    before, _, rest = text.partition(START)
    return before + markdown(sweeps).rstrip("\n") + rest.partition(END)[2]


def _without(arms: Mapping[str, Any]) -> str:
    """The arm that stands for the report's network without MAE."""
    return "autoencoder" if "autoencoder" in arms else "scratch"


def _data(sweep: Mapping[str, Any]) -> str:
    name = sweep["data"]["name"] + (" (SYNTHETIC)" if sweep["data"]["source"] == "synthetic" else "")
    return ", ".join([name, *(f"{key}={value}" for key, value in sweep["settings"].items())])


def _score(arm: Mapping[str, Any]) -> str:
    """Mean ± half-width of its interval, which has two digits."""
    if arm["mean"] is None:
        return "–"
    half = half_width(arm["ci95"])
    decimals = aligned([half], 2, missing=None)
    return significant(arm["mean"]) if decimals is None else f"{arm['mean']:.{decimals}f} ± {half:.{decimals}f}"


def _interval(pair: Mapping[str, Any] | None) -> str:
    if pair is None:
        return "–"
    decimals = interval_decimals([pair["ci95"]])
    if decimals is None:
        return significant(pair["difference"])
    value, low, high = (number(end, decimals) for end in (pair["difference"], *pair["ci95"]))
    return f"{value} ({low} to {high})"


def _reported(report: Mapping[str, Any] | None, sweep: Mapping[str, Any]) -> str:
    """The report's number, with its metric and its data where they are not this sweep's, and what to know of it."""
    if report is None:
        return "–"
    ours = _plain(sweep["data"]["name"])
    told = [report["metric"]] if report["metric"] != sweep["metric"] else []
    told += [] if _plain(report["data"]) in ours or ours in _plain(report["data"]) else [f"on {report['data']}"]
    told = [" ".join(told), report["note"]] if told else [report["note"]]
    return f"{report['value']:g}" + (f" ({'; '.join(filter(None, told))})" if any(told) else "")


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("|", "\\|")
    return " ".join(re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).split())
