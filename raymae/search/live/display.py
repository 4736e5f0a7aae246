"""Progress of a running sweep: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from raymae.results.store.columns import Row
from raymae.results.verdict.numbers import duration, significant
from raymae.results.views.progress import Progress
from raymae.results.views.watch import panel
from raymae.spec.factors import said

if TYPE_CHECKING:
    from raymae.search.messages import Message


STARTING = "workers start: each imports torch and reads the data before its first trial"


class Display:
    """Shows a sweep to whoever started it. Make one with `for_terminal` or `silent`.

    Args:
        console: Where to print; None is nowhere.
        live: Redraw a panel in place; otherwise print a line per ended trial.
    """

    def __init__(self, console: Console | None, *, live: bool) -> None:
        self._console, self._is_live = console, live
        self._note = "starting Ray"

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

    def _print(self, text: RenderableType, *, always: bool = False) -> None:
        """Print a line; most only where there is no live panel."""
        if self._console is not None and (always or not self._is_live):
            self._console.print(text, soft_wrap=True)

    # -- an observer of the conductor ----------------------------------------------------------------------------------

    def warned(self, text: str) -> None:
        """Print something a person should know now."""
        if self._console is not None:
            self._console.print(Text(f"warning: {text}", style="yellow"))

    def reported(self, row: Row, message: Message) -> None:
        """Print nothing: the panel shows it. The workers have started."""
        if self._note == STARTING:
            self._note = ""

    def ended(self, row: Row, progress: Progress) -> None:
        """Print one line about a trial that ended, where there is no live panel."""
        self._print(trial_line(row, progress))

    def beat(self, progress: Progress) -> None:
        """Print nothing: the panel asks for itself, more often."""

    # -- what comes before the first trial -----------------------------------------------------------------------------

    def continuing(self, ended: int, interrupted: int) -> None:
        """An earlier run of the same sweep is being continued."""
        self._print(f"continuing: {ended} trials are done, {interrupted} were under way", always=True)

    def warm_start(self, folder: str, used: int) -> None:
        """The search learns from another sweep."""
        self._print(f"warm start: {used} trials of {folder}", always=True)

    def connected(self, dashboard: str, root: str, *, later: bool = False) -> None:
        """Ray is up, and the first workers start.

        Args:
            dashboard: Its address; "" where there is none.
            root: The sweep's folder.
            later: Whether there is none yet.
        """
        if dashboard:
            self._print("Ray is up")
            self.dashboard(dashboard)
        else:
            self._print(f"Ray is up; its dashboard {'starts after the first report' if later else 'is off'}")
        if "://" not in root:
            command = shlex.join(["raymae", "serve", str(PurePath(root).parent)])
            self._print(f"  progress and reports in a browser: {command}", always=True)
        self._note = STARTING
        self._print(self._note)

    def dashboard(self, url: str) -> None:
        """The dashboard can be looked at."""
        self._print(f"dashboard {url}", always=True)
        self._print("  it asks for a token, which this prints: RAY_AUTH_MODE=token ray get-auth-token", always=True)

    def timing(self) -> None:
        """A step is timed in float32 and in bfloat16."""
        self._note = "workers start; timing a step of every arm in float32 and in bfloat16"
        self._print(self._note)

    def computing_in(self, precision: str, times: float) -> None:
        """It is known what is computed in, and how many times as fast bfloat16 is."""
        self._note = STARTING
        self._print(f"precision: {precision}; a step in bfloat16 is {times:.2f} times as fast as in float32",
                    always=True)

    def equalising(self, by: str) -> None:
        """The arms' epochs are timed, or their steps counted."""
        self._note = f"workers start; measuring the arms: trained ones get as many epochs as make them equal in {by}"
        self._print(self._note)

    def equalised(self, times_epochs: Mapping[str, float]) -> None:
        """It is known how many times its epochs each arm gets."""
        self._note = STARTING
        times = ", ".join(f"{arm} {times:.3g} times" for arm, times in times_epochs.items())
        self._print(f"epochs: {times}" if times else "epochs: equal already", always=True)

    def opened(self, factor: str, value: int | float) -> None:
        """A cell of a factor that is bisected is opened."""
        self._print(f"opens a cell: {factor} {said(value)}", always=True)

    def charging(self, prices: str, earlier: float) -> None:
        """It is known what the cluster's nodes cost for an hour, and what an earlier run has spent."""
        before = f"; {earlier:,.2f} $ were spent before" if earlier >= 0.005 else ""
        self._print(f"charged for the nodes that are up, for an hour: {prices}{before}", always=True)

    def waiting(self, room: int, slots: int) -> None:
        """There is room for fewer trials than shall run at once: the others wait for nodes."""
        if room < slots:
            self._note = f"waiting for nodes: room for {room} of {slots} trials at once"
            self._print(self._note)

    @contextmanager
    def live(self, progress: Callable[[], Progress]) -> Iterator[None]:
        """Show how far a sweep is for the length of a `with` block.

        Args:
            progress: Says how far it is; called from a thread of the panel's own.
        """
        if self._console is None or not self._is_live:
            now = progress()
            self._print(f"starting Ray; {now.num_planned} trials, {now.slots} at once")
            yield
            return

        def render() -> RenderableType:
            now = progress()
            # until every running trial has reported once, somebody waits for something
            waits = not now.running or any(trial.phase is None for trial in now.running)
            return panel(now.with_note(self._note) if self._note and waits else now)

        with Live(get_renderable=render, console=self._console, refresh_per_second=4, transient=True):
            yield


def trial_line(row: Row, progress: Progress) -> Text:
    """How a trial ended, in one line.

    Args:
        row: Its row of the trials' table.
        progress: How far the sweep is with it.
    """
    text = f"[{progress.num_ended}/{progress.num_planned}] {row['trial_id']} {row['status']}"
    text += f" in {duration(row['wall_s'])}"
    shown = ("pretext_skill",) if row["stage"] == "pretrain" else (progress.objective.val, progress.objective.test)
    for column in shown:
        if column in row:
            text += f"  {column} {significant(row[column])}"
    if row["error"]:
        text += f"  {row['error'].splitlines()[0]}"
    return Text(text, style="red" if row["status"] == "failed" else "")
