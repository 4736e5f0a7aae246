"""What the lanes of a sweep search with: a study each, a population where there is one, and so many trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from raymae.results.verdict.finals import lacking_skill
from raymae.search.decide.added import Added
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
        added: By lane the points that somebody has added, which are tried before anything else is proposed.
    """

    def __init__(self, spec: SweepSpec, plans: Mapping[str, ArmPlan], objective: Objective) -> None:
        self._cost, self._metric = spec.search.cost, objective.val
        self._spec, self._objective = spec, objective
        self._arms = list(dict.fromkeys(plan.name for plan in plans.values()))
        self.studies: dict[str, ArmStudy] = {}
        self.populations: dict[str, Population] = {}
        self.groups: dict[str, EncoderGroups] = {}
        self.served: dict[str, list[str]] = {}
        self.added: dict[str, list[Added]] = {}
        self.quota: dict[str, int] = {}
        self.add(plans, plans)

    def add(self, new: Mapping[str, ArmPlan], plans: Mapping[str, ArmPlan]) -> None:
        """Search lanes that there are from now on.

        Args:
            new: Those.
            plans: All, the new ones among them.
        """
        search, objective = self._spec.search, self._objective
        for name, plan in new.items():
            self.studies[name] = ArmStudy(plan, search, objective, self._arms.index(plan.name))
            if search.scheduler == "pbt" and plan.live:
                self.populations[name] = Population(plan, search, objective)
            if search.finetunes_per_encoder > 1 and plan.arm.kind == "pretrained":
                self.groups[name] = EncoderGroups(search.finetunes_per_encoder, plan.shared)
        for name in plans:
            self.served[name] = [other for other, plan in plans.items() if plan.home == name]
        quota = {name: self.studies[name].num_trials if plan.home == name else 0 for name, plan in new.items()}
        self.quota.update(_shrunk(quota, self._share({str(plan.cell) for plan in new.values() if plan.cell})))

    def _share(self, new: Collection[str]) -> int | None:
        """The search trials that new cells may have: where a factor is bisected, as if all its cells were opened."""
        total, bisected = self._spec.budget.num_trials, self._spec.bisected
        if total is None or bisected is None or self._spec.search.at:
            return total
        return total * len(new) // bisected[1].cells

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
                trial.trial_id, status, trial.best.get(self._metric), costs[self._cost],
                lacking_skill(trial.pretext.get("pretext_skill"), self._spec.search.min_skill))


def _shrunk(quota: dict[str, int], total: int | None) -> dict[str, int]:
    """Lower every lane's quota evenly until the sum fits the budget; each that is searched keeps at least one trial."""
    while quota and total is not None and sum(quota.values()) > total and max(quota.values()) > 1:
        quota[max(quota, key=lambda name: quota[name])] -= 1
    return quota
