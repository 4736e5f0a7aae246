"""Every shipped sweep on a simulated clock, at the speed its header tells of and on slower machines: a verdict within
its budget, or the sentence that says how to go on."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from pathlib import Path

import pytest

from raymae.errors import BudgetSpentError
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.trials import Trial
from raymae.search.messages import Message, Worker
from raymae.search.run import _spent
from raymae.spec.arms import with_arms
from raymae.spec.load import load_sweep
from raymae.spec.resolve import arm_plans
from raymae.spec.trial import ReportData
from raymae.tasks import schema_of
from tests.search.decide.test_conductor import Clock, Recorder

SWEEPS = Path(__file__).resolve().parents[3] / "sweeps"
MINUTES = {  # of a whole sweep, two trials at once, by its header or the README; the longest where there are two
    "classification_mask": 36, "imputation_few": 38, "imputation_mask": 35, "imputation_missing": 20,
    "label_efficiency": 100, "scene_labels": 80, "segmentation_mask": 9, "series_labels": 33, "table_labels": 80,
    "timeseries_long_horizon": 30, "timeseries_mask": 19, "volumes_labels": 75, "volumes_mask": 10,
}
SLOTS, START_S = 2, 30.0
SHARE = {"pretrained": 1.0, "trained": 1.0, "reference": 0.2}  # of the longest trial; trained arms are lengthened


class Machine:
    """Runs what a conductor proposes, without stopping any trial early: the most that a sweep may take.

    Args:
        path: The sweep.
        slow: How many times as long everything takes as on the machine of the headers.
    """

    def __init__(self, path: Path, slow: float) -> None:
        spec = load_sweep(path, schema_of=schema_of)
        schema = with_arms(spec, schema_of(spec.task))
        plans = arm_plans(spec, schema)
        self.clock, self.spec = Clock(), spec
        self.made = Conductor(spec, plans, schema.objective, Recorder("/nowhere"), source="real", slots=SLOTS,
                              clock=self.clock)
        self.share = {name: SHARE[plan.arm.kind] for name, plan in plans.items()}
        whole = sum(self.share[lane] * (self.made.searches.quota[lane] + self.made.replicates[lane]) for lane in plans)
        self.trial_s = slow * 60 * MINUTES[path.stem] * SLOTS / whole
        trained = sum(plan.arm.kind != "reference" for plan in plans.values())
        self.clock.now = slow * START_S + (0.5 * self.trial_s * trained if spec.fair.by == "compute" else 0.0)

    def run(self) -> None:
        """Run until nothing is left or the budget ends it."""
        made, number, heap = self.made, itertools.count(), []  # type: ignore[var-annotated]

        def go_on(trial: Trial, done: int, began: float) -> None:
            heapq.heappush(heap, (self.clock.now + self._epoch_s(trial), next(number), trial, done + 1, began))

        while True:
            while (trial := made.next()) is not None:
                go_on(trial, 0, self.clock.now)
            if not heap:
                return
            self.clock.now, _, trial, epoch, began = heapq.heappop(heap)
            self._report(trial, epoch, self.clock.now - began)
            if epoch == sum(self._epochs(trial)) or made.must_stop(trial):
                made.on_end(trial)
            else:
                go_on(trial, epoch, began)

    def _epochs(self, trial: Trial) -> tuple[int, int]:
        params = trial.config.params
        return int(params.get("pretrain_epochs") or 0), int(params.get("epochs") or 1)

    def _epoch_s(self, trial: Trial) -> float:
        return self.share[trial.lane] * self.trial_s / sum(self._epochs(trial))

    def _report(self, trial: Trial, epoch: int, seconds: float) -> None:
        before, after = self._epochs(trial)
        objective, final = self.made.objective, epoch == before + after
        best = {objective.val: 0.5} if epoch > before else {}

        def tell(phase: str, metrics: dict[str, float], last: bool) -> None:
            done = ReportData(phase, max(epoch - before, 0) or epoch, epoch, metrics, best,  # type: ignore[arg-type]
                              seconds, 1, last)
            self.made.on_report(trial, Message(trial.trial_id, 0, done, worker=Worker("h", 1, "cpu")))

        tell("pretrain" if epoch <= before else "finetune", {"loss": 1.0, **best}, final and trial.stage == "search")
        if final and trial.stage == "replicate":
            tell("test", {objective.test: 0.5}, True)

    def lacking(self) -> list[str]:
        """Arms without all their replicates."""
        have = Counter(trial.lane for trial in self.made.trials
                       if trial.stage == "replicate" and trial.status == "completed")
        return [arm for arm, wanted in self.made.replicates.items() if have[arm] < wanted]


@pytest.mark.parametrize("slow", [1.0, 2.0, 4.0], ids=["as-told", "half-as-fast", "a-quarter-as-fast"])
@pytest.mark.parametrize("path", [SWEEPS / f"{name}.yaml" for name in MINUTES], ids=lambda path: path.stem)
def test_a_verdict_within_the_budget_or_how_to_go_on(path: Path, slow: float) -> None:
    machine = Machine(path, slow)
    machine.run()
    minutes = machine.spec.budget.wall_minutes
    if not machine.lacking():
        assert machine.made.finished()
        assert minutes is None or machine.clock.now <= 60 * minutes
        return
    assert slow > 2, "a verdict is within the budget of a machine half as fast"
    assert machine.made.budget.time_is_up()
    assert minutes is not None
    assert machine.clock.now <= 60 * minutes + machine.trial_s, "and no new trial begins after it"
    said = _spent(machine.made)
    assert f"(budget.wall_minutes={minutes:g}) and no verdict is reached" in said
    assert f"--set budget.wall_minutes={2 * minutes:g}" in said
    assert BudgetSpentError(said).exit_code == 3


def test_every_shipped_sweep_is_simulated() -> None:
    assert {*MINUTES, "debug"} == {path.stem for path in SWEEPS.glob("*.yaml")}
