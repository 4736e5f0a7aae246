"""The results of one sweep: its rows and its files (see `layout`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import ResultsError
from raymae.results.store import opening
from raymae.results.store.columns import REPORT_KEY, TRIAL_KEY, Row
from raymae.results.store.folder import Folder
from raymae.results.store.layout import ENVIRONMENT, REPORTS, SCORES, STATE, SWEEP, TRIALS, VERDICT, config
from raymae.results.store.manifest import Manifest
from raymae.results.store.outbox import Outbox
from raymae.results.store.parts import Parts
from raymae.results.store.scores import read_scores
from raymae.spec import Objective, SweepSpec, TaskSchema
from raymae.spec.read import Tree

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


class Store:
    """One sweep's results. `create` to write, `open` to read, also while the sweep runs.

    Attributes:
        root: The sweep's folder as given: a path or a URI.
        manifest: The contents of `sweep.json`: spec, data, task, columns.
    """

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.root, self.manifest, self._folder = folder.root, manifest, folder
        self._parts = {name: Parts(folder, name, manifest.columns[name], key)
                       for name, key in ((TRIALS, TRIAL_KEY), (REPORTS, REPORT_KEY))}
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
        cls, root: str | os.PathLike[str], spec: SweepSpec, schema: TaskSchema, *,
        environment: Mapping[str, object], data: Mapping[str, str], fresh: bool = False, extend: bool = False,
        flush_s: float = 10.0, together_s: float = 0.0, on_warning: Callable[[str], None] | None = None,
    ) -> Store:
        """Make a sweep's folder, or continue the one that is there if it holds the same sweep.

        Args:
            root: The sweep's own folder (see `root_of`).
            spec: The resolved sweep.
            schema: Its task; pins the columns.
            environment: Versions, git commit, device: plain values.
            data: `name`, `source` (`real` or `synthetic`) and `fingerprint` of the data that was found; and
                `pretrains_on`, what pretraining sees of it and of other data, where there is a need to say.
            extend: The spec may ask for more trials per arm or more replicates than the one that is there.
            fresh: Move an existing folder to `<name>.old-<n>` and start over. Local folders only.
            flush_s: Reports are written at most this often; 0 writes each at once.
            together_s: Trials that end so soon after others were written wait for those that end by then.
            on_warning: Called with a message when the storage fails and will be tried again.

        Raises:
            ResultsError: Another sweep lives there, or the folder cannot be written.
        """
        folder, manifest = Folder(root), opening.described(spec, schema, data)
        try:
            manifest, continued = opening.begin(folder, manifest, environment, fresh=fresh, extend=extend)
            store = cls(folder, manifest)
            store._outbox = Outbox(folder, store._parts[TRIALS], store._parts[REPORTS], flush_s=flush_s,
                                   warn=on_warning or logging.getLogger(__name__).warning, together_s=together_s)
            for parts in store._parts.values() if continued else ():
                parts.finish_compaction()
            return store
        except OSError as error:
            raise opening.cannot_write(folder, error) from None

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Store:
        """Open an existing sweep's folder for reading.

        Raises:
            ResultsError: It is not one; names sweeps nearby.
        """
        folder = Folder(root)
        return cls(folder, opening.read_manifest(folder))

    def add_report(self, row: Row) -> None:
        """Keep one report, written with the next part; it is checked and filled in as `add_trial` does it."""
        self._writing().add_report({**self.manifest.shared(REPORTS), **row})

    def add_trial(self, row: Row) -> None:
        """Write one ended trial, after the reports that led to it: at once, or as `together_s` has it.

        Args:
            row: Column name to value; parameters the arm does not have are left out. `sweep`, `task`, `size` and
                `data_*` are filled in.

        Raises:
            ResultsError: The row does not fit the columns, or the store was opened for reading.
        """
        self._writing().add_trial({**self.manifest.shared(TRIALS), **row})

    def write_config(self, trial_id: str, plain: Mapping[str, object]) -> None:
        """Keep the config of a trial that is about to start, so that a killed sweep can continue it.

        Raises:
            ResultsError: Its name cannot be a file's, or the config holds more than plain, finite values.
        """
        self._writing().put(config(trial_id), plain)

    def keep_found(self, manifest: Manifest) -> None:
        """Write down what was found out before the first trial, or a cell's, once and for all runs of the sweep.

        Raises:
            ResultsError: It could not be written.
        """
        self._writing()
        self.manifest = opening.written(self._folder, manifest)

    def write_verdict(self, verdict: Mapping[str, object]) -> None:
        """Keep the answer. It must hold plain values and no NaN."""
        self._writing().put(VERDICT, verdict)

    def write_state(self, state: Mapping[str, object]) -> bool:
        """Keep the driver's sign of life; returns whether the storage took it: the next one comes in seconds."""
        return self._writing().put_once(STATE, state)

    def flush(self) -> bool:
        """Write everything that waits; what the storage refuses waits on, and False says so."""
        return self._writing().flush()

    def compact(self) -> None:
        """Write everything that waits and merge each dataset's parts into one; call when the sweep ends.

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

    def __exit__(self, *error: object) -> None:
        self.close()

    def _writing(self) -> Outbox:
        if self._outbox is None:
            raise ResultsError(f"{self.root}: opened for reading; use Store.create to write")
        return self._outbox

    def trials(self) -> pd.DataFrame:
        """One row per ended trial, in the order in which they ended; whole numbers are nullable integers."""
        return to_pandas(self.table("trials"))

    def reports(self) -> pd.DataFrame:
        """One row per report, in the order in which they came."""
        return to_pandas(self._parts[REPORTS].table())

    def table(self, name: Literal["trials", "reports", "scores"]) -> Any:
        """A dataset as a `pyarrow.Table`."""
        if name == TRIALS and self._outbox is not None:
            self._outbox.settle()
        return read_scores(self._folder) if name == SCORES else self._parts[name].table()

    def scores(self, trials: Collection[str] | None = None) -> pd.DataFrame:
        """Test scores example by example (see `raymae.results.store.scores`), of some replicates or of all."""
        return read_scores(self._folder, trials).to_pandas()

    def spec(self) -> SweepSpec:
        """The sweep as it was asked for. Needs no task, hence no torch.

        Raises:
            ResultsError: `sweep.json` holds no such sweep; names the key.
        """
        return self.manifest.sweep(self._folder.uri(SWEEP))

    def objective(self) -> Objective:
        """What the sweep selects on."""
        return self.manifest.task.objective

    def environment(self) -> Tree:
        """Versions, commit and device of the last start; those of earlier starts under `earlier`."""
        return opening.read_json(self._folder, ENVIRONMENT) or {}

    def verdict(self) -> Tree | None:
        """The answer as it was written at the end of the sweep, or None."""
        return opening.read_json(self._folder, VERDICT)

    def state(self) -> Tree | None:
        """The driver's last sign of life (see `raymae.search.live.state_file`), or None."""
        return opening.read_json(self._folder, STATE)

    def follow(self, name: Literal["trials", "reports"], seen: Collection[str], table: Any) -> tuple[Any, Any]:
        """A dataset for somebody who looks again and again; see `Parts.table_after`."""
        return self._parts[name].table_after(seen, table)

    def configs(self) -> dict[str, Tree]:
        """The config of every trial that was started, by trial_id."""
        return opening.read_configs(self._folder)

    def trial_ids(self) -> list[str]:
        """The ids of all trials that were started, or wait to be; raises ResultsError where they cannot be listed."""
        return opening.config_ids(self._folder)

    def uri(self, name: str) -> str:
        """A file of the folder as a user would write it."""
        return self._folder.uri(name)


def to_pandas(table: Any) -> pd.DataFrame:
    """A `pyarrow.Table` as a frame in which missing whole numbers and booleans do not turn into floats."""
    import pandas as pd
    import pyarrow as pa

    kinds = {pa.int64(): pd.Int64Dtype(), pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=kinds.get)
    return frame
