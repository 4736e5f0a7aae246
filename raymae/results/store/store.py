"""The folder of one sweep: its files, its rows, and who may continue it.

    sweep.json                what was asked for: the resolved spec, the data, the task's arms and columns
    environment.json          versions, commit and device of the last start, earlier ones under `earlier`
    trials/part-*.parquet     one row per ended trial
    reports/part-*.parquet    one row per report
    configs/<trial_id>.json   the config of every trial that was started
    checkpoints/<trial_id>/   written by the training loop
    logs/
    state.json                what the driver was doing when it last gave a sign of life
    verdict.json              the answer
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import ResultsError
from raymae.results.store.columns import REPORT_KEY, TRIAL_KEY
from raymae.results.store.folder import Place, json_bytes
from raymae.results.store.manifest import SWEEP, check_same_sweep, described, move_aside, not_a_sweep, with_earlier
from raymae.results.store.parts import Parts
from raymae.spec import SweepSpec, TaskSchema
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

_ENVIRONMENT, _VERDICT, _STATE = "environment.json", "verdict.json", "state.json"
_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Store:
    """One sweep's results. `create` to write, `open` to read, also while the sweep runs.

    Attributes:
        root: The sweep's folder as given: a path or a URI.
        flush_s: Reports wait at most this long for the next `add_report` to write them.
    """

    backoff_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """Pauses between the tries of `close` and `compact`."""

    def __init__(
        self, place: Place, meta: Mapping[str, Any], *, writable: bool, flush_s: float = 10.0,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.root = place.root
        self.flush_s = flush_s
        self._place = place
        self._meta = dict(meta)
        self._writable = writable
        self._warn = on_warning or logging.getLogger(__name__).warning
        self._trials = Parts(place, "trials", meta["columns"]["trials"], TRIAL_KEY)
        self._reports = Parts(place, "reports", meta["columns"]["reports"], REPORT_KEY)
        self._files: dict[str, bytes] = {}
        self._flushed_at = time.monotonic()
        self._lock = threading.RLock()

    @property
    def location(self) -> str:
        """The folder as another process finds it: an absolute path or a URI."""
        return self.root if self._place.local is None else str(self._place.local)

    @staticmethod
    def root_of(spec: SweepSpec) -> str:
        """The folder that a sweep file names: `<results>/<name>`, as a path or a URI."""
        return Place(spec.results).uri(spec.name) if "://" in spec.results else os.path.join(spec.results, spec.name)

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        spec: SweepSpec,
        schema: TaskSchema,
        *,
        environment: Mapping[str, Any],
        data: Mapping[str, Any],
        fresh: bool = False,
        extend: bool = False,
        flush_s: float = 10.0,
        on_warning: Callable[[str], None] | None = None,
    ) -> Store:
        """Make a sweep's folder, or continue the one that is there if it holds the same sweep.

        `results`, `resources` and `budget` may differ: they say where and for how long a machine works, not what is
        computed, and continuing on another machine or with more time is what continuing is for. The latest values
        are kept.

        Args:
            root: The sweep's own folder (see `root_of`).
            spec: The resolved sweep.
            schema: Its task; pins the columns.
            environment: Versions, git commit, device: plain values.
            data: `name`, `source` (`real` or `synthetic`) and `fingerprint` of the data that was found.
            extend: The spec may ask for more trials per arm or more replicates than the one that is there.
            fresh: Move an existing folder to `<name>.old-<n>` and start over. Local folders only.
            flush_s: Reports are written at most this often; 0 writes each at once.
            on_warning: Called with a message when the storage fails and will be tried again.

        Raises:
            ResultsError: Another sweep lives there, or the folder cannot be written.
        """
        place = Place(root)
        try:
            if fresh:
                move_aside(place)
            meta = described(spec, schema, data)
            old = place.read_json(SWEEP)
            if old is not None:
                check_same_sweep(place, old, meta, extend=extend)
                meta["created_at"] = old["created_at"]
            for folder in ("", "trials", "reports", "configs", "checkpoints", "logs"):
                place.make(folder)
            place.write(SWEEP, json_bytes(meta))
            place.write(_ENVIRONMENT, json_bytes(with_earlier(environment, place.read_json(_ENVIRONMENT))))
            store = cls(place, meta, writable=True, flush_s=flush_s, on_warning=on_warning)
            if old is not None:
                store._trials.finish_compaction()
                store._reports.finish_compaction()
            return store
        except OSError as error:
            reason = "a file is in the way" if isinstance(error, (FileExistsError, NotADirectoryError)) else str(error)
            raise ResultsError(
                f"{place.root}: cannot write results here: {reason}. Set `results` to a folder you can write"
            ) from None

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Store:
        """Open an existing sweep's folder for reading.

        Raises:
            ResultsError: It is not one; names sweeps nearby.
        """
        place = Place(root)
        try:
            meta = place.read_json(SWEEP)
            if meta is None:
                raise ResultsError(not_a_sweep(place))
        except OSError as error:
            raise ResultsError(f"{place.root}: cannot read {SWEEP}: {error}") from None
        try:
            return cls(place, meta, writable=False)
        except (KeyError, TypeError) as error:
            raise ResultsError(f"{place.uri(SWEEP)}: not written by raymae, or by another version: {error}") from None

    def add_report(self, row: Mapping[str, Any]) -> None:
        """Keep one report; written with the next part.

        Args:
            row: Column name to value. `sweep` and `data_source` are filled in.

        Raises:
            ResultsError: The row does not fit the columns, or the store was opened for reading.
        """
        with self._writing():
            self._reports.add({"sweep": self._meta["spec"]["name"], "data_source": self._meta["data"]["source"], **row})
            stuck = self._reports.is_stuck or self._trials.is_stuck or self._files
            if stuck or time.monotonic() - self._flushed_at >= self.flush_s:
                self.flush()

    def add_trial(self, row: Mapping[str, Any]) -> None:
        """Write one ended trial at once, after the reports that led to it.

        Args:
            row: Column name to value; parameters the arm does not have are left out. `sweep`, `task`, `size` and
                `data_*` are filled in.

        Raises:
            ResultsError: The row does not fit the columns, or the store was opened for reading.
        """
        with self._writing():
            spec, data = self._meta["spec"], self._meta["data"]
            self._trials.add({
                "sweep": spec["name"], "task": spec["task"], "size": spec["size"], "data_name": data["name"],
                "data_source": data["source"], "data_fingerprint": data["fingerprint"], **row,
            })
            self.flush()

    def write_config(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """Keep the config of a trial that is about to start, so that a killed sweep can continue it."""
        if not _TRIAL_ID.fullmatch(trial_id):
            raise ResultsError(f"a trial_id is letters, digits, dot, dash and underscore, got {trial_id!r}")
        self._put(f"configs/{trial_id}.json", config)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Keep the answer. It must hold plain values and no NaN."""
        self._put(_VERDICT, verdict)

    def write_state(self, state: Mapping[str, Any]) -> bool:
        """Keep the driver's sign of life. One that the storage refuses is dropped: the next one comes in seconds.

        Returns:
            Whether it was written.
        """
        self._writing()
        try:
            self._place.write(_STATE, json_bytes(state))
        except OSError:
            return False
        return True

    def _put(self, name: str, value: Mapping[str, Any]) -> None:
        with self._writing():
            try:
                self._files[name] = json_bytes(value)
            except (TypeError, ValueError) as error:
                raise ResultsError(f"{self._place.uri(name)}: only plain, finite values can be kept: {error}") from None
            self._try(self._flush_files)

    @property
    def num_waiting(self) -> int:
        """Rows and files that are not yet on storage."""
        return self._trials.num_waiting + self._reports.num_waiting + len(self._files)

    def flush(self) -> bool:
        """Write everything that waits.

        Returns:
            Whether all of it is on storage. If not, it still waits, the warning callback was told, and the next
            `add_…`, `flush` or `close` tries again.
        """
        with self._writing():
            return self._try(self._flush)

    def compact(self) -> None:
        """Merge each dataset's parts into one; call when the sweep ends.

        Plain readers may see rows twice for the milliseconds between the merged part's appearance and the deletion of
        the last old part, never too few; readers through this class see every row once at any moment.

        Raises:
            ResultsError: The storage kept failing. Nothing is lost.
        """
        with self._writing():
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
        if self._writable:
            self._insist(self._flush)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _writing(self) -> threading.RLock:
        if not self._writable:
            raise ResultsError(f"{self.root}: opened for reading; use Store.create to write")
        return self._lock

    def _flush(self) -> None:
        self._flush_files()
        # a trial's row says that its reports are complete, so it comes after them
        self._reports.flush()
        self._flushed_at = time.monotonic()
        self._trials.flush()

    def _flush_files(self) -> None:
        for name in list(self._files):
            self._place.write(name, self._files[name])
            del self._files[name]

    def _try(self, action: Callable[[], None]) -> bool:
        try:
            action()
        except OSError as error:
            self._warn(f"{self.root}: cannot write results now, {self.num_waiting} rows and files wait: {error}")
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
                            f"{self.root}: cannot write results after {len(self.backoff_s) + 1} tries, "
                            f"{self.num_waiting} rows and files are not on storage: {error}. "
                            "Make the storage reachable and run the sweep again: it redoes only what is missing"
                        ) from None
                    self._warn(f"{self.root}: cannot write results, next try in {pause} s: {error}")
                    time.sleep(pause)

    def trials(self) -> pd.DataFrame:
        """One row per ended trial, in the order in which they ended; whole numbers are nullable integers."""
        return to_pandas(self._trials.table())

    def reports(self) -> pd.DataFrame:
        """One row per report, in the order in which they came."""
        return to_pandas(self._reports.table())

    def table(self, name: Literal["trials", "reports"]) -> Any:
        """A dataset as a `pyarrow.Table`."""
        return (self._trials if name == "trials" else self._reports).table()

    def meta(self) -> dict[str, Any]:
        """The contents of `sweep.json`: spec, data, task, columns, raymae_version, created_at."""
        return dict(self._meta)

    def spec(self) -> SweepSpec:
        """The sweep as it was asked for. Needs no task, hence no torch."""
        return SweepSpec.model_validate(self._meta["spec"])

    def objective(self) -> Objective:
        """What the sweep selects on."""
        return Objective(**self._meta["task"]["objective"])

    def environment(self) -> dict[str, Any]:
        """Versions, commit and device of the last start; those of earlier starts under `earlier`."""
        return self._read(_ENVIRONMENT) or {}

    def verdict(self) -> dict[str, Any] | None:
        """The answer as it was written at the end of the sweep, or None."""
        return self._read(_VERDICT)

    def state(self) -> dict[str, Any] | None:
        """The driver's last sign of life (see `raymae.search.live.state_file`), or None."""
        return self._read(_STATE)

    def follow(self, name: Literal["trials", "reports"], seen: Collection[str], table: Any) -> tuple[Any, Any]:
        """A dataset for somebody who looks again and again; see `Parts.table_after`."""
        return (self._trials if name == "trials" else self._reports).table_after(seen, table)

    def configs(self) -> dict[str, dict[str, Any]]:
        """The config of every trial that was started, by trial_id."""
        try:
            names = [name for name in self._place.names("configs") if name.endswith(".json") and name[0] != "."]
        except OSError as error:
            raise ResultsError(f"{self._place.uri('configs')}: cannot list: {error}") from None
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(self._read, [f"configs/{name}" for name in names])
            return {name.removesuffix(".json"): config for name, config in zip(names, found, strict=True)
                    if config is not None}

    def checkpoint_path(self, trial_id: str) -> str:
        """Where a trial's checkpoints go: a path, or a URI with the root's query."""
        return self._place.uri(f"checkpoints/{trial_id}")

    def log_path(self, name: str = "") -> str:
        """Where a log file, or with no name the folder of logs, lies."""
        return self._place.uri(f"logs/{name}".rstrip("/"))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return self._place.read_json(name)
        except OSError as error:
            raise ResultsError(f"{self._place.uri(name)}: cannot read: {error}") from None


def to_pandas(table: Any) -> pd.DataFrame:
    """A `pyarrow.Table` as a frame in which missing whole numbers and booleans do not turn into floats."""
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=kinds.get)
    return frame
