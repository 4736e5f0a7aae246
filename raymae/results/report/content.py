"""What a report says, collected from a sweep's folder once for the page and for the Markdown."""

from __future__ import annotations

import base64
import json
import shlex
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymae.errors import ModelError
from raymae.results.report import figures, intervals
from raymae.results.report.figure import curves_figure
from raymae.results.report.pretraining import encoder_trials, with_pretraining
from raymae.results.store.columns import last_attempts
from raymae.results.store.folder import Folder
from raymae.results.store.layout import PICTURES, picture_name
from raymae.results.store.manifest import Manifest
from raymae.results.store.store import Store
from raymae.results.verdict.cells import counted, rows_by_cell
from raymae.results.verdict.effects import Explanation
from raymae.results.verdict.headline import headline, synthetic
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.matrix import Matrix, matrix
from raymae.results.verdict.verdict import TrialCounts, Verdict
from raymae.results.verdict.where import Where, where
from raymae.results.views.models import Use, models_of, uses
from raymae.spec import SweepSpec

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

Importance = Mapping[str, Mapping[str, float]]

MAX_FAILURES = 200
MAX_PICTURES, PICTURE_BYTES = 24, 3_000_000


@dataclass(frozen=True)
class Failure:
    """A trial that failed, and why."""

    trial_id: str
    arm: str
    error: str


@dataclass(frozen=True)
class Picture:
    """What an arm's best configuration does, as a PNG in base64.

    Attributes:
        width: In pixels, as `height`: a page that knows both keeps the place of what has not loaded.
    """

    arm: str
    trial_id: str
    data: str
    width: int
    height: int


@dataclass(frozen=True)
class ReportContent:
    """Everything that the page and the Markdown show.

    Attributes:
        verdict: The verdict, the written one or that of now.
        headline: It in one sentence.
        synthetic: The warning of synthetic data, or nothing.
        about: From arm to a line about it.
        places: From arm to its place in the task, which decides its colour.
        differences: Differences between arms around 0.
        scores: Test scores of the arms.
        num_trials: Trials by status, each once.
        failed: The failed trials, at most so many.
        environment: What it ran on.
        created_at: When the sweep was created.
        version: The raymae that wrote the folder.
        command: What to type for the same sweep again; empty if it was not kept.
        importance: From arm to parameter to its share; None where nobody computed it.
        importance_missing: Of which arms it is missing and why; empty where it is not.
        explanation: For which settings it helps; None where nobody computed it.
        where: Where on the test set the first arm of the primary comparison wins; None without scores by example.
        pictures: From what they show to the arms' pictures of it, arms best first.
        models: How the kept model of each arm is used, arms best first; empty where none is kept.
        spec: The sweep as it was resolved, as JSON.
        plots: Columns and curves that the page draws.
        matrix: All cells of a sweep with factors; None of one without. What is said by arm is then of one of them.
        curve: Their scores against a numeric factor, as an SVG in base64; "" where there is none.
    """

    verdict: Verdict
    headline: str
    synthetic: str
    about: Mapping[str, str]
    places: Mapping[str, int]
    differences: intervals.Panel
    scores: intervals.Panel
    num_trials: TrialCounts
    failed: tuple[Failure, ...]
    environment: Mapping[str, Any]
    created_at: str
    version: str
    command: str
    importance: Importance | None
    importance_missing: str
    explanation: Explanation | None
    where: Where | None
    pictures: Mapping[str, tuple[Picture, ...]]
    models: tuple[Use, ...]
    spec: str
    plots: Mapping[str, object]
    matrix: Matrix | None = None
    curve: str = ""


