"""Progress of a running sweep: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from raymae.results.verdict.numbers import duration, significant

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor
    from raymae.search.engine.connection import Cluster
from raymae.search.decide.trials import Trial


class Display:
    """Shows a conductor's state. Make one with `for_terminal` or `silent`.

    Args:
        console: Where to print; None is nowhere.
        live: Redraw a panel in place; otherwise print a line per ended trial.
    """

    def __init__(self, console: Console | None, *, live: bool) -> None:
        self._console, self._is_live = console, live
        self._conductor: Conductor | None = None
        self._dashboard = self._note = ""
        self._live: Live | None = None

    @classmethod
    def for_terminal(cls, console: Console) -> Display:
        """A live panel if the console is a terminal, plain lines if not.

        The console must hold its stream (`Console(file=sys.stderr)`): a sweep sends the process's streams to a log.
        """
        return cls(console, live=console.is_terminal)

    @classmethod
    def silent(cls) -> Display:
        """Prints nothing."""
        return cls(None, live=False)

    def warn(self, message: str) -> None:
        """Print something a person should know now."""
        if self._console is not None:
            self._console.print(Text(f"warning: {message}", style="yellow"))

    def continuing(self, ended: int, interrupted: int) -> None:
        """An earlier run of the same sweep is being continued."""
        if self._console is not None:
            self._console.print(f"continuing: {ended} trials are done, {interrupted} were under way")

    def warm_start(self, folder: str, used: int) -> None:
        """The search learns from another sweep."""
        if self._console is not None:
            self._console.print(f"warm start: {used} trials of {folder}", soft_wrap=True)

    def connected(self, cluster: Cluster) -> None:
        """Ray is up."""
        self._dashboard = cluster.dashboard
        if self._console is not None and not self._is_live:
            self._console.print(f"Ray is up; dashboard {cluster.dashboard or 'off'}", soft_wrap=True)

    def waiting(self, room: int, slots: int) -> None:
        """There is room for fewer trials than shall run at once: the others wait for nodes."""
        if room < slots:
            self._note = f"waiting for nodes: room for {room} of {slots} trials at once"
            if self._console is not None and not self._is_live:
                self._console.print(self._note)

    def ended(self, trial: Trial) -> None:
        """A trial ended: one line, where there is no live panel."""
        if self._console is not None and not self._is_live and self._conductor is not None:
            self._console.print(_line(self._conductor, trial), soft_wrap=True)

    @contextmanager
    def live(self, conductor: Conductor) -> Iterator[None]:
        """Follow a conductor for the length of a `with` block."""
        self._conductor = conductor
        conductor.listener = self.ended
        if self._console is None or not self._is_live:
            if self._console is not None:
                self._console.print(f"starting Ray; {conductor.num_planned} trials, {conductor.slots} at once")
            yield
            return
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True):
            yield

    def _render(self) -> RenderableType:
        assert self._conductor is not None
        # the conductor's thread may add a trial while this one draws
        trials = list(self._conductor.trials.values())
        starting = sum(trial.status == "running" and not trial.last for trial in trials)
        return panel(self._conductor, trials, self._dashboard, self._note if starting else "")


def panel(conductor: Conductor, trials: list[Trial], dashboard: str, note: str = "") -> RenderableType:
    """The live panel: progress, best per arm, what runs, time left, and a note."""
    ended = [trial for trial in trials if trial.status != "running"]
    counts = {status: sum(trial.status == status for trial in trials)
              for status in ("completed", "running", "stopped", "failed")}
    progress = Progress(TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(),
                        expand=True)
    progress.add_task(conductor.spec.name, total=conductor.num_planned, completed=len(ended))
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column("arm")
    for name in ("search", "seeds", f"best {conductor.metric}"):
        table.add_column(name, justify="right")
    table.add_column("now", style="dim")
    for arm in conductor.plans:
        mine = [trial for trial in trials if trial.config.arm == arm]
        search = sum(t.stage == "search" and t.status != "running" for t in mine)
        seeds = sum(t.stage == "replicate" and t.status != "running" for t in mine)
        best = conductor.best(arm)
        now = ", ".join(_now(trial) for trial in mine if trial.status == "running")
        table.add_row(arm, f"{search}/{conductor.quota[arm]}", f"{seeds}/{conductor.num_replicates(arm)}",
                      significant(best.best[conductor.metric]) if best is not None else "–", now)
    left = time_left(conductor, ended)
    status = Text.assemble(
        "  ".join(f"{count} {status}" for status, count in counts.items() if count or status != "failed"),
        f"   {duration(conductor.elapsed)} elapsed", f", about {duration(left)} left" if left is not None else "",
        style="dim",
    )
    link = Text(f"dashboard {dashboard}" if dashboard else "starting Ray …", style="dim")
    parts: list[RenderableType] = [progress, table, status, link]
    if note:
        parts.append(Text(note, style="dim"))
    if conductor.source == "synthetic":
        parts.insert(0, Text("SYNTHETIC DATA: these numbers say nothing about the real data set", style="bold yellow"))
    return Group(*parts)


def _now(trial: Trial) -> str:
    report = trial.last and trial.last.report
    return f"{trial.trial_id} {report.phase} {report.epoch}" if report else f"{trial.trial_id} starting"


def time_left(conductor: Conductor, ended: list[Trial]) -> float | None:
    """Seconds left, from the mean time of each arm's ended trials; None until there is something to go by."""
    if not ended:
        return None
    overall = sum(trial.wall_s for trial in ended) / len(ended)
    total = 0.0
    for arm in conductor.plans:
        mine = [trial.wall_s for trial in ended if trial.config.arm == arm]
        left = conductor.quota[arm] + conductor.num_replicates(arm) - len(mine)
        total += max(left, 0) * (sum(mine) / len(mine) if mine else overall)
    limit = conductor.seconds_left()
    estimate = total / conductor.slots
    return estimate if limit is None else max(0.0, min(estimate, limit))


def _line(conductor: Conductor, trial: Trial) -> Text:
    ended = sum(t.status != "running" for t in conductor.trials.values())
    score = trial.best.get(conductor.metric)
    text = f"[{ended}/{conductor.num_planned}] {trial.trial_id} {trial.status} in {duration(trial.wall_s)}"
    if score is not None:
        text += f"  {conductor.metric} {significant(score)}"
    for name, value in trial.test.items():
        if name == f"test_{conductor.objective.metric}":
            text += f"  {name} {significant(value)}"
    if trial.error:
        text += f"  {trial.error.splitlines()[0]}"
    return Text(text, style="red" if trial.status == "failed" else "")
