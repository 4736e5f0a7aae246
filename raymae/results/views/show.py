"""A sweep's results for the terminal, as rich renderables, and as the plain values of `raymae results --json`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymae.errors import ModelError
from raymae.results.store.store import Store
from raymae.results.verdict.arms_table import arms_table, mean_cells
from raymae.results.verdict.headline import headline, synthetic, unlearned_text
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.matrix import matrix
from raymae.results.verdict.numbers import column, duration, interval_decimals, number, p_cell, p_value
from raymae.results.verdict.verdict import TrialCounts, Verdict
from raymae.results.views.models import Models, models_of
from raymae.results.views.terminal_table import Remarks
from raymae.spec.factors import told

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_COLORS = {"helps": "green", "hurts": "red", "practically equal": "cyan", "undecided": "yellow"}
_METRICS_PER_TABLE = 3


@dataclass(frozen=True)
class Summary:
    """A sweep's state, also while it runs.

    Attributes:
        root: Its folder.
        num_trials: Trials `started` and `unfinished`, and by status over all attempts.
        num_reports: Reports of all trials.
        verdict: The one written at the end, or computed from what is there.
        models: The models that it has kept; None where their folder cannot be listed.
        pretrains_on: What pretraining saw where that is not the training split alone; or "".
    """

    root: str
    num_trials: dict[str, int]
    num_reports: int
    verdict: Verdict
    models: Models | None = None
    pretrains_on: str = ""

    def to_json(self) -> dict[str, object]:
        """What `raymae results --json` prints."""
        return {
            "sweep": self.verdict.sweep, "root": self.root, "task": self.verdict.task,
            "headline": headline(self.verdict), "num_trials": self.num_trials, "num_reports": self.num_reports,
            "models": [card.trial_id for cards in self.models.by_arm.values() for card in cards] if self.models else [],
            "pretrains_on": self.pretrains_on, "verdict": self.verdict.to_json(),
        }


def summary(store: Store) -> Summary:
    """Everything about a sweep's state."""
    rows = store.trials()
    trials = rows[rows["stage"] != "pretrain"]  # a pretraining is no trial of its own
    verdict, models = verdict_now(store), None
    with contextlib.suppress(ModelError):
        models = models_of(store, verdict, rows)
    ended = set(trials["trial_id"])
    started = {name for name, config in store.configs().items() if config.get("stage") != "pretrain"} | ended
    return Summary(
        root=store.root,
        num_trials={
            "started": len(started),
            "unfinished": len(started - ended),
            **vars(TrialCounts.of(trials["status"])),
        },
        num_reports=store.table("reports").num_rows,
        verdict=verdict,
        models=models,
        pretrains_on=store.manifest.pretrains_on,
    )


def render(summary: Summary) -> RenderableType:
    """The whole page: state, leaderboard, other metrics, pairs, headline."""
    from rich.console import Group
    from rich.text import Text

    verdict, count = summary.verdict, summary.num_trials
    state = "complete" if verdict.complete else "unfinished"
    head = Text.assemble(
        (verdict.sweep, "bold"), f"  {verdict.task} on {verdict.data.name} ({verdict.data.source} data), {state}: ",
        f"{count['completed']} trials completed, {count['stopped']} stopped, {count['failed']} failed, ",
        f"{count['unfinished']} running or interrupted",
    )
    table = cells(verdict)
    parts: list[RenderableType] = [head, "", *([] if table is None else [table, ""]), leaderboard(verdict)]
    for section in (other_metrics(verdict), pairs(verdict), front(verdict)):
        if section is not None:
            parts += ["", section]
    lines = [f"pretraining saw {line}" for line in summary.pretrains_on.splitlines()]
    lines.append(summary.models.line() if summary.models is not None else "")
    return Group(*parts, "", Text(headline(verdict), style="bold"), *map(Text, filter(None, lines)))


def front(verdict: Verdict) -> RenderableType | None:
    """The search trials that nobody beats in both metric and cost, cheapest first; None where cost is not minded."""
    if verdict.pareto is None:
        return None
    cost, points = verdict.pareto.cost, verdict.pareto.front
    table = _table()
    table.add_column("trial", style="bold", no_wrap=True)
    table.add_column("arm", no_wrap=True)
    table.add_column(verdict.objective.val, justify="right")
    table.add_column(cost, justify="right")
    for point, value in zip(points, column(point.value for point in points), strict=True):
        spent = duration(point.cost) if cost == "wall_s" else f"{point.cost:,.0f}"
        table.add_row(_escaped(point.trial_id), _escaped(point.arm), value, spent)
    return _titled(f"Pareto front of {verdict.objective.val} and {cost}, over the search", table, verdict)


def cells(verdict: Verdict) -> RenderableType | None:
    """The comparison that the sweep is for in every cell of its factors, a row a cell; None where it has none."""
    found = matrix(verdict)
    if found is None:
        return None
    table = _table()
    for name in found.factors:
        table.add_column(_escaped(name), style="bold", justify="right", no_wrap=True)
    a, b = found.a or "first arm", found.b or "second arm"
    for title in (a, b, f"{a} − {b}", "95 % interval", "p (Holm)"):
        table.add_column(_escaped(title), justify="right")
    table.add_column("verdict")
    skilled = any(row.skill for row in found.rows)
    if skilled:
        table.add_column("skill", justify="right", no_wrap=True)
    remarks = Remarks()
    for row in found.rows:
        word = f"[{_COLORS[row.plain]}]{row.plain}[/]{remarks.mark(row.remark)}" if row.plain else row.word
        table.add_row(*map(_escaped, row.named()), row.a, row.b, row.difference, row.interval, row.p, word,
                      *([row.skill] if skilled else []))
    shown = "; ".join(told(verdict.cell or {}).split(", "))
    note = f"{found.note}; " if found.note else ""
    told_of = (f"{note}p-values are adjusted for all comparisons in all cells; what follows is of {shown}, and `raymae "
               "query` has every cell's arms")
    table.caption = _escaped("\n".join([*remarks.notes(), told_of]))
    table.caption_justify = "left"
    return _titled(f"Test {verdict.objective.metric} in every cell", table, verdict)


