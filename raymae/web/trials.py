"""What the pages say of single trials, and the curves of a sweep under way, from the rows that its folder holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymae.errors import ResultsError
from raymae.results.report import figures
from raymae.results.report.intervals import places
from raymae.results.store.columns import is_metric, last_attempts, param_columns
from raymae.results.store.folder import Folder
from raymae.results.store.layout import CONFIGS, DRIVER_LOG, config
from raymae.results.store.store import Store, to_pandas
from raymae.results.verdict.numbers import column, duration, significant
from raymae.results.views.progress import Progress, RunningTrial
from raymae.spec.trial import PRETEXT
from raymae.web.plot import Line, plot

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    from markupsafe import Markup

Tables = Mapping[str, Any]
"""The rows of `trials` and `reports`, each a `pyarrow.Table`."""

MAX_TRIALS = 2_000  # rows of the list of trials
LOG_BYTES, LOG_LINES, REPORT_LINES = 200_000, 40, 25
_UNSEEN = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|[^\t\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class TrialRow:
    """A trial in a list.

    Attributes:
        place: The number of its arm's colour.
        status: `running`, `completed`, `stopped` or `failed`.
        val: Its validation score, as text; `test` likewise.
    """

    trial_id: str
    arm: str
    place: int
    stage: str
    status: str
    val: str
    test: str
    wall: str


@dataclass(frozen=True)
class TrialView:
    """All that a trial's page shows.

    Attributes:
        row: As in a list.
        facts: What else is known of it, by name.
        scores: Its metrics, by name.
        params: Its parameters: name, value, and whether it was searched.
        plots: Its curves, each with a heading.
        reports: Its last reports, a line each.
        error: Why it failed, or nothing.
        log: The lines of the driver's log that name it or its process, or else the last ones.
        is_named: Whether those lines name it.
    """

    row: TrialRow
    facts: tuple[tuple[str, str], ...]
    scores: tuple[tuple[str, str], ...]
    params: tuple[tuple[str, str, bool], ...]
    plots: tuple[tuple[str, Markup], ...]
    reports: tuple[str, ...]
    error: str
    log: tuple[str, ...]
    is_named: bool


def live_plots(store: Store, tables: Tables, seen: Progress) -> list[tuple[str, Markup]]:
    """The best validation score so far by arm, and the learning curves of the trials that run, each with a heading."""
    objective, place = store.objective(), places(store.manifest.task.arms)
    trials = to_pandas(tables["trials"])
    search, arms = trials[trials["stage"] == "search"].copy(), store.manifest.task.arms
    completed = set(search.loc[search["status"] == "completed", "arm"])
    stopped = (search["status"] == "stopped") & ~search["arm"].isin(completed)
    search.loc[stopped, "status"] = "completed"  # an arm with nothing better goes by those, as in its row of the table
    found = figures.progress(search, objective)
    better = "less" if objective.mode == "min" else "more"
    drawn = []
    for key, about, unit in (("trials", "by trials", "search trials of the arm that have ended"),
                             ("compute", "by compute", "seconds of the arm's search trials")):
        lines = [Line(arm, place.get(arm, 0), steps[key], steps["best"], steps=True,
                      level=arm in arms and arms[arm].kind == "reference") for arm, steps in found.items()]
        title = f"Best {objective.val} so far, {about}; {better} is better"
        drawn.append((title, plot(title, unit, objective.val, lines)))
    running = {trial.trial_id: (trial.arm, "running") for trial in seen.running}
    drawn += _learning(tables["reports"], running, store, ", trials that run")
    return [(heading, picture) for heading, picture in drawn if picture is not None]


def _learning(
    reports: Any, roles: Mapping[str, tuple[str, str]], store: Store, about: str
) -> list[tuple[str, Markup | None]]:
    """The curves of some trials, fine-tuning first, as far as there are any."""
    if not roles:
        return []
    objective, place = store.objective(), places(store.manifest.task.arms)
    curves = figures.curves(to_pandas(_only(reports, list(roles))), roles, objective, least=1)
    drawn = []
    for phase, y in (("finetune", objective.val), ("pretext", "skill"), ("pretrain", "loss")):
        name = "Fine-tuning" if phase == "finetune" else "Pretraining"
        lines = [Line(curve.trial, place.get(curve.arm, 0), curve.epoch, curve.y)  # type: ignore[arg-type]
                 for curve in curves if curve.phase == phase]
        heading = f"{name}: {y}{about}"
        drawn.append((heading, plot(heading, "epoch", y, lines)))
    return drawn


def _only(table: Any, trials: Sequence[str]) -> Any:
    """The rows of some trials."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["trial_id"], value_set=pa.array(trials, pa.string())))


def listed(store: Store, tables: Tables, seen: Progress, most: int = MAX_TRIALS) -> list[TrialRow]:
    """The trials: those that run, then those that have ended, the latest first."""
    objective = store.objective()
    last = last_attempts(to_pandas(tables["trials"])).sort_index(ascending=False).head(most)
    running = {trial.trial_id: trial for trial in seen.running}
    ended = [row for row in last.to_dict("records") if row["trial_id"] not in running]
    vals, tests = (column(_number(row[name]) for row in ended) for name in (objective.val, objective.test))
    place = places(store.manifest.task.arms)
    return [_running(trial, place) for trial in seen.running] + [
        TrialRow(row["trial_id"], row["arm"], place.get(row["arm"], 0), row["stage"], row["status"], val, test,
                 _duration(row["wall_s"])) for row, val, test in zip(ended, vals, tests, strict=True)]


