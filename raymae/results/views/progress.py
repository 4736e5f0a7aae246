"""How far a sweep is, from its folder alone: for `raymae watch`, `raymae serve`, and anybody with a loop."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from raymae.results.store.columns import last_attempts
from raymae.results.store.store import Store, to_pandas
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.verdict import ArmResult, Verdict, plain

SILENT_S = 60.0  # a driver that gave no sign of life for so long is lost
OVER = ("ended", "interrupted", "failed")
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
        self._sign: tuple[str, float] | None = None
        self._answer: tuple[Any, Verdict] | None = None

    @property
    def root(self) -> str:
        """The sweep's folder as given."""
        return self._store.root

    def look(self) -> dict[str, Any]:
        """What there is now.

        Returns:
            Plain values: `sweep`, `task`, `root`, `data`, `objective`, `state` (`running`, `ended`, `interrupted`,
            `failed`; `lost`: its driver has given no sign of life for a minute; `unknown`: written by a version without
            signs of life), `note` (the state in words, or ""), `started_at`, `elapsed_s`, `left_s`, `dashboard`,
            `num_planned`, `num_ended`, `num_reports`, `last_report`, `arms` (best first), `running`, `failures` (the
            last five), `headline`.

        Raises:
            ResultsError: The storage failed, or the sweep is gone.
        """
        latest = Store.open(self._store.root)
        if latest.manifest != self._store.manifest:
            if latest.manifest.created_at != self._store.manifest.created_at:  # started over with --fresh
                self._seen = {"trials": ((), None), "reports": ((), None)}
            self._store, self._answer = latest, None
        state = self._store.state()  # before the rows: what it calls running may have ended since, never the reverse
        names: tuple[Literal["trials", "reports"], ...] = ("trials", "reports")
        for name in names:
            self._seen[name] = self._store.follow(name, *self._seen[name])
        tables = {name: table for name, (_, table) in self._seen.items()}
        known = (tables["trials"].num_rows, state["state"] if state else None)
        if self._answer is None or self._answer[0] != known:
            self._answer = (known, verdict_now(self._store, to_pandas(tables["trials"])))
        return self._progress(tables, state, self._answer[1])

    def _progress(self, tables: Mapping[str, Any], state: Mapping[str, Any] | None, answer: Verdict) -> dict[str, Any]:
        import pyarrow.compute as pc

        trials, reports = tables["trials"], tables["reports"]
        columns = ["trial_id", "arm", "stage", "status", "attempt", "error"]
        rows: list[dict[Any, Any]] = last_attempts(trials.select(columns).to_pandas()).to_dict("records")
        last = {row["trial_id"]: row for row in rows}
        planned = state["planned"] if state else self._guessed()
        word, note = self._state(state, answer)
        running = [one for one in state["running"] if one["trial_id"] not in last
                   or last[one["trial_id"]]["attempt"] < one["attempt"]] if state and word == "running" else []
        latest = pc.max(reports["time"]).as_py() if reports.num_rows else None
        return {
            "sweep": answer.sweep, "task": answer.task, "root": self._store.root, "data": plain(answer.data),
            "objective": plain(answer.objective), "state": word, "note": note,
            "started_at": state["started_at"] if state else self._store.manifest.created_at,
            "elapsed_s": _elapsed(state, word), "left_s": state["left_s"] if state and word == "running" else None,
            "dashboard": state["dashboard"] or "" if state and word == "running" else "",
            "num_planned": sum(sum(arm.values()) for arm in planned.values()), "num_ended": len(last),
            "num_trials": {status: sum(row["status"] == status for row in last.values())
                           for status in ("completed", "stopped", "failed")},
            "num_reports": reports.num_rows, "last_report": latest and latest.isoformat(),
            "arms": [_arm(answer, arm, last, planned.get(arm.arm, {"search": 0, "replicates": 0}))
                     for arm in answer.arms],
            "running": running,
            "failures": [{"trial_id": row["trial_id"], "error": row["error"] or ""}
                         for row in last.values() if row["status"] == "failed"][-NUM_FAILURES:],
            "headline": headline(answer),
        }

    def _guessed(self) -> dict[str, dict[str, int]]:
        """What is planned where no driver said: a quota may have been cut by the budget or a small grid."""
        spec, arms = self._store.spec(), self._store.manifest.task.arms
        return {name: {"search": 1 if arms[name].kind == "reference" else spec.search.num_trials,
                       "replicates": arms[name].num_replicates(spec.replicates)}
                for name in spec.arms}

    def _state(self, state: Mapping[str, Any] | None, answer: Verdict) -> tuple[str, str]:
        if state is None:
            return ("ended", "") if answer.complete else ("unknown", "no driver has given a sign of life here")
        if state["state"] == "interrupted":
            return "interrupted", "interrupted; the same command goes on"
        if state["state"] != "running":
            return state["state"], f"failed: {state['error']}" if state.get("error") else ""
        now = time.monotonic()
        age = (datetime.now(UTC) - datetime.fromisoformat(state["time"])).total_seconds()
        if self._sign is None:
            self._sign = (state["time"], now - max(age, 0.0))
        elif self._sign[0] != state["time"]:  # seen to change: whatever the two clocks say, it lives
            self._sign = (state["time"], now)
        silent = now - self._sign[1]
        where = f"{state['host']}, process {state['pid']}"
        if state["host"] == socket.gethostname() and not _alive(state["pid"]):
            return "lost", f"its driver ({where}) is gone; the same command goes on"
        if silent > max(SILENT_S, 6 * state["every_s"]):
            return "lost", f"no sign of life for {silent:.0f} s from its driver ({where})"
        return "running", "starting Ray" if state["dashboard"] is None else ""


def _elapsed(state: Mapping[str, Any] | None, word: str) -> float | None:
    """Of the present run; between two signs of life the clock goes on."""
    if state is None:
        return None
    since = (datetime.now(UTC) - datetime.fromisoformat(state["time"])).total_seconds() if word == "running" else 0.0
    return round(float(state["elapsed_s"]) + min(max(since, 0.0), SILENT_S), 1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _arm(verdict: Verdict, arm: ArmResult, last: Mapping[str, Mapping[str, Any]],
         planned: Mapping[str, int]) -> dict[str, Any]:
    mine = [row for row in last.values() if row["arm"] == arm.arm]
    search, replicates = (sum(row["stage"] == stage for row in mine) for stage in ("search", "replicate"))
    test = verdict.test(arm)
    return {
        "arm": arm.arm, "kind": arm.kind,
        "search": {"done": search, "planned": max(planned["search"], search)},
        "replicates": {"done": replicates, "planned": max(planned["replicates"], replicates)},
        "num_trials": plain(arm.num_trials), "best": arm.val.score, "best_trial": arm.val.trial_id,
        "test": test and {"mean": test.mean, "ci95": plain(test.ci95)}, "compute_s": arm.compute_s,
    }
