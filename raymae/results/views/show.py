"""A sweep's results for the terminal, as rich renderables, and as the plain values of `raymae results --json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raymae.results.store.store import Store
from raymae.results.verdict.headline import aligned, duration, headline, p_value, pair_decimals, significant, synthetic
from raymae.results.verdict.verdict import verdict_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_COLORS = {"helps": "green", "hurts": "red", "no difference shown": "yellow"}
_METRICS_PER_TABLE = 3


def summary(store: Store) -> dict[str, Any]:
    """Everything about a sweep's state, also while it runs; what `raymae results --json` prints.

    Returns:
        `sweep`, `root`, `task`, `headline`, `num_trials` (started, unfinished, and by status over all attempts),
        `num_reports`, and `verdict`: the one written at the end, or computed from what is there.
    """
    trials = store.trials()
    ended = set(trials["trial_id"])
    written = store.verdict()
    verdict = written if written is not None and written["complete"] else verdict_of(store)
    started = set(store.configs()) | ended
    return {
        "sweep": verdict["sweep"],
        "root": store.root,
        "task": verdict["task"],
        "headline": headline(verdict),
        "num_trials": {
            "started": len(started),
            "unfinished": len(started - ended),
            **{status: int((trials["status"] == status).sum()) for status in ("completed", "stopped", "failed")},
        },
        "num_reports": store.table("reports").num_rows,
        "verdict": verdict,
    }


def render(summary: Mapping[str, Any]) -> RenderableType:
    """The whole page: state, leaderboard, other metrics, pairs, headline.

    Args:
        summary: What `summary` returned.
    """
    from rich.console import Group
    from rich.text import Text

    verdict, count = summary["verdict"], summary["num_trials"]
    state = "complete" if verdict["complete"] else "unfinished"
    data = verdict["data"]
    head = Text.assemble(
        (summary["sweep"], "bold"), f"  {summary['task']} on {data['name']} ({data['source']} data), {state}: ",
        f"{count['completed']} trials completed, {count['stopped']} stopped, {count['failed']} failed, ",
        f"{count['unfinished']} running or interrupted",
    )
    parts: list[RenderableType] = [head, "", leaderboard(verdict)]
    others = other_metrics(verdict)
    if others is not None:
        parts += ["", others]
    if verdict["pairs"]:
        parts += ["", pairs(verdict)]
    if "pareto" in verdict:
        parts += ["", front(verdict)]
    return Group(*parts, "", Text(headline(verdict), style="bold"))


def front(verdict: Mapping[str, Any]) -> RenderableType:
    """The search trials that nobody beats in both metric and cost, cheapest first."""
    objective, cost, points = verdict["objective"], verdict["pareto"]["cost"], verdict["pareto"]["front"]
    table = _table()
    table.add_column("trial", style="bold", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    table.add_column(f"val_{objective['metric']}", justify="right")
    table.add_column(cost, justify="right")
    for point, value in zip(points, _numbers([point["value"] for point in points]), strict=True):
        shown = duration(point["cost"]) if cost == "wall_s" else f"{point['cost']:,.0f}"
        table.add_row(_escaped(point["trial_id"]), _escaped(point["arm"]), value, shown)
    return _titled(f"Pareto front of val_{objective['metric']} and {cost}, over the search", table, verdict)


def leaderboard(verdict: Mapping[str, Any]) -> RenderableType:
    """Arms best first: trials, best validation score, test score with the half-width of its interval, compute."""
    objective, arms = verdict["objective"], verdict["arms"]
    unit = f", {objective['unit']}" if objective["unit"] else ""
    better = "less" if objective["mode"] == "min" else "more"
    table = _table()
    table.add_column("arm", style="bold", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for title in ("done", "stop", "fail"):
        table.add_column(title, justify="right")
    table.add_column(f"best val_{objective['metric']}", justify="right")
    table.add_column(f"test_{objective['metric']} ± 95 %", justify="right")
    table.add_column("seeds", justify="right")
    table.add_column("compute", justify="right", no_wrap=True)
    best = _numbers([arm["val"]["score"] for arm in arms])
    test = _means(arms, f"test_{objective['metric']}")
    for arm, val_score, test_score in zip(arms, best, test, strict=True):
        count = arm["num_trials"]
        failed = f"[red]{count['failed']}[/]" if count["failed"] else "0"
        table.add_row(
            _escaped(arm["arm"]), arm["kind"], str(count["completed"]), str(count["stopped"]), failed, val_score,
            test_score, str(arm["n"]), duration(arm["compute_s"]),
        )
    return _titled(f"Arms, best first ({objective['metric']}{unit}; {better} is better)", table, verdict)


def other_metrics(verdict: Mapping[str, Any]) -> RenderableType | None:
    """The test scores that the sweep does not select on, or None where there are none."""
    from rich.console import Group

    selected = f"test_{verdict['objective']['metric']}"
    names = list(dict.fromkeys(name for arm in verdict["arms"] for name in arm["metrics"] if name != selected))
    tables: list[RenderableType] = []
    for start in range(0, len(names), _METRICS_PER_TABLE):
        table = _table()
        table.add_column("arm", style="bold", no_wrap=True)
        columns = names[start:start + _METRICS_PER_TABLE]
        for name in columns:
            table.add_column(name, justify="right")
        cells = [_means(verdict["arms"], name) for name in columns]
        for index, arm in enumerate(verdict["arms"]):
            table.add_row(_escaped(arm["arm"]), *(column[index] for column in cells))
        tables.append(table)
    title = "Other test metrics, mean ± half-width of the 95 % interval"
    return _titled(title, Group(*tables), verdict) if tables else None


def pairs(verdict: Mapping[str, Any]) -> RenderableType:
    """Differences between arms with interval, p-value and verdict; the primary pair first."""
    table = _table()
    table.add_column("arms", style="bold", no_wrap=True)
    for title in ("difference", "95 % interval", "p", "p (Holm)"):
        table.add_column(title, justify="right")
    table.add_column("verdict")
    found = verdict["pairs"]
    common = pair_decimals(found)
    for pair in found:
        shown = pair_decimals([pair]) if common is None else common
        interval = "–" if pair["ci95"] is None else " to ".join(_number(edge, shown) for edge in pair["ci95"])
        p, holm = (p_value(pair[key]).removeprefix("p ").removeprefix("= ") for key in ("p", "p_holm"))
        table.add_row(
            _escaped(f"{pair['a']} − {pair['b']}") + (" *" if pair.get("primary") else ""),
            _number(pair["difference"], shown), interval, p, holm,
            f"[{_COLORS[pair['verdict']]}]{pair['verdict']}[/]",
        )
    notes = [f"{pair['a']} − {pair['b']}: {pair['note']}" for pair in found if pair.get("note")]
    if any(pair.get("primary") for pair in found):
        notes.insert(0, "* the comparison this sweep is for")
    table.caption = _escaped("\n".join(notes)) or None
    table.caption_justify = "left"
    title = f"Differences in test_{verdict['objective']['metric']}, first arm minus second"
    return _titled(title, table, verdict)


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)


def _titled(title: str, shown: RenderableType, verdict: Mapping[str, Any]) -> RenderableType:
    """Title above; and above that, where the data is synthetic, the banner."""
    from rich.console import Group
    from rich.text import Text

    warning = synthetic(verdict)
    banner = [Text(f" {warning} ", style="bold yellow on red")] if warning else []
    return Group(*banner, Text(title, style="bold"), shown)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _number(value: float | None, decimals: int | None) -> str:
    if value is None or decimals is None:
        return significant(value)
    return f"{value:.{decimals}f}".replace("-", "−")


def _numbers(values: Sequence[float | None]) -> list[str]:
    decimals = aligned(values)
    return [_number(value, decimals) for value in values]


def _means(arms: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    found = [arm["metrics"].get(name) for arm in arms]
    decimals = aligned([metric and metric["mean"] for metric in found])
    half = [_number((metric["ci95"][1] - metric["ci95"][0]) / 2, decimals) if metric and metric["ci95"] else ""
            for metric in found]
    width = max(map(len, half), default=0)
    # the means line up although a single seed has no interval
    return ["–" if metric is None else f"{_number(metric['mean'], decimals)}"
            + (f" ± {text:>{width}}" if text else " " * (width + 3 if width else 0))
            for metric, text in zip(found, half, strict=True)]
