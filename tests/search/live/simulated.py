"""A whole sweep on a simulated clock, with a real store: what recorders are told of, in seconds and without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raymae.results import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import conclude
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.resume import restore
from raymae.search.live.recording import Recorder, Recordings
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan
from raymae.tasks import schema_of
from tests.search.decide.test_conductor import TEXT, Clock, run

DATA = {"name": "ETTh1", "source": "real", "fingerprint": "abc123"}
ENVIRONMENT = {"git": {"commit": "0123456789abcdef", "dirty": False}}
SMALL = ("search.num_trials=2", "replicates=2")


class Killed(BaseException):
    """The driver is gone."""


def sweep(
    folder: Path, recorders: Sequence[Recorder], *, before_report: Callable[[int], None] = lambda _: None
) -> tuple[Store, list[str]]:
    """Run or continue a sweep to its verdict; returns its store, and what people were warned of.

    Args:
        folder: Where its results go.
        recorders: Who is told.
        before_report: Called with the number of each report, from 0, before it is made.
    """
    spec = parse_sweep(TEXT, "simulated.yaml", SMALL, schema_of=schema_of)
    schema, clock, said = schema_of(spec.task), Clock(), list[str]()
    store = Store.create(folder, spec, schema, environment=ENVIRONMENT, data=DATA)
    recordings = Recordings(recorders)
    with store:
        made = Conductor(spec, {name: arm_plan(spec, schema, name) for name in spec.arms}, schema.objective, store,
                         source="real", slots=2, observers=[Warnings(said)], clock=clock)
        restore(made)
        recordings.follow(made)
        told, number = made.on_report, 0

        def on_report(*arguments: Any) -> None:
            nonlocal number
            before_report(number)
            number += 1
            told(*arguments)

        made.on_report = on_report  # type: ignore[method-assign]
        try:
            run(made, clock)
        except Killed:
            for one in recordings._all:  # its threads die with a process
                one._given_up = True
                one._over.set()
                one._thread.join(30)
            raise
        made.close()
        verdict = conclude(store, searched=True)
    recordings.over("finished", headline(verdict), verdict)
    return store, said


class Warnings:
    """An observer that keeps what people are warned of."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def warned(self, text: str) -> None:
        self._said.append(text)

    def reported(self, row: Any, message: Any) -> None:
        """Nothing."""

    ended = reported

    def beat(self, progress: Any) -> None:
        """Nothing."""


def digits(store: Store) -> Any:
    """Everything that a sweep computes, without when it did."""
    reports = store.reports().drop(columns=["time", "wall_s"]).sort_values(["trial_id", "step"])
    trials = store.trials().sort_values("trial_id")
    trials = trials[[name for name in trials if name not in ("started_at", "ended_at", "wall_s", "finetune_s")]]
    return reports.to_csv(index=False), trials.to_csv(index=False), (store.verdict() or {})["pairs"]
