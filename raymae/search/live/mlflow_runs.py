"""A sweep's runs in MLflow: one for every trial, below one for the sweep.

MLflow chooses the ids of runs, so they are found again by tags: `raymae.sweep_id` and `raymae.trial_id`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raymae.errors import one_line
from raymae.results.store.columns import Row
from raymae.results.store.layout import PICTURES, VERDICT
from raymae.results.views.tensorboard import scalars
from raymae.search.live.recorded import Ending, RecordedSweep, RecordedTrial, answer_of, ending_of
from raymae.search.live.variables import redacted

if TYPE_CHECKING:
    from raymae.results.verdict.verdict import Verdict

SWEEP_ID, TRIAL_ID = "raymae.sweep_id", "raymae.trial_id"
STATUS = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
ENDED = {"finished": "FINISHED", "interrupted": "KILLED", "budget spent": "KILLED", "failed": "FAILED"}
MOST, MOST_METRICS = 100, 1000  # parameters or tags, and metrics, that one request may hold
QUIET = {  # where the user says nothing else: it is we who try again, and standard output is the sweep's own
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowRuns:
    """Keeps a sweep's runs in MLflow, as a `Recorder`.

    Args:
        uri: The server.
        experiment: The experiment's name.
    """

    title = "MLflow"

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri, self._name = uri, experiment
        self._client: Any = None
        self._sweep: RecordedSweep
        self._experiment = self._parent = ""
        self._runs: dict[str, str] = {}
        self._status: dict[str, str] = {}
        self._doubtful = True  # whether there may be runs that nobody here knows of
        self._step: dict[str, int] = {}

    def open(self, sweep: RecordedSweep, say: Callable[[str], None]) -> Collection[str]:
        """Begin or continue the sweep's run; returns the trials whose runs have ended."""
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._client, self._sweep = MlflowClient(self._uri), sweep
        found = self._client.get_experiment_by_name(self._name)
        self._experiment = self._client.create_experiment(self._name) if found is None else found.experiment_id
        self._parent = self._run("", sweep.name, {**sweep.about, "commit": sweep.commit})
        return [name for name, status in self._status.items() if name and status in STATUS.values()]

    def begin(self, trial: RecordedTrial) -> Collection[int]:
        """Begin or continue a trial's run."""
        from mlflow.entities import Param

        known = trial.trial_id in self._runs
        run = self._run(trial.trial_id, trial.trial_id, {**trial.tags, "mlflow.parentRunId": self._parent})
        params = [Param(name, str(value)) for name, value in trial.params.items()]
        for some in _parts(params, MOST):
            self._client.log_batch(run, params=some)
        return {one.step for one in self._client.get_metric_history(run, "epoch")} if known else ()

    def report(self, trial_id: str, rows: Sequence[Row]) -> None:
        """Add reports: every report has its epoch, which says that it is there."""
        from mlflow.entities import Metric

        metrics = [Metric(_key(name), value, _milliseconds(row.get("time")), row["step"]) for row in rows
                   for name, value in {**scalars(row), "epoch": float(row["epoch"])}.items()]
        for some in _parts(metrics, MOST_METRICS):
            self._client.log_batch(self._runs[trial_id], metrics=some)
        self._step[trial_id] = rows[-1]["step"]

    def end(self, trial_id: str, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Add how a trial ended; then its pictures."""
        run, ended_ms = self._runs[trial_id], _milliseconds(row.get("ended_at"))
        self._log(run, *ending_of(row), self._step.get(trial_id, 0), ended_ms)
        self._client.set_terminated(run, STATUS[row["status"]], end_time=ended_ms)
        self._attach(run, {f"{PICTURES}/{name}.png": png for name, png in pictures.items()})
        self._status[trial_id] = STATUS[row["status"]]
        self._step.pop(trial_id, None)

    def close(self, how: Ending, text: str, verdict: Verdict | None) -> None:
        """Add the answer to the sweep's run, with `verdict.json`."""
        numbers: dict[str, float] = {}
        words = {"headline": text}
        if verdict is not None:
            numbers, words = answer_of(verdict)
        words |= {"ending": how, "mlflow.note.content": words["headline"]}  # shown as its description
        self._log(self._parent, numbers, words, 0, _milliseconds(None))
        if verdict is not None:
            self._attach(self._parent, {VERDICT: json.dumps(verdict.to_json(), indent=2).encode()})
        for trial_id, status in self._status.items():
            if trial_id and status == "RUNNING":
                self._client.update_run(self._runs[trial_id], status="SCHEDULED")
        self._client.set_terminated(self._parent, ENDED[how])

    def may_pass(self, failure: Exception) -> bool:
        """Whether the server did not answer or was at its end; what it refuses it refuses again."""
        status = getattr(failure, "get_http_status_code", None)
        return isinstance(failure, OSError) if status is None else status() >= 500 or status() == 429

    def _run(self, trial_id: str, name: str, tags: Mapping[str, str]) -> str:
        """The run of a trial, or of the sweep for "": the one there is, or a new one."""
        if self._doubtful:
            self._find()
        if trial_id in self._runs:
            if self._status[trial_id] != "RUNNING":
                self._client.update_run(self._runs[trial_id], status="RUNNING")
        else:
            self._doubtful = True  # until the server has answered
            own = {SWEEP_ID: self._sweep.sweep_id, TRIAL_ID: trial_id or "(sweep)"}
            made = self._client.create_run(self._experiment, run_name=name, tags={**_words(tags), **own})
            self._runs[trial_id] = made.info.run_id
            self._doubtful = False
        self._status[trial_id] = "RUNNING"
        return self._runs[trial_id]

    def _find(self) -> None:
        """Find what an earlier run of the sweep has recorded, or a request that seemed to fail."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], f"tags.`{SWEEP_ID}` = '{self._sweep.sweep_id}'", max_results=1000, page_token=token)
            for run in page:
                trial_id = run.data.tags.get(TRIAL_ID, "").replace("(sweep)", "")
                self._runs[trial_id] = run.info.run_id
                self._status.setdefault(trial_id, run.info.status)
            token = page.token
            if not token:
                break
        self._doubtful = False

    def _log(self, run: str, numbers: Mapping[str, float], words: Mapping[str, str], step: int, time_ms: int) -> None:
        from mlflow.entities import Metric, RunTag

        tags = [RunTag(name, value) for name, value in _words(words).items()]
        for some in _parts(tags, MOST):
            self._client.log_batch(run, tags=some)
        for more in _parts([Metric(_key(name), value, time_ms, step) for name, value in numbers.items()], MOST_METRICS):
            self._client.log_batch(run, metrics=more)

    def _attach(self, run: str, files: Mapping[str, bytes]) -> None:
        """Upload files, which may go to another service than the rest: a tag says why they are not there."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    file = Path(folder, name)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
                if files:
                    self._client.log_artifacts(run, folder)
        except Exception as failure:  # whatever the client of the artifacts' store raises
            self._client.set_tag(run, "not_uploaded", redacted(one_line(failure))[:1000])


def _parts(items: list[Any], most: int) -> Iterable[list[Any]]:
    return (items[start:start + most] for start in range(0, len(items), most))


def _key(name: str) -> str:
    """A metric's name in the letters that MLflow takes."""
    return re.sub(r"[^\w./ :-]", "_", name)


def _words(tags: Mapping[str, str]) -> dict[str, str]:
    return {_key(name): text[:5000] for name, text in tags.items() if text}


def _milliseconds(time_of: Any) -> int:
    return int(1000 * (time_of.timestamp() if isinstance(time_of, datetime) else time.time()))