def _running(trial: RunningTrial, place: Mapping[str, int]) -> TrialRow:
    return TrialRow(trial.trial_id, trial.arm, place.get(trial.arm, 0), trial.stage, "running",
                    significant(trial.best), "–", duration(trial.wall_s))


def _number(value: Any) -> float | None:
    import pandas as pd

    return None if pd.isna(value) else float(value)


def _short(value: Any) -> str | None:
    number = _number(value)
    return None if number is None else significant(number)


def _duration(value: Any) -> str:
    seconds = _number(value)
    return "–" if seconds is None else duration(seconds)


def view(store: Store, tables: Tables, seen: Progress, trial_id: str) -> TrialView | None:
    """All that is known of one trial; None where there is no such trial.

    The name is compared with those that the folder holds; no path is made from it.
    """
    folder = Folder(store.root)
    rows: list[dict[Any, Any]] = last_attempts(to_pandas(_only(tables["trials"], [trial_id]))).to_dict("records")
    running = [trial for trial in seen.running if trial.trial_id == trial_id]
    reports = to_pandas(_only(tables["reports"], [trial_id]))
    written = folder.holds(config(trial_id)) if f"{trial_id}.json" in folder.names(CONFIGS) else False
    if not (rows or running or len(reports) or written):
        return None
    plain = (folder.read_json(config(trial_id)) if written else None) or {}
    row: Mapping[str, Any] = rows[0] if rows else {}
    one, place = running[0] if running else None, places(store.manifest.task.arms)
    arm = str([*(trial.arm for trial in running), *(row["arm"] for row in rows), *reports["arm"], plain.get("arm")][0])
    short = _running(one, place) if one else TrialRow(
        trial_id, arm, place.get(arm, 0), str(row.get("stage") or plain.get("stage") or "search"),
        str(row.get("status") or "not ended"), significant(_number(row.get(store.objective().val))),
        significant(_number(row.get(store.objective().test))), _duration(row.get("wall_s")))
    facts = {"arm": arm, "stage": short.stage, "seed": row.get("seed", plain.get("seed")),
             "attempt": one.attempt if one else row.get("attempt"), "time": short.wall if short.wall != "–" else None,
             "host": row.get("host"), "device": row.get("device"), "process": row.get("pid"),
             "parameters of its network": row.get("num_parameters"), "goes on from": row.get("parent"),
             "encoder": row.get("encoder_id"), "skill of its pretraining": _short(row.get("pretext_skill")),
             "time of its pretraining": _duration(row["pretrain_s"]) if _number(row.get("pretrain_s")) else None}
    pictures = _learning(tables["reports"], {trial_id: (arm, "own")}, store, "")
    log, is_named = _log(folder, trial_id, row.get("pid"))
    return TrialView(
        short, tuple((name, str(value)) for name, value in facts.items() if _is_known(value)),
        tuple((name, significant(_number(value))) for name, value in row.items()
              if is_metric(name) and _number(value) is not None),
        _params(store, plain, row), tuple((heading, picture) for heading, picture in pictures if picture is not None),
        _lines(reports), _clean(str(row["error"])) if isinstance(row.get("error"), str) else "", log, is_named,
    )


def _is_known(value: Any) -> bool:
    import pandas as pd

    return pd.isna(value) is not True  # of a list in somebody's file it is an array


def _params(store: Store, plain: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[tuple[str, str, bool], ...]:
    """Its parameters, the searched ones first, of its config or else of its row."""
    given = plain.get("params")
    values = given if isinstance(given, dict) else {
        name: row[name] for name in param_columns(list(row)) if _is_known(row[name])}
    searched = set(store.spec().space)
    rows = [(str(name), f"{value:.6g}" if isinstance(value, float) else str(value), name in searched)
            for name, value in values.items()]
    return tuple(sorted(rows, key=lambda one: not one[2]))


def _lines(reports: pd.DataFrame) -> tuple[str, ...]:
    """Its last reports as lines, as `raymae train` prints them."""
    found = []
    for row in reports.sort_values(["attempt", "step"], kind="stable").tail(REPORT_LINES).to_dict("records"):
        values = {"loss": row["loss"], "lr": row["lr"],
                  **{name: row[name] for name in map(str, row) if is_metric(name) or name in PRETEXT}}
        told = "  ".join(f"{name} {significant(number)}" for name, value in values.items()
                         if (number := _number(value)) is not None)
        epoch = _number(row["epoch"])
        found.append(f"{row['phase']:<8} {'–' if epoch is None else f'{epoch:g}':>4}  {told}")
    return tuple(found)


def _log(folder: Folder, trial_id: str, pid: Any) -> tuple[tuple[str, ...], bool]:
    """The lines of the driver's log that name a trial or its process, or else the last ones."""
    try:
        if not folder.holds(DRIVER_LOG):
            return (), False
        text = folder.tail(DRIVER_LOG, LOG_BYTES).decode(errors="replace")
    except (OSError, ResultsError):
        return (), False
    lines = [_clean(line) for line in text.splitlines()]
    names = [re.compile(rf"(?<![\w-]){re.escape(trial_id)}(?![\w-])")]
    if _is_known(pid):
        names.append(re.compile(rf"pid={int(pid)}(?!\d)"))
    own = [line for line in lines if any(name.search(line) for name in names)]
    return tuple((own or lines)[-LOG_LINES:]), bool(own)


def _clean(text: str) -> str:
    """Text without what a terminal would obey."""
    return "\n".join(_UNSEEN.sub("", line) for line in text.splitlines())