def leaderboard(verdict: Verdict) -> RenderableType:
    """Arms best first: trials, best validation score, test score with the half-width of its interval, compute."""
    objective = verdict.objective
    unit = f", {objective.unit}" if objective.unit else ""
    better = "less" if objective.mode == "min" else "more"
    table = _table()
    table.add_column("arm", style="bold", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for title in ("done", "stop", "fail", f"best {objective.val}", f"{objective.test} ± 95 %", "seeds"):
        table.add_column(title, justify="right")
    table.add_column("compute", justify="right", no_wrap=True)
    rows = arms_table(verdict, alike=True)
    skilled = any(row.skill for row in rows)
    if skilled:
        table.add_column("skill", justify="right", no_wrap=True)
    for row, test in zip(rows, _lined_up([(row.test, row.half) for row in rows]), strict=True):
        failed = row.failed if row.failed == "0" else f"[red]{row.failed}[/]"
        table.add_row(_escaped(row.arm), row.kind, row.completed, row.stopped, failed, row.val, test, row.seeds,
                      row.compute, *([row.skill] if skilled else []))
    return _titled(f"Arms, best first ({objective.metric}{unit}; {better} is better)", table, verdict)


def other_metrics(verdict: Verdict) -> RenderableType | None:
    """The test scores that the sweep does not select on, or None where there are none."""
    from rich.console import Group

    columns = dict.fromkeys(name for arm in verdict.arms for name in arm.metrics if name != verdict.objective.test)
    names, tables = list(columns), []
    for start in range(0, len(names), _METRICS_PER_TABLE):
        table = _table()
        table.add_column("arm", style="bold", no_wrap=True)
        part = names[start:start + _METRICS_PER_TABLE]
        for name in part:
            table.add_column(name, justify="right")
        cells = [_lined_up(mean_cells([arm.metrics.get(name) for arm in verdict.arms])) for name in part]
        for arm, *scores in zip(verdict.arms, *cells, strict=True):
            table.add_row(_escaped(arm.arm), *scores)
        tables.append(table)
    title = "Other test metrics, mean ± half-width of the 95 % interval"
    return _titled(title, Group(*tables), verdict) if tables else None


def pairs(verdict: Verdict) -> RenderableType | None:
    """Differences between arms with both intervals, p-value and verdict, the primary first; None without pairs."""
    if not verdict.pairs:
        return None
    table = _table()
    table.add_column("arms", style="bold", no_wrap=True)
    over_units = verdict.rule is not None and verdict.rule.units > 0
    titles = ("difference", "95 % interval", *(["over seeds alone"] if over_units else []), "p", "p (Holm)")
    for title in titles:
        table.add_column(title, justify="right")
    table.add_column("verdict")
    common, remarks = interval_decimals(pair.ci95 for pair in verdict.pairs), Remarks()
    for pair in verdict.pairs:
        decimals = interval_decimals([pair.ci95]) if common is None else common
        intervals = ["–" if interval is None else " to ".join(number(end, decimals) for end in interval)
                     for interval in (pair.ci95, *([pair.ci95_seeds] if over_units else []))]
        table.add_row(
            _escaped(f"{pair.a} − {pair.b}") + (" *" if pair.primary else ""), number(pair.difference, decimals),
            *intervals, p_cell(pair.p), p_cell(pair.p_holm),
            f"[{_COLORS[pair.verdict]}]{pair.verdict}[/]{remarks.mark(unlearned_text(pair, verdict))}",
        )
    notes = [*remarks.notes(), *(f"{pair.a} − {pair.b}: {pair.note}" for pair in verdict.pairs if pair.note)]
    first = verdict.pairs[0]
    if first.p_otherwise is not None and verdict.rule is not None:
        other = "independent" if verdict.rule.compare == "paired" else "paired by seed"
        notes.insert(0, f"{first.a} − {first.b} with replicates {other}: {p_value(first.p_otherwise)}")
    if any(pair.primary for pair in verdict.pairs):
        notes.insert(0, "* the comparison this sweep is for")
    table.caption = _escaped("\n".join(notes)) or None
    table.caption_justify = "left"
    return _titled(f"Differences in {verdict.objective.test}, first arm minus second", table, verdict)


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)


def _titled(title: str, content: RenderableType, verdict: Verdict) -> RenderableType:
    """Title above; and above that, where the data is synthetic, the banner."""
    from rich.console import Group
    from rich.text import Text

    warning = synthetic(verdict.data.name, verdict.data.source)
    banner = [Text(f" {warning} ", style="bold yellow on red")] if warning else []
    return Group(*banner, Text(title, style="bold"), content)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _lined_up(cells: Sequence[tuple[str, str]]) -> list[str]:
    """Means with half-widths; the means line up although a single seed has no interval."""
    width = max((len(half) for _, half in cells), default=0)
    padding = " " * (width + 3 if width else 0)
    return [mean if mean == "–" else mean + (f" ± {half:>{width}}" if half else padding) for mean, half in cells]
