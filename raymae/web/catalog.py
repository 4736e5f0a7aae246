"""The sweeps below one folder, looked at no more often than needed, and never anything outside of it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable

from raymae.errors import RayMAEError, ResultsError
from raymae.results.store.folder import Folder
from raymae.results.store.layout import REPORTS, STATE, SWEEP, TRIALS, VERDICT
from raymae.results.views.follower import Follower
from raymae.results.views.progress import OVER, Progress

FRESH_S = 1.0  # a look is good for so long, however many browsers ask
_REMOTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # anything else could change the meaning of a URI


class Catalog:
    """Finds the sweeps of a folder and remembers how far they were.

    A name that a browser sends is only ever compared with the names that the folder lists; no path is made from it.

    Args:
        root: A folder of sweeps, or one sweep; a path or a URI.

    Raises:
        ResultsError: No such folder.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._folder = Folder(root)
        self.root = self._folder.root
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        local = self._folder.local
        if local is not None and not local.is_dir():
            raise ResultsError(f"{self.root}: no such folder; name a folder of sweeps, such as `results`")
        self._single = SWEEP in self._folder.names()

    def names(self) -> list[str]:
        """Names of the sweeps' folders, sorted.

        Raises:
            OSError: The storage failed.
        """
        if self._single:
            return [self._folder.name]
        found = []
        for name in self._folder.folders():
            if self._inside(name) and SWEEP in self._folder.names(name):
                found.append(name)
        return found

    def _inside(self, name: str) -> bool:
        """Not a link that leads out of the folder, nor a name that would change the meaning of a URI."""
        if self._folder.local is None:
            return _REMOTE_NAME.fullmatch(name) is not None
        root = os.path.realpath(self._folder.local)
        return os.path.realpath(os.path.join(root, name)) == os.path.join(root, name)

    def _root_of(self, name: str) -> str | None:
        """The folder of a sweep that exists, or None."""
        if name not in self.names():
            return None
        return self._folder.root if self._single else self._folder.uri(name)

    def look(self, name: str) -> Progress | None:
        """A sweep's progress; None where there is no such sweep.

        A sweep that cannot be read has the state `unreadable` and the reason as its `note`.
        """
        root = self._root_of(name)
        return None if root is None else self._entry(name, root).look(name)

    def all(self) -> dict[str, Progress]:
        """Every sweep's progress by its folder's name: those under way first, then the latest first."""
        looks = ((name, self.look(name)) for name in self.names())
        seen = [(name, progress) for name, progress in looks if progress is not None]
        seen.sort(key=lambda named: named[1].started_at, reverse=True)
        seen.sort(key=lambda named: named[1].state != "running")
        return dict(seen)

    def report(self, name: str, render: Callable[[str], str]) -> str | None:
        """A sweep's report page, made anew when its results have changed; None where there is no such sweep.

        Args:
            name: The sweep's folder.
            render: From a sweep's folder to HTML.

        Raises:
            RayMAEError: It cannot be made.
        """
        root = self._root_of(name)
        return None if root is None else self._entry(name, root).report(render)

    def _entry(self, name: str, root: str) -> _Entry:
        with self._lock:
            return self._entries.setdefault(name, _Entry(root))


class _Entry:
    """What is remembered of one sweep."""

    def __init__(self, root: str) -> None:
        self._root, self._folder = root, Folder(root)
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._seen: Progress | None = None
        self._looked, self._stamp = float("-inf"), object()
        self._report: tuple[object, str] | None = None
        self._rendering = threading.Lock()

    def look(self, name: str) -> Progress:
        with self._lock:
            if self._seen is None or time.monotonic() - self._looked >= FRESH_S:
                try:
                    self._seen = self._look()
                except (RayMAEError, OSError) as error:
                    self._follower, self._stamp = None, object()
                    self._seen = Progress.unreadable(name, str(error))
                self._looked = time.monotonic()
            return self._seen

    def _look(self) -> Progress:
        stamp = self._changed()
        if self._seen is not None and self._seen.state in OVER and stamp == self._stamp:
            return self._seen
        self._follower = self._follower or Follower(self._root)
        seen, self._stamp = self._follower.look(), stamp
        if seen.state in OVER:
            self._follower = None  # its tables can be large, and nothing will be added to them
        return seen

    def report(self, render: Callable[[str], str]) -> str:
        with self._rendering:
            stamp = self._changed()
            if self._report is None or self._report[0] != stamp:
                self._report = (stamp, render(self._root))
            return self._report[1]

    def _changed(self) -> object:
        """Compares equal as long as nobody wrote."""
        small = []
        for name in (SWEEP, STATE, VERDICT):
            try:
                small.append(self._folder.read(name))
            except FileNotFoundError:
                small.append(b"")
        if b'"state": "running"' in small[1]:  # a sign of life alone changes no report
            small[1] = b""
        return small, self._folder.names(TRIALS), self._folder.names(REPORTS)
