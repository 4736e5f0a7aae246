"""TensorBoard's event files: one folder per trial with scalars, hyperparameters and pictures.

A sweep on a local folder writes them as it goes, below `tensorboard/` in its results; `raymae export` writes those of
any sweep. Tags: `<phase>/loss`, `<phase>/lr`, `val/<metric>`, `test/<metric>` over the number of the report; under
HPARAMS the trial's parameters beside its best validation score and its test score.
"""

from __future__ import annotations

import io
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from time import time as now
from time import time_ns
from typing import Any

from raymae.errors import ResultsError
from raymae.results.store.columns import Row, is_metric, last_attempts
from raymae.results.store.folder import Folder
from raymae.results.store.layout import PICTURES, TENSORBOARD, TRIALS, picture_name
from raymae.results.store.store import Store
from raymae.spec.arms import fixed_in
from raymae.spec.sweep import SweepSpec
from raymae.spec.trial import VALIDATED

FLUSH_S = 10.0


def _imported() -> None:
    """Import tensorboardX, and not boto3 with it: that takes longer, for event files on S3, which nobody writes."""
    if "tensorboardX" in sys.modules:
        return
    ours = "boto3" not in sys.modules
    if ours:
        sys.modules["boto3"] = None  # type: ignore[assignment]  # what stands for "there is none"
    try:
        import tensorboardX.record_writer  # noqa: F401
    finally:
        if ours:
            del sys.modules["boto3"]


class Events:
    """Writes event files below a folder.

    Args:
        folder: Where; made as needed.
        metrics: The metrics that HPARAMS shows, such as `val_mse` and `test_mse`.
        columns: The columns of `trials` with their types.
        shown: The parameters that HPARAMS shows, before `arm`, `stage` and `seed`; see `varied`.
    """

    def __init__(
        self, folder: Path, metrics: tuple[str, ...], columns: Mapping[str, str], shown: Sequence[str]
    ) -> None:
        self._folder, self._metrics, self._columns = folder, metrics, columns
        self._shown = [name for name in shown if name in columns]
        self._described = False
        self._writers: dict[str, Any] = {}
        self._flushed = 0.0

    def report(self, row: Row) -> None:
        """Add one report.

        Args:
            row: As `Store.add_report` takes it.
        """
        time = row.get("time")
        self._write(row["trial_id"], _summary(scalars(row)), row["step"],
                    time.timestamp() if isinstance(time, datetime) else None)
        if now() - self._flushed >= FLUSH_S:  # every flush waits for the disk
            self._flushed = now()
            for writer in self._writers.values():
                writer.flush()

    def trial(self, row: Row, pictures: Mapping[str, bytes] | None = None) -> None:
        """Add how a trial ended, and close its file.

        Args:
            row: As `Store.add_trial` takes it.
            pictures: PNGs by name.
        """
        _imported()
        from tensorboardX.summary import Summary, hparams

        values: dict[str, object] = {name: _plain(row[name]) for name in self._shown if not _missing(row.get(name))}
        values |= {"arm": row["arm"], "stage": row["stage"], "seed": int(row["seed"])}
        scores = {name: float(row[name]) for name in self._metrics if _is_finite(row.get(name))}
        for summary in hparams(values, dict.fromkeys(self._metrics, 0.0))[1:]:  # the first is the experiment's
            self._write(row["trial_id"], summary, 0)
        self._write(row["trial_id"], _summary(scores), 0)  # HPARAMS shows the scalars that are named like its metrics
        for name, png in (pictures or {}).items():
            image = Summary.Image(encoded_image_string=png, colorspace=3, **_size(png))
            self._write(row["trial_id"], Summary(value=[Summary.Value(tag=f"{PICTURES}/{name}", image=image)]), 0)
        self._writers.pop(row["trial_id"]).close()

    def close(self) -> None:
        """Close what is open."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _describe(self) -> None:
        """Say once what all trials have: TensorBoard takes the columns of HPARAMS from the first description it finds,
        and a trial's own would lack the parameters of other arms."""
        from tensorboardX.summary import hparams

        kinds: dict[str, object] = {"bool": True, "string": ""}
        shown = {name: kinds.get(self._columns[name], 0.0) for name in self._shown}
        shown |= {"arm": "", "stage": "", "seed": 0.0}
        self._described = True
        self._write("", hparams(shown, dict.fromkeys(self._metrics, 0.0))[0], 0)
        self._writers.pop("").close()

    def _write(self, trial_id: str, summary: Any, step: int, time: float | None = None) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import RecordWriter

        if not self._described:
            self._describe()
        if trial_id not in self._writers:
            folder = self._folder / trial_id
            folder.mkdir(parents=True, exist_ok=True)
            # not tensorboardX's writers: one costs a thread per trial, the other waits for the disk when it is closed.
            # What ends the name keeps another attempt within the same second from writing over this one
            name = f"events.out.tfevents.{int(now())}.{socket.gethostname()}.{time_ns()}.{os.getpid()}"
            writer = self._writers[trial_id] = RecordWriter(str(folder / name))
            writer.write(Event(wall_time=now(), file_version="brain.Event:2").SerializeToString())
        event = Event(summary=summary, step=step, wall_time=now() if time is None else time)
        self._writers[trial_id].write(event.SerializeToString())


