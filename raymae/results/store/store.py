"""The results of one sweep: its rows, its files (see `layout`), and who may continue it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import ResultsError
from raymae.results.store.columns import REPORT_KEY, TRIAL_KEY
from raymae.results.store.folder import Folder, json_bytes
from raymae.results.store.layout import (
    CHECKPOINTS,
    CONFIGS,
    ENVIRONMENT,
    LOGS,
    REPORTS,
    STATE,
    SWEEP,
    TRIALS,
    VERDICT,
    config,
)
from raymae.results.store.manifest import (
    Manifest,
    check_same_sweep,
    described,
    move_aside,
    not_a_sweep,
    with_earlier,
)
from raymae.results.store.outbox import Outbox
from raymae.results.store.parts import Parts
from raymae.spec import SweepSpec, TaskSchema
from raymae.spec.task import Objective

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

_TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Store:
    """One sweep's results. `create` to write, `open` to read, also while the sweep runs.

    Attributes:
        root: The sweep's folder as given: a path or a URI.
        manifest: The contents of `sweep.json`: spec, data, task, columns.
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.root, self.manifest = folder.root, manifest
        self._folder = folder
        self._trials = Parts(folder, TRIALS, manifest.columns[TRIALS], TRIAL_KEY)
        self._reports = Parts(folder, REPORTS, manifest.columns[REPORTS], REPORT_KEY)
        self._outbox: Outbox | None = None

    @property
    def location(self) -> str:
        """The folder as another process finds it: an absolute path or a URI."""
        return self.root if self._folder.local is None else str(self._folder.local)

    @staticmethod
    def root_of(spec: SweepSpec) -> str:
        """The folder that a sweep file names: `<results>/<name>`, as a path or a URI."""
        return Folder(spec.results).uri(spec.name) if "://" in spec.results else os.path.join(spec.results, spec.name)

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
        folder = Folder(root)
        try:
            if fresh:
                move_aside(folder)
            manifest = described(spec, schema, data)
            old = folder.read_json(SWEEP)
            if old is not None:
                check_same_sweep(folder, old, manifest.to_json(), extend=extend)
                manifest = replace(manifest, created_at=old["created_at"])
            for name in ("", TRIALS, REPORTS, CONFIGS, CHECKPOINTS, LOGS):
                folder.make(name)
            folder.write(SWEEP, json_bytes(manifest.to_json()))
            folder.write(ENVIRONMENT, json_bytes(with_earlier(environment, folder.read_json(ENVIRONMENT))))
            store = cls(folder, manifest)
            store._outbox = Outbox(folder, store._trials, store._reports, flush_s=flush_s,
                                   warn=on_warning or logging.getLogger(__name__).warning)
            if old is not None:
                store._trials.finish_compaction()
                store._reports.finish_compaction()
            return store
        except OSError as error:
            reason = "a file is in the way" if isinstance(error, (FileExistsError, NotADirectoryError)) else str(error)
            raise ResultsError(
                f"{folder.root}: cannot write results here: {reason}. Set `results` to a folder you can write"
            ) from None

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Store:
        """Open an existing sweep's folder for reading.

        Raises:
            ResultsError: It is not one; names sweeps nearby.
        """
        folder = Folder(root)
        try:
            plain = folder.read_json(SWEEP)
            if plain is None:
                raise ResultsError(not_a_sweep(folder))
        except OSError as error:
            raise ResultsError(f"{folder.root}: cannot read {SWEEP}: {error}") from None
        try:
            return cls(folder, Manifest.from_json(plain))
        except (KeyError, TypeError, AttributeError) as error:
            raise ResultsError(f"{folder.uri(SWEEP)}: not written by raymae, or by another version: {error}") from None

    def add_report(self, row: Mapping[str, Any]) -> None:
        """Keep one report; written with the next part.

        Args:
            row: Column name to value. `sweep` and `data_source` are filled in.

        Raises:
            ResultsError: The row does not fit the columns, or the store was opened for reading.
        """
        manifest = self.manifest
        self._writing().add_report({"sweep": manifest.spec["name"], "data_source": manifest.data.source, **row})

    def add_trial(self, row: Mapping[str, Any]) -> None:
        """Write one ended trial at once, after the reports that led to it.

        Args:
            row: Column name to value; parameters the arm does not have are left out. `sweep`, `task`, `size` and
                `data_*` are filled in.

        Raises:
            ResultsError: The row does not fit the columns, or the store was opened for reading.
        """
        spec, data = self.manifest.spec, self.manifest.data
        self._writing().add_trial({
            "sweep": spec["name"], "task": spec["task"], "size": spec["size"], "data_name": data.name,
            "data_source": data.source, "data_fingerprint": data.fingerprint, **row,
        })

    def write_config(self, trial_id: str, plain: Mapping[str, Any]) -> None:
        """Keep the config of a trial that is about to start, so that a killed sweep can continue it."""
        if not _TRIAL_ID.fullmatch(trial_id):
            raise ResultsError(f"a trial_id is letters, digits, dot, dash and underscore, got {trial_id!r}")
        self._put(config(trial_id), plain)

    def write_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Keep the answer. It must hold plain values and no NaN."""
        self._put(VERDICT, verdict)

    def write_state(self, state: Mapping[str, Any]) -> bool:
        """Keep the driver's sign of life. One that the storage refuses is dropped: the next one comes in seconds.

        Returns:
            Whether it was written.
        """
        self._writing()
        try:
            self._folder.write(STATE, json_bytes(state))
        except OSError:
            return False
        return True

    def _put(self, name: str, value: Mapping[str, Any]) -> None:
        outbox = self._writing()
        try:
            data = json_bytes(value)
        except (TypeError, ValueError) as error:
            raise ResultsError(f"{self._folder.uri(name)}: only plain, finite values can be kept: {error}") from None
        outbox.put(name, data)

    @property
    def num_waiting(self) -> int:
        """Rows and files that are not yet on storage."""
        return 0 if self._outbox is None else self._outbox.num_waiting

    def flush(self) -> bool:
        """Write everything that waits.

        Returns:
            Whether all of it is on storage. If not, it still waits, the warning callback was told, and the next
            `add_…`, `flush` or `close` tries again.
        """
        return self._writing().flush()

    def compact(self) -> None:
        """Merge each dataset's parts into one; call when the sweep ends.

        Plain readers may see rows twice for the milliseconds between the merged part's appearance and the deletion of
        the last old part, never too few; readers through this class see every row once at any moment.

        Raises:
            ResultsError: The storage kept failing. Nothing is lost.
        """
        self._writing().compact()

    def close(self) -> None:
        """Write everything that waits, with several tries.

        Raises:
            ResultsError: It could not be written; says how much is lost.
        """
        if self._outbox is not None:
            self._outbox.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _writing(self) -> Outbox:
        if self._outbox is None:
            raise ResultsError(f"{self.root}: opened for reading; use Store.create to write")
        return self._outbox

    def trials(self) -> pd.DataFrame:
        """One row per ended trial, in the order in which they ended; whole numbers are nullable integers."""
        return to_pandas(self._trials.table())

    def reports(self) -> pd.DataFrame:
        """One row per report, in the order in which they came."""
        return to_pandas(self._reports.table())

    def table(self, name: Literal["trials", "reports"]) -> Any:
        """A dataset as a `pyarrow.Table`."""
        return (self._trials if name == "trials" else self._reports).table()

    def spec(self) -> SweepSpec:
        """The sweep as it was asked for. Needs no task, hence no torch."""
        return SweepSpec.model_validate(self.manifest.spec)

    def objective(self) -> Objective:
        """What the sweep selects on."""
        return self.manifest.task.objective

    def environment(self) -> dict[str, Any]:
        """Versions, commit and device of the last start; those of earlier starts under `earlier`."""
        return self._read(ENVIRONMENT) or {}

    def verdict(self) -> dict[str, Any] | None:
        """The answer as it was written at the end of the sweep, or None."""
        return self._read(VERDICT)

    def state(self) -> dict[str, Any] | None:
        """The driver's last sign of life (see `raymae.search.live.state_file`), or None."""
        return self._read(STATE)

    def follow(self, name: Literal["trials", "reports"], seen: Collection[str], table: Any) -> tuple[Any, Any]:
        """A dataset for somebody who looks again and again; see `Parts.table_after`."""
        return (self._trials if name == "trials" else self._reports).table_after(seen, table)

    def configs(self) -> dict[str, dict[str, Any]]:
        """The config of every trial that was started, by trial_id."""
        try:
            names = [name for name in self._folder.names(CONFIGS) if name.endswith(".json") and name[0] != "."]
        except OSError as error:
            raise ResultsError(f"{self._folder.uri(CONFIGS)}: cannot list: {error}") from None
        with ThreadPoolExecutor(8) as pool:
            found = pool.map(self._read, [f"{CONFIGS}/{name}" for name in names])
            return {name.removesuffix(".json"): config for name, config in zip(names, found, strict=True)
                    if config is not None}

    def path(self, name: str) -> str:
        """Where a file of the folder lies: a path, or a URI.

        Args:
            name: As `layout` names it.
        """
        return self._folder.uri(name)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return self._folder.read_json(name)
        except OSError as error:
            raise ResultsError(f"{self._folder.uri(name)}: cannot read: {error}") from None


def to_pandas(table: Any) -> pd.DataFrame:
    """A `pyarrow.Table` as a frame in which missing whole numbers and booleans do not turn into floats."""
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=kinds.get)
    return frame
