"""Reads how far a sweep is off its folder alone: for `raymae watch`, `raymae serve`, and anybody with a loop."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from raymae.results.store.columns import Row, last_attempts
from raymae.results.store.store import Store, to_pandas
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.verdict import ArmResult, TrialCounts, Verdict, plain
from raymae.results.views.progress import (
    ArmProgress,
    DriverState,
    Failure,
    PlannedTrials,
    Progress,
    StageCount,
    State,
    TestMean,
)
from raymae.results.views.pulse import SILENT_S, Pulse, driver_of
from raymae.spec.trial import VALIDATED

NUM_FAILURES = 5


class Follower:
    """Looks at one sweep again and again; each look reads only what is new.

    Args:
        root: The sweep's folder, a path or a URI.

    Raises:
        ResultsError: No sweep there.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._store = Store.open(root)
        self._seen: dict[str, tuple[Collection[str], Any]] = {"trials": ((), None), "reports": ((), None)}
        self._pulse = Pulse()
        self._answer: tuple[Any, Verdict] | None = None

    @property
    def root(self) -> str:
        """The sweep's folder as given."""
        return self._store.root

    @property
    def store(self) -> Store:
        """The sweep as it was at the last look."""
        return self._store

    @property
    def tables(self) -> dict[str, Any]:
        """The rows of `trials` and `reports` at the last look, each a `pyarrow.Table`; None before it."""
        return {name: table for name, (_, table) in self._seen.items()}

    def look(self) -> Progress:
        """Read how far the sweep is now.

        Raises:
            ResultsError: The storage failed, or the sweep is gone.
        """
        latest = Store.open(self._store.root)
        if latest.manifest != self._store.manifest:
            if latest.manifest.created_at != self._store.manifest.created_at:  # started over with --fresh
                self._seen = {"trials": ((), None), "reports": ((), None)}
            self._store, self._answer = latest, None
        state = driver_of(self._store)  # before the rows: what it calls running may have ended since, never the reverse
        names: tuple[Literal["trials", "reports"], ...] = ("trials", "reports")
        for name in names:
            self._seen[name] = self._store.follow(name, *self._seen[name])
        tables = self.tables
        known = (tables["trials"].num_rows, state.state if state else None)
        if self._answer is None or self._answer[0] != known:
            self._answer = (known, verdict_now(self._store, to_pandas(tables["trials"])))
        return self._progress(tables, state, self._answer[1])

    def _progress(self, tables: Mapping[str, Any], state: DriverState | None, answer: Verdict) -> Progress:
        import pyarrow.compute as pc

        trials, reports = tables["trials"], tables["reports"]
        columns = ["trial_id", "arm", "stage", "status", "attempt", "error"]
        rows: list[dict[Any, Any]] = last_attempts(trials.select(columns).to_pandas()).to_dict("records")
        last = {row["trial_id"]: row for row in rows}
        trials_ended = [row for row in rows if row["stage"] != "pretrain"]  # a pretraining is no trial of its own
        planned = state.planned if state else self._guessed()
        word, note = self._state(state, answer)
        alive = state if state and word == "running" else None
        running = [trial for trial in alive.running if trial.trial_id not in last
                   or last[trial.trial_id]["attempt"] < trial.attempt] if alive else []
        latest = pc.max(reports["time"]).as_py() if reports.num_rows else None
        return Progress(
            sweep=answer.sweep, task=answer.task, root=self._store.root, data=answer.data, objective=answer.objective,
            state=word, note=note, started_at=state.started_at if state else self._store.manifest.created_at,
            elapsed_s=_elapsed(state, word), left_s=alive.left_s if alive else None,
            dashboard=alive.dashboard if alive else None, slots=state.slots if state else None,
            num_planned=sum(arm.search + arm.replicates for arm in planned.values()), num_ended=len(trials_ended),
            num_trials=TrialCounts.of(row["status"] for row in trials_ended),
            num_reports=reports.num_rows, last_report=latest and latest.isoformat(),
            arms=tuple(_arm(answer, arm, list(last.values()), planned.get(arm.arm, PlannedTrials(0, 0)))
                       for arm in answer.arms),
            running=tuple(running),
            failures=tuple(Failure(row["trial_id"], row["error"] or "")
                           for row in last.values() if row["status"] == "failed")[-NUM_FAILURES:],
            headline=headline(answer), commands=alive.commands if alive else (),
            dollars=state.dollars if state else None,
        )

    def _guessed(self) -> dict[str, PlannedTrials]:
        """What is planned where no driver said: a quota may have been cut by the budget or a small grid.

        A reference is taken to search what is searched `when` the arm is that reference; which other parameters it
        has, only its task knows.
        """
        spec, arms = self._store.spec(), self._store.manifest.task.arms
        named = {arm for distribution in spec.space.values() for arm in distribution.when.get("arm", ())}
        searched = {name: 1 if arms[name].kind == "reference" and name not in named else spec.search.num_trials
                    for name in spec.arms}
        return {name: PlannedTrials(number + spec.search.num_finals(number),
                                    arms[name].num_replicates(spec.num_replicates))
                for name, number in searched.items()}

    def _state(self, state: DriverState | None, answer: Verdict) -> tuple[State, str]:
        if state is None:
            return ("ended", "") if answer.complete else ("unknown", "no driver has given a sign of life here")
        return self._pulse.feel(state)


def _elapsed(state: DriverState | None, word: State) -> float | None:
    """Of the present run; between two signs of life the clock goes on."""
    if state is None:
        return None
    since = (datetime.now(UTC) - datetime.fromisoformat(state.time)).total_seconds() if word == "running" else 0.0
    return round(float(state.elapsed_s) + min(max(since, 0.0), SILENT_S), 1)


def _stage(rows: Collection[Row], planned: int) -> StageCount:
    statuses = plain(TrialCounts.of(row["status"] for row in rows))
    return StageCount(len(rows), max(planned, len(rows)), statuses)


def _arm(
    verdict: Verdict, arm: ArmResult, last: Collection[Row], planned: PlannedTrials
) -> ArmProgress:
    search, replicates = ([row for row in last if row["arm"] == arm.arm and row["stage"] in stages]
                          for stages in (VALIDATED, ("replicate",)))
    test = verdict.test(arm)
    return ArmProgress(
        arm.arm, arm.kind, _stage(search, planned.search), _stage(replicates, planned.replicates), arm.num_trials,
        arm.val.score, arm.val.trial_id, TestMean(test.mean, test.ci95) if test else None, arm.compute_s,
    )
