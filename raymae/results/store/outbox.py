"""Rows and files on their way to storage: what it refuses now waits in memory, and is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from raymae.errors import ResultsError
from raymae.results.store.columns import Row
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.parts import Parts


class Outbox:
    """Writes a sweep's rows and files in an order that a reader can trust; several threads may use it.

    Args:
        folder: The sweep's folder.
        trials: Its dataset of trials.
        reports: Its dataset of reports.
        flush_s: Reports wait at most this long for the next one to write them.
        together_s: Trials that end so soon after the last part wait for others that end by then, and go into one.
        warn: Called with a message when the storage fails and will be tried again.
    """

    backoff_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Pauses between the tries of `close` and `compact`."""

    def __init__(
        self, folder: Folder, trials: Parts, reports: Parts, *, flush_s: float, warn: Callable[[str], None],
        together_s: float = 0.0,
    ) -> None:
        self._folder, self._trials, self._reports = folder, trials, reports
        self._flush_s, self._together_s, self._warn = flush_s, together_s, warn
        self._later: threading.Timer | None = None
        self._files: dict[str, bytes] = {}
        self._flushed_at = time.monotonic()
        self._lock = threading.RLock()

    @property
    def num_waiting(self) -> int:
        """Rows and files that are not yet on storage."""
        return self._trials.num_waiting + self._reports.num_waiting + len(self._files)

    def add_report(self, row: Row) -> None:
        """Keep a report; written with the next part."""
        with self._lock:
            self._reports.add(row)
            stuck = self._reports.is_stuck or self._trials.is_stuck or self._files
            if stuck or time.monotonic() - self._flushed_at >= self._flush_s:
                self.flush()

    def add_trial(self, row: Row) -> None:
        """Write an ended trial, after the reports that led to it: at once, or with those that end together with it."""
        with self._lock:
            self._trials.add(row)
            wait_s = self._flushed_at + self._together_s - time.monotonic()
            if wait_s <= 0:
                self.flush()
            elif self._later is None:
                self._later = threading.Timer(wait_s, self.settle)
                self._later.daemon = True
                self._later.start()

    def settle(self) -> None:
        """Write the ended trials that wait for others, if any do."""
        with self._lock:
            if self._later is not None:
                self._later.cancel()
                self._later = None
                self.flush()

    def put(self, name: str, value: Mapping[str, object]) -> None:
        """Write a JSON file.

        Raises:
            ResultsError: Something in it is not a plain, finite value.
        """
        try:
            data = json_bytes(value)
        except (TypeError, ValueError) as error:
            raise ResultsError(f"{self._folder.uri(name)}: only plain, finite values can be kept: {error}") from None
        with self._lock:
            self._files[name] = data
            self._try(self._flush_files)

    def put_once(self, name: str, value: Mapping[str, object]) -> bool:
        """Write a JSON file that another one follows in seconds; returns whether the storage took it."""
        try:
            self._folder.write(name, json_bytes(value))
        except OSError:
            return False
        return True

    def flush(self) -> bool:
        """Write everything that waits; returns whether all of it is on storage."""
        with self._lock:
            return self._try(self._flush)

    def compact(self) -> None:
        """Merge each dataset's parts into one.

        Raises:
            ResultsError: The storage kept failing. Nothing is lost.
        """
        def compact() -> None:
            self._flush()
            self._trials.compact()
            self._reports.compact()

        self._insist(compact)

    def close(self) -> None:
        """Write everything that waits, with several tries.

        Raises:
            ResultsError: It could not be written; says how much is lost.
        """
        self._insist(self._flush)

    def _flush(self) -> None:
        self._flush_files()
        # a trial's row says that its reports are complete, so it comes after them
        self._reports.flush()
        self._flushed_at = time.monotonic()
        self._trials.flush()

    def _flush_files(self) -> None:
        for name in list(self._files):
            self._folder.write(name, self._files[name])
            del self._files[name]

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except OSError as error:
            self._warn(f"{self._folder.root}: cannot write results now, {self.num_waiting} rows and files wait: "
                       f"{error}")
            return False
        return True

    def _insist(self, action: Callable[[], None]) -> None:
        with self._lock:
            for pause in (*self.backoff_s, None):
                try:
                    return action()
                except OSError as error:
                    if pause is None:
                        raise ResultsError(
                            f"{self._folder.root}: cannot write results after {len(self.backoff_s) + 1} tries, "
                            f"{self.num_waiting} rows and files are not on storage: {error}. "
                            "Make the storage reachable and run the sweep again: it redoes only what is missing"
                        ) from None
                    self._warn(f"{self._folder.root}: cannot write results, next try in {pause} s: {error}")
                    time.sleep(pause)
