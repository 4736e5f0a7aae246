"""Replicates in rounds: more of them until the primary comparison is decided, in every cell of the factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raymae.results.store.store import Store
from raymae.results.verdict.judge import verdict_of
from raymae.results.verdict.verdict import CellAnswer, Verdict
from raymae.search.decide.trials import Trials
from raymae.spec.factors import Cell, cells
from raymae.spec.resolve import ArmPlan
from raymae.spec.sweep import SweepSpec


@dataclass
class _CellRound:
    """How far a cell is: its values and lanes, replicates asked for of each, whether its primary comparison is decided.
    """

    cell: Cell
    lanes: tuple[str, ...]
    asked: int
    decided: bool = False


class Rounds:
    """How many replicates each lane needs by now.

    It is not guarded: its conductor holds a lock whenever it asks it.

    Args:
        spec: The sweep.
        plans: Its lanes.
        trials: Its trials.
        store: Holds the rows of those that ended, by which the primary comparison is decided or not.

    Attributes:
        wanted: Replicates by lane; grows.
    """

    def __init__(self, spec: SweepSpec, plans: Mapping[str, ArmPlan], trials: Trials, store: Store) -> None:
        self._spec, self._plans, self._trials, self._store = spec, plans, trials, store
        self._cells: list[_CellRound] = []
        self.wanted: dict[str, int] = {}
        self.widen(spec)

    def widen(self, spec: SweepSpec) -> None:
        """Take in the cells that a sweep has; those that are known are as far as they were."""
        self._spec, known = spec, self._cells
        self._cells = [next((one for one in known if one.cell == cell), None) or self._new(cell)
                       for cell in cells(spec.factors)]
        self._want()

    def _new(self, cell: Cell) -> _CellRound:
        lanes = (lane for lane, plan in self._plans.items()
                 if all(cell[name] == value for name, value in plan.cell.items()))
        return _CellRound(cell, tuple(lanes), self._spec.num_replicates)

    def catch_up(self) -> None:
        """Go on with the round that an earlier run of the sweep had begun."""
        for cell in self._cells:
            # what a lane has that is also another cell's may have been for that one
            own = [lane for lane in cell.lanes if sum(lane in other.lanes for other in self._cells) == 1]
            begun = max((len(self._trials.of(lane, "replicate")) for lane in own or cell.lanes), default=0)
            while cell.asked < min(begun, self._spec.most_replicates):
                self._next(cell)
        self._want()

    def is_over(self) -> bool:
        """Whether no other round will begin."""
        if not self._open():
            return True
        if not self._trials.running:
            self._judge()
        return not self._open()

    def next(self) -> bool:
        """Begin another round, if all so far have ended and a comparison is not decided: whether it did."""
        if self._trials.running or self.is_over():
            return False
        for cell in self._open():
            self._next(cell)
        self._want()
        return True

    def _open(self) -> list[_CellRound]:
        """The cells that may need more."""
        return [cell for cell in self._cells if cell.asked < self._spec.most_replicates and not cell.decided]

    def _judge(self) -> None:
        """Note which primary comparisons the rows so far decide, by intervals that hold at every look."""
        self._store.flush()
        verdict = verdict_of(self._store)
        answers: Sequence[Verdict | CellAnswer] = verdict.cells if self._spec.factors else [verdict]
        for cell, found in zip(self._cells, answers, strict=True):
            cell.decided = cell.decided or not found.pairs or found.pairs[0].verdict != "undecided"

    def _next(self, cell: _CellRound) -> None:
        cell.asked = min(cell.asked + self._spec.num_replicates, self._spec.most_replicates)

    def _want(self) -> None:
        for name, plan in self._plans.items():
            asked = max(cell.asked for cell in self._cells if name in cell.lanes)
            self.wanted[name] = plan.arm.num_replicates(asked)
