"""The sweeps below one folder, looked at no more often than needed, and never anything outside of it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import RayMAEError, ResultsError
from raymae.results.store.folder import Folder
from raymae.results.store.layout import REPORTS, STATE, SWEEP, TRIALS, VERDICT
from raymae.results.store.store import Store
from raymae.results.views.compare import ComparedSweep, compared, sweep_files, together
from raymae.results.views.follower import Follower
from raymae.results.views.models import Use, models_of, uses
from raymae.results.views.progress import OVER, Progress
from raymae.web.trials import live_plots

if TYPE_CHECKING:
    from markupsafe import Markup

DATASETS: tuple[Literal["trials", "reports"], ...] = ("trials", "reports")
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
        self._lock, self._comparing = threading.Lock(), threading.Lock()
        self._compared: tuple[object, tuple[list[ComparedSweep], list[str]]] | None = None
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

    def rows(self, name: str) -> Rows | None:
        """A sweep's rows as of its last look; None where there is no such sweep.

        Those of the sweep that was asked for last are kept, of no other.

        Raises:
            RayMAEError: They cannot be read.
        """
        root = self._root_of(name)
        if root is None:
            return None
        for other, entry in list(self._entries.items()):
            if other != name:
                entry.forget()
        return self._entry(name, root).rows(name)

    def plots(self, name: str) -> list[tuple[str, Markup]]:
        """The curves of a sweep's page, each with its heading: drawn anew when there are new rows.

        Raises:
            RayMAEError: They cannot be made.
        """
        root = self._root_of(name)
        return [] if root is None else self._entry(name, root).plots(name)

    def models(self, name: str) -> tuple[Use, ...]:
        """How the models of a sweep that is over are used, arm by arm.

        Raises:
            RayMAEError: They cannot be read.
        """
        root = self._root_of(name)
        return () if root is None else self._entry(name, root).models(name)

    def compared(self) -> tuple[list[ComparedSweep], list[str]]:
        """All sweeps that can be read as `raymae compare` has them, and the names of those that cannot.

        Raises:
            OSError: The storage failed.
        """
        names = self.names()
        entries = [self._entry(name, root) for name in names if (root := self._root_of(name)) is not None]
        with self._comparing:
            stamp = [entry.changed() for entry in entries]
            if self._compared is None or self._compared[0] != stamp:
                found, broken, files = [], [], sweep_files()
                for name, entry in zip(names, entries, strict=True):
                    try:
                        found.append(compared(entry.root, files))
                    except (RayMAEError, OSError):
                        broken.append(name)
                self._compared = stamp, (together(found), broken)
            return self._compared[1]

    def _entry(self, name: str, root: str) -> _Entry:
        with self._lock:
            return self._entries.setdefault(name, _Entry(root))


@dataclass(frozen=True)
class Rows:
    """The rows of a sweep, its folder, and how far it was."""

    store: Store
    tables: Mapping[str, Any]
    seen: Progress


class _Entry:
    """What is remembered of one sweep."""

    def __init__(self, root: str) -> None:
        self.root, self._folder = root, Folder(root)
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._seen: Progress | None = None
        self._looked, self._stamp = float("-inf"), object()
        self._report: tuple[object, str] | None = None
        self._rows: tuple[object, Rows] | None = None
        self._plots: tuple[object, list[tuple[str, Markup]]] | None = None
        self._models: tuple[object, tuple[Use, ...]] | None = None
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
        stamp = self.changed()
        if self._seen is not None and self._seen.state in OVER and stamp == self._stamp:
            return self._seen
        self._follower = self._follower or Follower(self.root)
        seen, self._stamp = self._follower.look(), stamp
        if seen.state in OVER:
            self._follower = None  # its tables can be large, and nothing will be added to them
        return seen

    def report(self, render: Callable[[str], str]) -> str:
        with self._rendering:
            stamp = self.changed()
            if self._report is None or self._report[0] != stamp:
                self._report = (stamp, render(self.root))
            return self._report[1]

    def forget(self) -> None:
        """Drop the rows, which can be large."""
        self._rows = None

    def rows(self, name: str) -> Rows:
        seen = self.look(name)
        if seen.state == "unreadable":
            raise ResultsError(seen.note)
        with self._lock:
            if self._follower is not None:
                return Rows(self._follower.store, self._follower.tables, seen)
            if self._rows is None or self._rows[0] != self._stamp:
                store = Store.open(self.root)
                self._rows = self._stamp, Rows(store, {name: store.table(name) for name in DATASETS}, seen)
            return replace(self._rows[1], seen=seen)

    def plots(self, name: str) -> list[tuple[str, Markup]]:
        seen = self.look(name)
        key = (self._stamp, [(trial.trial_id, trial.attempt) for trial in seen.running])
        if self._plots is None or self._plots[0] != key:
            rows = self.rows(name)
            self._plots = key, live_plots(rows.store, rows.tables, rows.seen)
        return self._plots[1]

    def models(self, name: str) -> tuple[Use, ...]:
        if self.look(name).state not in OVER:
            return ()
        if self._models is None or self._models[0] != self._stamp:
            self._models = self._stamp, uses(models_of(Store.open(self.root)))
        return self._models[1]

    def changed(self) -> object:
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
