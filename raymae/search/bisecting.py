"""The next cell of a factor that is bisected, once those before it are through."""

from __future__ import annotations

from dataclasses import replace

from raymae.search.decide.conductor import Conductor
from raymae.search.live.display import Display
from raymae.search.plan import Plan, with_cells
from raymae.search.precision import computing_in
from raymae.search.timing import Measured, lengthened, measured
from raymae.spec.factors import said

_NO_ROOM = ("the budget leaves no room for another cell, {} {}: what was found so far is the answer; the same command "
            "goes on with as much budget again")


def is_through(conductor: Conductor) -> bool:
    """Whether a sweep has nothing more to run, in the cells that are open and in others."""
    return conductor.finished() and (conductor.is_over() or conductor.opening.next() is None)


def open_cell(conductor: Conductor, plan: Plan, display: Display) -> Plan | None:
    """Open the next cell, once all that is open is through; Ray is connected, and its slots are free.

    What makes its arms equal is measured first, and written down together with the cell: a sweep that is killed has
    both or neither.

    Args:
        conductor: Of the sweep; it is told of the cell.
        plan: With the cells that are open.
        display: Told of it.

    Returns:
        The plan with the new cell; None where nothing more is opened.
    """
    value = None if conductor.is_over() else conductor.opening.next()
    if value is None or plan.spec.bisected is None:
        return None
    name, wider = plan.spec.bisected[0], with_cells(plan, (*conductor.store.manifest.opened, value))
    if not conductor.opening.fits(wider.arms):
        conductor.warn(_NO_ROOM.format(name, said(value)))
        return None
    if conductor.store.manifest.precision is not None:
        wider = replace(wider, arms=computing_in(wider.arms, conductor.store.manifest.precision))
    found = Measured() if plan.spec.fair.by == "epochs" else _measured(conductor, wider, name, value)
    store = conductor.store
    times, costs = store.manifest.times_epochs, store.manifest.epoch_costs
    store.keep_found(replace(
        store.manifest, times_epochs=None if times is None else {**times, **found.times_epochs},
        epoch_costs={**costs, **found.epoch_costs}, opened=(*store.manifest.opened, value)))
    conductor.opening.add(wider.spec, lengthened(wider.arms, found))
    display.opened(name, value)
    return wider


def _measured(conductor: Conductor, plan: Plan, name: str, value: int | float) -> Measured:
    """What is found about the lanes of a new cell; those that other cells share keep what they have."""
    alone = plan.spec.model_copy(update={"asked_factors": {name: [value]}})
    here = {lane: one for lane, one in plan.arms.items() if one.cell.get(name, value) == value}
    found = measured(replace(plan, spec=alone, arms=here), conductor.warn)
    new = set(plan.arms) - set(conductor.plans)
    times, costs = ({lane: one[lane] for lane in one if lane in new} for one in (found.times_epochs, found.epoch_costs))
    return Measured(times, costs)
