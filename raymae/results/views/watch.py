"""Follows a sweep on a terminal, from its folder alone: from another terminal, or from another machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from raymae.errors import ResultsError
from raymae.results.verdict.arms_table import mean_cells
from raymae.results.verdict.headline import synthetic
from raymae.results.verdict.numbers import column, duration, significant
from raymae.results.verdict.verdict import plain
from raymae.results.views.follower import Follower
from raymae.results.views.progress import OVER, Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

COLORS = {"running": "green", "ended": "bold", "interrupted": "yellow", "failed": "red", "lost": "red",
          "unknown": "yellow", "unreadable": "red"}
PATIENCE = 30  # looks in a row that the storage may refuse


def watch(
    root: str, console: Console, *, once: bool = False, as_json: bool = False, every_s: float = 2.0,
    say: Callable[[str], None] = print,
) -> Progress:
    """Show a sweep's progress until it has ended.

    On a terminal a panel is redrawn in place; elsewhere every change of the counts is a line, or a JSON object.

    Args:
        root: The sweep's folder, a path or a URI. One that is not there yet is waited for.
        console: Where people read.
        once: Look once and return.
        as_json: Print JSON through `say`: one indented object with `once`, else one a line.
        every_s: Seconds between two looks.
        say: Where JSON goes.

    Returns:
        The last look, as `Follower.look` made it.

    Raises:
        ResultsError: With `once`: no sweep there. Otherwise: the storage kept failing.
    """
    follower = Follower(root) if once else _when_there(root, console, every_s)
    seen = follower.look()
    if once:
        say(json.dumps(seen.to_json(), indent=2)) if as_json else console.print(panel(seen))
        return seen
    if as_json or not console.is_terminal:
        before: object = None
        told: set[str] = set()
        while True:
            if (now := _moved(seen)) != before:
                before = now
                say(json.dumps(seen.to_json())) if as_json else console.print(line(seen), soft_wrap=True)
                for command in () if as_json else seen.commands:
                    if command not in told:
                        console.print(f"by hand, {command}", soft_wrap=True, markup=False, highlight=False)
                told.update(seen.commands)
            if seen.state in OVER:
                break
            time.sleep(every_s)
            seen = _again(follower, console, every_s)
        if not as_json:
            console.print(panel(seen))
        return seen
    from rich.live import Live

    with Live(panel(seen), console=console, auto_refresh=False, transient=True) as live:
        while seen.state not in OVER:
            time.sleep(every_s)
            seen = _again(follower, console, every_s)
            live.update(panel(seen), refresh=True)
    console.print(panel(seen))
    return seen


def _when_there(root: str, console: Console, every_s: float) -> Follower:
    told = False
    while True:
        try:
            return Follower(root)
        except ResultsError as error:
            if "no sweep here" not in str(error):
                raise
            if not told:
                console.print(f"{error}\nwaiting for it to appear; Ctrl-C ends", soft_wrap=True, markup=False,
                              highlight=False)
                told = True
        time.sleep(every_s)


def _again(follower: Follower, console: Console, every_s: float) -> Progress:
    for tries in range(PATIENCE):
        try:
            return follower.look()
        except ResultsError as error:
            if tries == PATIENCE - 1:
                raise
            if not tries:
                console.print(f"warning: {error}; trying again", style="yellow", markup=False, soft_wrap=True)
        time.sleep(every_s)
    raise AssertionError("unreachable")


def _moved(seen: Progress) -> object:
    """What must differ for another line to be worth printing."""
    return seen.state, seen.note.partition(" for ")[0], seen.num_ended, len(seen.running), seen.commands


def line(seen: Progress) -> RenderableType:
    """The sweep's progress in one line."""
    from rich.text import Text

    count = seen.num_trials
    parts = [f"{seen.sweep} {seen.state}: {seen.num_ended}/{seen.num_planned} trials ended "
             f"({count.completed} completed, {count.stopped} stopped, {count.failed} failed), "
             f"{len(seen.running)} running"]
    if any(arm.best is not None for arm in seen.arms):
        objective = seen.objective
        better = min if objective.mode == "min" else max
        score, arm = better((arm.best, arm.arm) for arm in seen.arms if arm.best is not None)
        parts.append(f"best {objective.val} {significant(score)} by {arm}")
    if seen.left_s is not None:
        parts.append(_left(seen.left_s))
    if seen.note:
        parts.append(seen.note)
    return Text("; ".join(parts), style=COLORS[seen.state] if seen.state != "running" else "")


def _left(seconds: float) -> str:
    """The time that is left; what is estimated to be none is not."""
    return f"about {duration(seconds)} left" if seconds >= 1 else "about to end"


def panel(seen: Progress) -> RenderableType:
    """Everything on one screen: progress, arms, what runs, what failed, the answer so far."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    head.add_row(Text.assemble((seen.sweep, "bold"), "  ", (seen.state, COLORS[seen.state])),
                 ProgressBar(total=max(seen.num_planned, 1), completed=min(seen.num_ended, seen.num_planned)),
                 f"{seen.num_ended}/{seen.num_planned}")
    parts: list[RenderableType] = [head]
    if warning := synthetic(seen.data.name, seen.data.source):
        parts.insert(0, Text(warning, style="bold yellow"))
    if seen.note:
        parts.append(Text(seen.note, style="yellow"))
    parts.append(_arms(seen))
    count = seen.num_trials
    times = [f"{len(seen.running)} running", *(f"{number} {word}" for word, number in plain(count).items() if number)]
    if seen.elapsed_s is not None:
        times.append(f"{duration(seen.elapsed_s)} elapsed")
    if seen.left_s is not None:
        times.append(_left(seen.left_s))
    if seen.dollars is not None:
        times.append(f"{seen.dollars:,.2f} $ spent")
    parts.append(Text("  ".join(times), style="dim"))
    for failure in seen.failures:
        first = (failure.error.splitlines() or [""])[0]
        parts.append(Text(f"{failure.trial_id} failed: {first}", style="red", no_wrap=True, overflow="ellipsis"))
    parts += [Text(f"by hand, {command}", style="yellow") for command in seen.commands]
    if seen.dashboard and seen.state == "running":
        parts.append(Text(f"dashboard {seen.dashboard}", style="dim"))
    if seen.headline:
        parts.append(Text(seen.headline, style="bold"))
    return Group(*parts)


def _arms(seen: Progress) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("arm", no_wrap=True, style="bold")
    for title in ("search", "seeds", f"best {seen.objective.val}", seen.objective.test):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("now", style="dim", ratio=1)
    best_cells, test_cells = column(arm.best for arm in seen.arms), mean_cells(arm.test for arm in seen.arms)
    for arm, best, (test, _) in zip(seen.arms, best_cells, test_cells, strict=True):
        now = ", ".join(str(trial) for trial in seen.running if trial.arm == arm.arm)
        table.add_row(
            Text(arm.arm), *(f"{stage.done}/{stage.planned}" for stage in (arm.search, arm.replicates)),
            best, test, Text(now),
        )
    return table