def varied(spec: SweepSpec) -> list[str]:
    """The parameters that differ between trials: the searched ones, then those that arms fix for themselves."""
    fixed = (name for arm in spec.arms for name in fixed_in(spec, arm))
    return list(dict.fromkeys([*spec.space, *fixed, *(["epochs"] if spec.fair.by != "epochs" else [])]))


def _summary(values: Mapping[str, float]) -> Any:
    _imported()
    from tensorboardX.summary import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def scalars(row: Row) -> dict[str, float]:
    """A report's numbers by tag; what is missing or not finite is left out."""
    found = {}
    for name, value in row.items():
        if is_metric(name) and _is_finite(value):
            split, _, metric = name.partition("_")
            found[f"{split}/{metric}"] = float(value)
        elif name.startswith("pretext_") and row["phase"] == "pretrain" and _is_finite(value):
            found[f"pretrain/{name}"] = float(value)
        elif name in ("loss", "lr") and _is_finite(value):
            found[f"{row['phase']}/{name}"] = float(value)
    return found


def pictures_of(folder: Folder, row: Row, names: list[str]) -> dict[str, bytes]:
    """A trial's pictures by name; only replicates and pretrainings have any.

    Args:
        folder: The sweep's folder.
        row: The trial's row.
        names: Files in the sweep's folder of pictures.
    """
    if row["stage"] in VALIDATED:
        return {}
    found = {name: picture_name(name, row["trial_id"]) for name in names}
    return {picture: folder.read(f"{PICTURES}/{name}") for name, picture in found.items() if picture}


def export(store: Store, folder: Path) -> int:
    """Write the event files of a whole sweep.

    Args:
        store: The sweep.
        folder: A folder that is not there yet, or is empty.

    Returns:
        How many trials there are.

    Raises:
        ResultsError: The folder holds something, or cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ResultsError(f"{folder}: holds something already; name a folder that is new or empty")
        results, objective = Folder(store.root), store.objective()
        names = results.names(PICTURES)
        events = Events(folder, (objective.val, objective.test), store.manifest.columns[TRIALS],
                        varied(store.spec()))
        reports = store.reports()
        reports = reports.drop_duplicates(["trial_id", "step"], keep="last")
        ended = {row["trial_id"]: row for row in plain_rows(last_attempts(store.trials()))}
        for trial_id, mine in reports.groupby("trial_id", sort=False):
            for row in plain_rows(mine.sort_values("step")):
                events.report(row)
            if trial_id in ended:
                end = ended.pop(trial_id)
                events.trial(end, pictures_of(results, end, names))
        for end in ended.values():  # failed before its first report
            events.trial(end)
        count = sum(path.is_dir() for path in folder.iterdir()) if folder.exists() else 0
        events.close()
        return count
    except OSError as error:
        raise ResultsError(f"{folder}: cannot write TensorBoard's files: {error}") from None


def plain_rows(frame: Any) -> list[Row]:
    """The rows of a frame, with None for what is missing."""
    return [{str(key): None if _missing(value) else value for key, value in row.items()}
            for row in frame.to_dict("records")]


def _missing(value: Any) -> bool:
    if value is None:
        return True
    import pandas as pd

    return bool(pd.isna(value))


def _is_finite(value: Any) -> bool:
    return not _missing(value) and isinstance(value, (int, float)) and math.isfinite(value)


def _plain(value: Any) -> bool | int | float | str:
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _size(png: bytes) -> dict[str, int]:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        return {"width": image.width, "height": image.height}


class LiveEvents:
    """Event files that a running sweep writes. Whatever goes wrong with them is said once, and does not hurt the sweep.

    Args:
        location: The sweep's folder; on an object store nothing is written, `raymae export` does that later.
        metric: What the sweep selects on, such as `val_mse`.
        columns: The columns of `trials` with their types.
        shown: The parameters that HPARAMS shows.
        warn: Told of a failure.
    """

    def __init__(
        self, location: str, metric: str, columns: Mapping[str, str], shown: Sequence[str],
        warn: Callable[[str], None],
    ) -> None:
        self._folder = Folder(location)
        self._warn = warn
        self._events: Events | None = None
        if self._folder.local is not None:
            metrics = (metric, metric.replace("val_", "test_", 1))
            self._events = Events(self._folder.local / TENSORBOARD, metrics, columns, shown)

    def warned(self, text: str) -> None:
        """Add nothing."""

    def reported(self, row: Row, message: object) -> None:
        """Add one report."""
        self._try(lambda events: events.report(row))

    def beat(self, progress: object) -> None:
        """Add nothing."""

    def ended(self, row: Row, progress: object) -> None:
        """Add how a trial ended."""
        def add(events: Events) -> None:
            events.trial(row, pictures_of(self._folder, row, self._folder.names(PICTURES)))

        self._try(add)

    def __enter__(self) -> LiveEvents:
        return self

    def __exit__(self, *error: object) -> None:
        self._try(lambda events: events.close())

    def _try(self, action: Callable[[Events], None]) -> None:
        if self._events is None:
            return
        try:
            action(self._events)
        except Exception as error:  # a full disk, a package that changed: the sweep's own rows are what counts
            self._events = None
            self._warn(f"no more TensorBoard files are written: {error}; `raymae export` can write them later")
