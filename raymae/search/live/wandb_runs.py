"""A sweep's runs in Weights & Biases: one for every trial and one for the sweep, in a group that is the sweep's id.

Its client writes every run to this machine first and sends it from there, so that a service which is away costs
nothing: `wandb sync` sends it later. An offline run cannot be continued: a trial that goes on is written whole once
more.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raymae.errors import one_line
from raymae.results.store.columns import Row
from raymae.results.store.folder import Folder
from raymae.results.store.layout import PICTURES, VERDICT, WANDB
from raymae.results.views.tensorboard import scalars
from raymae.search.live.recorded import Ending, RecordedSweep, RecordedTrial, answer_of, ending_of

if TYPE_CHECKING:
    from raymae.results.verdict.verdict import Verdict

WHOLE = "raymae.json"  # a file in a run's folder that says which trial is recorded there to its end
LONGEST_ID = 58  # of the 64 that are allowed
QUIET: dict[str, Any] = {
    # a sweep has its own terminal, a run per trial, and its own record of the machine
    "silent": True, "console": "off", "disable_git": True, "disable_code": True, "x_disable_stats": True,
    "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False,
    # what is not sent by then lies on this machine
    "init_timeout": 8.0, "login_timeout": 1.0, "finish_timeout": 4.0,
}

Mode = Literal["online", "offline"]


class WandbRuns:
    """Keeps a sweep's runs in Weights & Biases, as a `Recorder`.

    Args:
        project: The project.
        entity: The user or team; None is the account's own.
        mode: Whether runs are sent, or only written.
    """

    title = "Weights & Biases"

    def __init__(self, project: str, entity: str | None, mode: Mode) -> None:
        self._project, self._entity, self._mode = project, entity, mode
        self._sweep: RecordedSweep
        self._folder: Path
        self._parent: Any = None
        self._runs: dict[str, Any] = {}
        self._step: dict[str, int] = {}
        self._say: Callable[[str], None]

    def open(self, sweep: RecordedSweep, say: Callable[[str], None]) -> Collection[str]:
        """Begin or continue the sweep's run; returns the trials that this machine holds whole."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._sweep, self._say = sweep, say
        self._folder = Path(os.environ.get("WANDB_DIR") or Folder(sweep.location).local or Path.cwd())
        whole = [json.loads(file.read_text()) for file in (self._folder / WANDB).glob(f"*run-*/{WHOLE}")]
        if self._parent is None:
            self._parent = self._init("", "sweep", sweep.name, {**sweep.about, "commit": sweep.commit}, [])
        return {one["trial"] for one in whole if one["sweep"] == sweep.sweep_id}

    def begin(self, trial: RecordedTrial) -> Collection[int]:
        """Begin or continue a trial's run."""
        name = trial.trial_id
        if name not in self._runs:
            tags = [trial.tags["arm"], trial.tags["stage"]]
            self._runs[name] = self._init(name, trial.tags["stage"], name, {**trial.params, **trial.tags}, tags)
        return range(self._runs[name].starting_step)

    def report(self, trial_id: str, rows: Sequence[Row]) -> None:
        """Add reports."""
        for row in rows:
            self._runs[trial_id].log({**scalars(row), "epoch": float(row["epoch"])}, step=row["step"])
            self._step[trial_id] = row["step"]

    def end(self, trial_id: str, row: Row, pictures: Mapping[str, bytes]) -> None:
        """Add how a trial ended."""
        run, (numbers, words) = self._runs[trial_id], ending_of(row)
        run.summary.update({**numbers, **words})
        if pictures:
            import wandb
            from PIL import Image

            drawn = {name: wandb.Image(Image.open(io.BytesIO(png))) for name, png in pictures.items()}
            run.log({f"{PICTURES}/{name}": one for name, one in drawn.items()}, step=self._step.get(trial_id, 0))
        run.finish(exit_code=int(row["status"] == "failed"))
        whole = {"sweep": self._sweep.sweep_id, "trial": trial_id}
        Path(run.settings.sync_dir, WHOLE).write_text(json.dumps(whole))
        del self._runs[trial_id]

    def close(self, how: Ending, text: str, verdict: Verdict | None) -> None:
        """Add the answer to the sweep's run, with `verdict.json`; trials that have not ended are preempted."""
        for run in self._runs.values():
            run.mark_preempting()
            run.finish(exit_code=1)
        self._runs.clear()
        numbers: dict[str, float] = {}
        words = {"headline": text}
        if verdict is not None:
            numbers, words = answer_of(verdict)
        self._parent.summary.update({**numbers, **words, "ending": how})
        if verdict is not None:
            file = Path(self._parent.dir, VERDICT)
            file.write_text(json.dumps(verdict.to_json(), indent=2))
            self._parent.save(str(file), base_path=self._parent.dir, policy="now")
        self._parent.finish(exit_code=int(how == "failed"))

    def may_pass(self, failure: Exception) -> bool:
        """Never: what may be tried again its client tries again."""
        return False

    def _init(
        self, trial_id: str, job_type: str, name: str, config: Mapping[str, object], tags: list[str]
    ) -> Any:
        import wandb

        def start(run_id: str) -> Any:
            if self._mode == "offline":
                self._forget(run_id)
            return wandb.init(
                project=self._project, entity=self._entity, id=run_id, name=name, group=self._sweep.sweep_id,
                job_type=job_type, config={**config}, tags=tags, mode=self._mode, dir=str(self._folder),
                reinit="create_new", settings=wandb.Settings(**QUIET),
                resume="allow" if self._mode == "online" else None)

        run_id = self._id(trial_id)
        try:
            return start(run_id)
        except Exception as failure:  # no network, no such team, a wrong key
            if self._mode == "offline":
                raise
            self._mode = "offline"
            self._say(f"{self.title} does not answer: {one_line(failure)}; runs are written below "
                      f"{self._folder / WANDB} from now on, and `wandb sync` sends them")
            if self._parent is None:
                wandb.teardown()  # or the id that failed counts as in use
                return start(run_id)
            return start(f"{run_id}-again")  # runs that are open go on

    def _id(self, trial_id: str) -> str:
        """A run's id: the sweep's, with the trial's behind it."""
        found = f"{self._sweep.sweep_id}-{trial_id}" if trial_id else self._sweep.sweep_id
        return found if len(found) <= LONGEST_ID else sha256(found.encode()).hexdigest()[:LONGEST_ID]

    def _forget(self, run_id: str) -> None:
        """Delete what an earlier run of the sweep has written of a trial and nobody has sent: it is written anew."""
        for folder in (self._folder / WANDB).glob(f"offline-run-*-{run_id}"):
            if not any(folder.glob("*.synced")):
                shutil.rmtree(folder, ignore_errors=True)