def collect(
    store: Store, importance: Importance | None = None, explanation: Explanation | None = None
) -> ReportContent:
    """Everything that the page and the Markdown show.

    Args:
        store: The sweep.
        importance: From arm to parameter to its share; None where nobody computed it.
        explanation: For which settings it helps; None likewise.

    Raises:
        ResultsError: The storage failed.
    """
    objective, spec, trials, manifest = store.objective(), store.spec(), store.trials(), store.manifest
    verdict = verdict_now(store, trials)
    last = last_attempts(trials).sort_index()  # in the order in which they ended
    here = _of_the_cell(trials, verdict, spec, manifest)
    search, all_search = (rows[rows["stage"] == "search"] for rows in (last_attempts(here).sort_index(), here))
    params = figures.searched(spec, search)
    failed = last[last["status"] == "failed"]
    places = intervals.places(manifest.task.arms)
    differences = intervals.cells_panel(verdict, words=False) if verdict.cells else intervals.differences_panel(verdict)
    scores = intervals.arms_panel(verdict)
    curve = curves_figure(verdict, list(manifest.task.arms))
    return ReportContent(
        verdict=verdict,
        headline=headline(verdict),
        synthetic=synthetic(verdict.data.name, verdict.data.source),
        about={name: arm.about for name, arm in manifest.task.arms.items()},
        places=places,
        differences=differences,
        scores=scores,
        num_trials=TrialCounts.of(last[last["stage"] != "pretrain"]["status"]),
        failed=tuple(Failure(row["trial_id"], row["arm"], str(row["error"] or "no reason kept"))
                     for row in failed.head(MAX_FAILURES).to_dict("records")),
        environment=store.environment(),
        created_at=manifest.created_at,
        version=manifest.raymae_version,
        command=_command(store),
        importance=importance,
        importance_missing=_importance_missing(verdict, importance, search),
        explanation=explanation,
        where=where(verdict, store.scores(counted(trials, spec, manifest))),
        pictures=_pictures(store, verdict, last_attempts(here)),
        models=_models(store, verdict, trials),
        matrix=matrix(verdict),
        curve=base64.b64encode(curve.encode()).decode(),
        spec=json.dumps(manifest.spec, indent=1, ensure_ascii=False),
        plots={
            "metric": objective.metric, "mode": objective.mode, "params": params, "places": places,
            "palette": {"light": intervals.LIGHT, "dark": intervals.DARK},
            "order": [arm.arm for arm in verdict.arms], "differences": differences, "arms": scores,
            "pareto": verdict.pareto,
            "effects": figures.effects(explanation),
            "references": {arm.arm: figures.short(arm.val.score) for arm in verdict.arms
                           if arm.kind == "reference" and arm.val.score is not None},
            "trials": figures.trial_columns(
                last[last["stage"] != "pretrain"], objective,
                list(dict.fromkeys([*spec.factors, *(param.name for param in params)]))),
            "responses": figures.responses(search, params, objective),
            "scored": figures.scored(search, objective),
            "progress": figures.progress(all_search, objective),
            "learning": figures.learning(search, with_pretraining(store.reports(), last), objective),
        },
    )


def _models(store: Store, verdict: Verdict, trials: pd.DataFrame) -> tuple[Use, ...]:
    try:
        return uses(models_of(store, verdict, trials))
    except ModelError:  # their folder cannot be listed: a report without models is better than none
        return ()


def _of_the_cell(trials: pd.DataFrame, verdict: Verdict, spec: SweepSpec, manifest: Manifest) -> pd.DataFrame:
    """The rows of the cell that a verdict shows by arm; all where there are no cells."""
    return next((rows.trials for rows in rows_by_cell(trials, spec, manifest) if rows.cell == verdict.cell), trials)


def _command(store: Store) -> str:
    """What to type for the same sweep again."""
    command = [str(word) for word in store.environment().get("command", [])]
    return shlex.join(["raymae", *command[1:]]) if command else ""


def _importance_missing(verdict: Verdict, importance: Importance | None, search: pd.DataFrame) -> str:
    """Which arms have no importance of their parameters, and what they lack."""
    if importance is None:
        return "Computed by `raymae report`, which writes this page to the sweep's folder."
    scored = figures.scored(search, verdict.objective)
    short = [f"{arm.arm} has {scored.get(arm.arm, 0)}" for arm in verdict.arms
             if arm.kind != "reference" and arm.arm not in importance]
    if not short:
        return ""
    state = "Arms are missing" if importance else "Not computed"
    return (f"{state}: it takes {figures.WEIGHED} search trials of an arm in which a parameter was searched; "
            f"so far {', '.join(short)}.")


def _pictures(store: Store, verdict: Verdict, last: pd.DataFrame) -> dict[str, tuple[Picture, ...]]:
    """By what they show, each arm's picture: that of its first replicate that has any."""
    folder, left, taken = Folder(store.root), PICTURE_BYTES, 0
    pictures: dict[str, list[Picture]] = {}
    names = folder.names(PICTURES)
    replicates = last[last["stage"] == "replicate"]
    for arm in verdict.arms:
        encoders = encoder_trials(last[last["arm"] == arm.arm])
        for trial in sorted(replicates[replicates["arm"] == arm.arm]["trial_id"]):
            own = {name: shows for name in names for one in (encoders.get(trial), trial)
                   if one and (shows := picture_name(name, one))}
            for name, shows in own.items():
                data = folder.read(f"{PICTURES}/{name}")
                if taken == MAX_PICTURES or len(data) > left:
                    continue
                left, taken = left - len(data), taken + 1
                width, height = struct.unpack(">II", data[16:24].ljust(8, b"\0"))  # of a PNG's first chunk
                pictures.setdefault(shows, []).append(
                    Picture(arm.arm, trial, base64.b64encode(data).decode(), width, height))
            if own:
                break
    # what several arms have comes first: they are there to be compared
    ranked = sorted(pictures.items(), key=lambda item: -len(item[1]))
    return {shows: tuple(arms) for shows, arms in ranked}
