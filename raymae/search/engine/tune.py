"""Tune, driven by a conductor: its search algorithm, scheduler and callback all speak to one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.air._internal import usage
from ray.tune import registry
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search.search_algorithm import SearchAlgorithm

from raymae.search.decide.conductor import Conductor
from raymae.search.decide.trials import Trial
from raymae.search.engine.schedulers import make_scheduler
from raymae.search.engine.slots import Slots, placed

FORGOTTEN_AT_ONCE = 100
ONE_SLOT = tune.PlacementGroupFactory([{"slot": 1}])  # nobody asks Ray for it


class TuneIds:
    """Which of our trials Tune knows under which of its ids."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor
        self._ours: dict[str, Trial] = {}

    def start(self, tune_id: str) -> Trial | None:
        """Ask for the next trial and remember Tune's name for it."""
        trial = self.conductor.next()
        if trial is not None:
            self._ours[tune_id] = trial
        return trial

    def __getitem__(self, tune_id: str) -> Trial:
        return self._ours[tune_id]

    def forget(self, controller: TuneController) -> None:
        """Let go of the trials that have ended, a hundred at a time: Tune would keep each, at 50 KB, and rows have all
        that anybody asks for."""
        over = controller._stopped_trials | controller._failed_trials
        if len(over) < FORGOTTEN_AT_ONCE:
            return
        controller._trials[:] = [trial for trial in controller._trials if trial not in over]
        for kept in (controller._stopped_trials, controller._failed_trials):
            kept -= over
        for trial in over:
            self._ours.pop(trial.trial_id, None)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts for a resume of its own, which is never used."""
        return {}


class ConductorSearch(SearchAlgorithm):
    """Makes the conductor's next trial one of Tune's, and tells it when one ended.

    Ray's own OptunaSearch would tell Optuna that a trial stopped by the scheduler is complete, and leave one without a
    metric running for ever; here the conductor knows how each ended. What Tune wraps around a searcher parses a command
    line and binds resources anew for every trial.
    """

    def __init__(self, ids: TuneIds) -> None:
        self._ids, self._spec, self._finished = ids, dict[str, Any](), False

    def add_configurations(self, experiments: Any) -> None:
        """What all trials of Tune's share."""
        [experiment] = experiments
        self._spec = experiment.spec

    def next_trial(self) -> TuneTrial | None:
        """The next trial, or None while there is none yet; once the conductor has finished, there never is."""
        if self._finished:
            return None
        tune_id = TuneTrial.generate_id()
        trial = self._ids.start(tune_id)
        if trial is None:
            self._finished = self._ids.conductor.finished()
            return None
        made = TuneTrial(
            self._spec["run"], config={"job": self._ids.conductor.job(trial)}, trial_id=tune_id,
            storage=self._spec["storage"], checkpoint_config=self._spec["checkpoint_config"])
        made.custom_trial_name, made.custom_dirname = trial.trial_id, f"trial-{tune_id}"
        return made

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: by itself, by the scheduler, or with its actor."""
        self._ids.conductor.on_end(
            self._ids[trial_id], "the process that ran the trial died; see the logs" if error else None
        )


class ArmScheduler(FIFOScheduler):
    """One scheduler per lane: a trial is compared only with trials of its own arm, in its own cell of the factors, on
    fine-tuning reports of the search.

    Replicates are never stopped early; the budget stops anything.
    """

    def __init__(self, ids: TuneIds) -> None:
        super().__init__()
        self._ids = ids
        conductor = ids.conductor
        self._lanes: dict[str, TrialScheduler] = {}
        for name, plan in conductor.plans.items():
            self._lanes[name] = make_scheduler(conductor.spec.search, conductor.objective, plan.longest)

    def _of(self, trial: TuneTrial) -> TrialScheduler | None:
        ours = self._ids[trial.trial_id]
        return self._lanes[ours.lane] if ours.stage == "search" else None

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """The next trial. Before that, a worker group that idles beside as many trials as may run is let go: another
        sweep waits for what it holds. Tune would keep it until one more trial ends."""
        conductor = self._ids.conductor
        self._ids.forget(tune_controller._tune_controller)
        waiting = any(trial.status == TuneTrial.PENDING for trial in tune_controller.get_live_trials())
        if conductor.shares_cluster and not waiting and len(conductor.trials.running) >= conductor.slots:
            tune_controller._tune_controller._cleanup_cached_actors(force_all=True)
        return super().choose_trial_to_run(tune_controller)

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Enter a search trial into its lane's scheduler."""
        if scheduler := self._of(trial):
            scheduler.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial's actor died."""
        if scheduler := self._of(trial):
            scheduler.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Go on, or stop."""
        conductor, ours = self._ids.conductor, self._ids[trial.trial_id]
        if conductor.must_stop(ours):
            return TrialScheduler.STOP
        scheduler = self._of(trial)
        if scheduler is None or result.get("objective") is None:
            return TrialScheduler.CONTINUE
        if conductor.replaces(ours, result["epoch"], result["report"], result["objective"]):
            return TrialScheduler.STOP
        return scheduler.on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """A trial ended by itself."""
        if (scheduler := self._of(trial)) and result.get("objective") is not None:
            scheduler.on_trial_complete(tune_controller, trial, result)


class ReportCallback(TrialProgressCallback):
    """Hands every report to the conductor: Tune calls this for the last report of a stopped trial, too.

    It stands in the place of Tune's own, which would format every result and keep every trial.
    """

    def __init__(self, ids: TuneIds, slots: Slots) -> None:
        super().__init__()
        self._ids, self._slots = ids, slots

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial's worker group is gone, or the keeper of all."""
        self._slots.revive()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as of `TuneIds`."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """The searcher hears of it."""

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """One report."""
        self._ids.conductor.on_report(self._ids[trial.trial_id], result["message"])


class _Slot(tune.Trainable):
    """What Tune believes that it starts; `Slots` starts something else in its place."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """A slot, which Tune would make anew for every trial."""
        return ONE_SLOT


@contextmanager
def _unburdened() -> Iterator[None]:
    """Tune without what it does for others, for the length of a `with` block.

    It asks Ray's head for the class of its trainable four times a trial; here once. It keeps what a trial is, to go on
    with it by itself, which is the conductor's to do. And it imports MLflow and Weights & Biases, where they are
    installed, to count callbacks of theirs: seconds of a sweep's start.
    """
    registered, tag, mark = registry._global_registry, usage.tag_callbacks, TuneController._mark_trial_to_checkpoint
    registered.contains, registered.get = _once(registered.contains), _once(registered.get)
    usage.tag_callbacks, TuneController._mark_trial_to_checkpoint = lambda callbacks: False, lambda self, trial: None
    try:
        yield
    finally:
        del registered.contains, registered.get
        usage.tag_callbacks, TuneController._mark_trial_to_checkpoint = tag, mark


def _once(ask: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    """A question about what is registered, asked until it is."""
    known: dict[tuple[str, str], Any] = {}

    def asked(category: str, key: str) -> Any:
        if not known.get((category, key)):
            known[category, key] = ask(category, key)
        return known[category, key]

    return asked


def run_tune(conductor: Conductor, slots: Slots, storage: str) -> None:
    """Let Tune run what the conductor proposes until it proposes no more.

    Args:
        conductor: Decides, and is told everything.
        slots: Run the trials; results of their steps carry a `message`.
        storage: Local folder for Tune's own bookkeeping, which nobody reads.
    """
    ids = TuneIds(conductor)
    with placed(slots), _unburdened():
        tune.Tuner(
            _Slot,
            tune_config=tune.TuneConfig(
                num_samples=-1, search_alg=ConductorSearch(ids), scheduler=ArmScheduler(ids), reuse_actors=True),
            run_config=tune.RunConfig(
                name=f"sweep-{uuid.uuid4().hex[:8]}", storage_path=storage, verbose=0,
                callbacks=[ReportCallback(ids, slots)], failure_config=tune.FailureConfig(max_failures=0),
                # while Tune saves one, the next trial is given a new slot, which is then thrown away
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
