"""Says when nothing has moved for a while, and why; ends the waiting when the sweep is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from raymae.results.verdict.numbers import duration
from raymae.search.background import repeatedly

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor
    from raymae.search.engine.slots import Slots

SILENCE_S = 120.0
LOOK_S = 2.0


@contextmanager
def watched(conductor: Conductor, slots: Slots, *, silence_s: float = SILENCE_S) -> Iterator[None]:
    """Warn through `conductor.warn` whenever no report came for `silence_s` seconds, with each slot's state.

    What went before, as the measuring of arms, is no silence: time counts from here. A sweep that is over does not
    wait for workers that have not come: a node might never be had. One that was interrupted has its trials handed back
    from inside long epochs.

    Args:
        conductor: Its `last_event` is the time of the last report or end.
        slots: Their keeper knows what they do.
        silence_s: Seconds; doubled after each warning in a row.
    """
    limit, began = silence_s, conductor.clock()

    def look() -> None:
        nonlocal limit
        if conductor.is_over():
            slots.keeper.stop_waiting.remote()
        if conductor.interrupted:
            slots.keeper.recall.remote()
        silent = conductor.clock() - max(began, conductor.last_event)
        if silent < silence_s:
            limit = silence_s
        elif silent >= limit:
            limit = 2 * silent
            conductor.warn(f"no report for {duration(silent)}: {explain(slots.keeper)}")

    with repeatedly(look, min(LOOK_S, silence_s / 8), "watchdog"):
        yield


def explain(keeper: Any) -> str:
    """What every slot is doing, in words."""
    import ray

    try:
        states = ray.get(keeper.states.remote(), timeout=10)
    except ray.exceptions.RayError as error:
        return f"the keeper of slots does not answer ({type(error).__name__})"
    counts: dict[str, int] = {}
    for state in states.values():
        counts[state] = counts.get(state, 0) + 1
    free = {name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")}
    slots = "; ".join(f"{count} x {state}" if count > 1 else state for state, count in counts.items())
    return f"{slots or 'no worker group has been started yet'} (free: {free or 'nothing'})"
