"""News of a sweep to whoever is not watching: by mail, chat or web hook, through apprise.

Sent at the end, whatever it is; with every warning, such as of an arm that is given up; and when nine tenths of a
budget are spent. A notification that fails costs a line in the log and never a result.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from raymae.errors import Problem, SpecError, one_line
from raymae.search.live.variables import with_variables

if TYPE_CHECKING:
    from raymae.results.store.columns import Row
    from raymae.results.views.progress import Progress
    from raymae.search.messages import Message

MOST = 20  # messages of one run: what has been said twenty times is heard, or will not be
NEARLY = 0.9  # of a budget
PATIENCE_S = 15.0  # that the end of a sweep waits for messages under way
_MISSING = "news are sent through apprise, which is not installed: pip install 'raymae[notify]', or leave `notify` out"


class News:
    """Sends news of a sweep, as an observer of its conductor; `over` at its end.

    Args:
        sweep: The sweep's name.
        urls: Where to, as apprise writes it; `${NAME}` stands for a variable of the environment, so that a secret need
            not be in the file, which is copied to the results.

    Raises:
        SpecError: A URL is none of apprise's, a variable is not set, or apprise is not installed.
    """

    def __init__(self, sweep: str, urls: Sequence[str]) -> None:
        self._sweep, self._to = sweep, receivers(urls)
        self._spent: Callable[[], float | None] = lambda: None
        self._warn: Callable[[str], None] = lambda _: None
        self._sent, self._failed, self._told = 0, False, False
        self._waiting: queue.Queue[tuple[str, str] | None] = queue.Queue()
        self._sender = threading.Thread(target=self._send, name="news", daemon=True)
        if urls:
            self._sender.start()

    def follow(self, spent: Callable[[], float | None], warn: Callable[[str], None]) -> None:
        """Tell of a sweep that begins.

        Args:
            spent: How much of its budget is spent, from 0 to 1; None without one.
            warn: Told once where a message does not arrive.
        """
        self._spent, self._warn = spent, warn

    def warned(self, text: str) -> None:
        """Send a warning, but for those about news."""
        if not text.startswith(_NOT_SENT):
            self._say("warning", text)

    def reported(self, row: Row, message: Message) -> None:
        """Nothing: a report is no news."""

    def ended(self, row: Row, progress: Progress) -> None:
        """Nothing: nor is a trial."""

    def beat(self, progress: Progress) -> None:
        """Say once that nine tenths of the budget are spent."""
        share = None if self._told else self._spent()
        if share is not None and share >= NEARLY:
            self._told = True
            self._say("budget", f"{share:.0%} of the budget is spent; {progress.num_ended} of {progress.num_planned} "
                                "trials have ended")

    def over(self, how: str, text: str) -> None:
        """Send the last news, and wait a little until all have gone.

        Args:
            how: `finished`, or how else it ended.
            text: The answer, or why there is none.
        """
        self._sent = min(self._sent, MOST - 1)  # the end is always told
        self._say(how, text)
        self._waiting.put(None)
        if self._sender.is_alive():
            self._sender.join(PATIENCE_S)

    def _say(self, what: str, text: str) -> None:
        if self._to is not None and self._sent < MOST:
            self._sent += 1
            self._waiting.put((f"{self._sweep}: {what}", text))

    def _send(self) -> None:
        while (message := self._waiting.get()) is not None:
            title, body = message
            try:
                arrived = self._to.notify(title=title, body=body)
                reason = "not everybody took it"
            except Exception as failure:  # whatever a service's plugin raises
                arrived, reason = False, one_line(failure)
            if not arrived and not self._failed:
                self._failed = True
                self._warn(f"{_NOT_SENT} ({title}): {reason}; the sweep goes on")


_NOT_SENT = "news could not be sent"


def receivers(urls: Sequence[str]) -> Any:
    """What apprise sends by; None where there is nobody to tell.

    Raises:
        SpecError: See `News`. A URL may hold a secret, so the message has its scheme only.
    """
    if not urls:
        return None
    try:
        import apprise
    except ImportError:
        raise SpecError([Problem("notify", "", _MISSING)]) from None
    to, problems = apprise.Apprise(), list[Problem]()
    for index, url in enumerate(urls):
        scheme = f"{url.partition('://')[0]}://…" if "://" in url else "a text without ://"
        try:
            filled = with_variables(url, f"notify.{index}", scheme)
        except SpecError as error:
            problems += error.problems
            continue
        plugin = apprise.Apprise.instantiate(filled)
        if plugin is None:
            problems.append(Problem(f"notify.{index}", "", f"{scheme} is no address that apprise knows, such as "
                                                            "mailto://user:password@gmail.com or json://host/path; "
                                                            "see github.com/caronc/apprise"))
        else:
            to.add(plugin)
    if problems:
        raise SpecError(problems)
    return to
