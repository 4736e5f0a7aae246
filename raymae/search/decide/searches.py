"""What the arms of a sweep search with: a study each, a population where there is one, and so many trials."""

from __future__ import annotations

from collections.abc import Mapping

from raymae.search.decide.algorithms import ArmStudy, EndStatus
from raymae.search.decide.groups import EncoderGroups
from raymae.search.decide.population import Population
from raymae.search.decide.trials import Trial
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import Objective


class Searches:
    """The search of every arm.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        spec: The sweep.
        plans: Its arms.
        objective: What is selected on.

    Attributes:
        studies: The study of each arm.
        populations: Of the arms that have one.
        groups: Trials that share encoders, of the arms that pretrain where several fine-tunings share one.
        quota: Search trials by arm, together no more than the budget allows; an arm that is given up gets no more.
    """

    def __init__(self, spec: SweepSpec, plans: Mapping[str, ArmPlan], objective: Objective) -> None:
        self._cost, self._metric = spec.search.cost, objective.val
        self.studies = {
            name: ArmStudy(plan, spec.search, objective, index) for index, (name, plan) in enumerate(plans.items())
        }
        self.populations = {
            name: Population(plan, spec.search, objective)
            for name, plan in plans.items() if spec.search.scheduler == "pbt" and plan.live
        }
        size = spec.search.finetunes_per_encoder
        self.groups = {name: EncoderGroups(size, plan.shared) for name, plan in plans.items()
                       if size > 1 and plan.arm.kind == "pretrained"}
        self.quota = _shrunk({name: study.num_trials for name, study in self.studies.items()}, spec.budget.num_trials)

    def change_plan(self, arm: str, plan: ArmPlan) -> None:
        """Search an arm by another plan; before anything is proposed."""
        self.studies[arm].plan = plan
        if arm in self.populations:
            self.populations[arm].plan = plan

    def note(self, trial: Trial) -> None:
        """Enter a trial into its arm's groups, if its study was asked for it."""
        if trial.is_asked and trial.config.arm in self.groups:
            self.groups[trial.config.arm].note(trial)

    def milestones(self, trial: Trial) -> int:
        """Every how many epochs of fine-tuning a trial keeps a checkpoint for a child; 0 is never."""
        population = self.populations.get(trial.config.arm)
        return population.every if population is not None and trial.stage == "search" else 0

    def report(self, trial: Trial) -> None:
        """Tell the arm's study how good a trial is after its latest epoch of fine-tuning."""
        if trial.is_asked:
            self.studies[trial.config.arm].report(trial.trial_id, trial.epochs, trial.best[self._metric])

    def end(self, trial: Trial, status: EndStatus) -> None:
        """Tell the arm's study how a trial ended."""
        if trial.is_asked:
            costs = {"wall_s": trial.alone_s, "num_parameters": trial.num_parameters, None: None}
            self.studies[trial.config.arm].tell(
                trial.trial_id, status, trial.best.get(self._metric), costs[self._cost])


def _shrunk(quota: dict[str, int], total: int | None) -> dict[str, int]:
    """Lower every arm's quota evenly until the sum fits the budget; every arm keeps at least one trial."""
    while total is not None and sum(quota.values()) > total and max(quota.values()) > 1:
        quota[max(quota, key=lambda name: quota[name])] -= 1
    return quota
