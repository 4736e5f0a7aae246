"""What the lanes of a sweep search with: a study each, a population where there is one, and so many trials."""

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
    """The search of every lane: of every arm, in every cell of the factors that is searched by itself.

    It is not guarded: its conductor holds a lock whenever it asks or tells it.

    Args:
        spec: The sweep.
        plans: Its lanes.
        objective: What is selected on.

    Attributes:
        studies: The study of each lane. An arm's draw from the same stream in every cell: they begin with the same
            configurations, whose encoders cells may share.
        populations: Of the lanes that have one.
        groups: Trials that share encoders, of the lanes that pretrain where several fine-tunings share one.
        quota: Search trials by lane, together no more than the budget allows; one that is given up gets no more, and
            one that another's search serves gets none.
        served: By lane those whose replicates repeat what its search finds.
    """

    def __init__(self, spec: SweepSpec, plans: Mapping[str, ArmPlan], objective: Objective) -> None:
        self._cost, self._metric = spec.search.cost, objective.val
        arms = list(dict.fromkeys(plan.name for plan in plans.values()))
        self.studies = {
            name: ArmStudy(plan, spec.search, objective, arms.index(plan.name)) for name, plan in plans.items()
        }
        self.populations = {
            name: Population(plan, spec.search, objective)
            for name, plan in plans.items() if spec.search.scheduler == "pbt" and plan.live
        }
        size = spec.search.finetunes_per_encoder
        self.groups = {name: EncoderGroups(size, plan.shared) for name, plan in plans.items()
                       if size > 1 and plan.arm.kind == "pretrained"}
        self.served = {name: [other for other, plan in plans.items() if plan.home == name] for name in plans}
        quota = {name: study.num_trials if plans[name].home == name else 0 for name, study in self.studies.items()}
        self.quota = _shrunk(quota, spec.budget.num_trials)

    def change_plan(self, lane: str, plan: ArmPlan) -> None:
        """Search a lane by another plan; before anything is proposed."""
        self.studies[lane].plan = plan
        if lane in self.populations:
            self.populations[lane].plan = plan

    def note(self, trial: Trial) -> None:
        """Enter a trial into its lane's groups, if its study was asked for it."""
        if trial.is_asked and trial.lane in self.groups:
            self.groups[trial.lane].note(trial)

    def milestones(self, trial: Trial) -> int:
        """Every how many epochs of fine-tuning a trial keeps a checkpoint for a child; 0 is never."""
        population = self.populations.get(trial.lane)
        return population.every if population is not None and trial.stage == "search" else 0

    def report(self, trial: Trial) -> None:
        """Tell the lane's study how good a trial is after its latest epoch of fine-tuning."""
        if trial.is_asked:
            self.studies[trial.lane].report(trial.trial_id, trial.epochs, trial.best[self._metric])

    def end(self, trial: Trial, status: EndStatus) -> None:
        """Tell the lane's study how a trial ended."""
        if trial.is_asked:
            costs = {"wall_s": trial.alone_s, "num_parameters": trial.num_parameters, None: None}
            self.studies[trial.lane].tell(
                trial.trial_id, status, trial.best.get(self._metric), costs[self._cost])


def _shrunk(quota: dict[str, int], total: int | None) -> dict[str, int]:
    """Lower every lane's quota evenly until the sum fits the budget; each that is searched keeps at least one trial."""
    while total is not None and sum(quota.values()) > total and max(quota.values()) > 1:
        quota[max(quota, key=lambda name: quota[name])] -= 1
    return quota
