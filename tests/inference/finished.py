"""Whole sweeps in this process, without Ray: the real conductor, the real loop of a worker, one trial after another."""

from __future__ import annotations

from pathlib import Path

from raymae.results.store.store import Store
from raymae.results.verdict.judge import conclude
from raymae.search.decide.conductor import Conductor
from raymae.search.decide.resume import restore
from raymae.search.engine.workers import run_job
from raymae.search.plan import make_plan
from raymae.search.run import _encoders, _leave_best
from raymae.spec.load import parse_sweep
from raymae.tasks import schema_of

DATA = {"forecasting": "ETTh1", "classification": "tiny-imagenet-mini", "segmentation": "CamVid",
        "volumes": "Hippocampus", "imputation": "california-housing", "prediction": "california-housing"}
TEXT = """
name: small
task: {task}
size: debug
data: {{name: {data}, if_unavailable: {if_unavailable}}}
arms: {arms}
search: {{num_trials: 1, scheduler: none}}
training: {{epochs: {epochs}}}
replicates: {replicates}
"""


def text_of(
    task: str, *, arms: str = "[mae]", if_unavailable: str = "synthetic", epochs: int = 2, replicates: int = 2
) -> str:
    """A sweep of debug size over a task."""
    return TEXT.format(task=task, data=DATA[task], arms=arms, if_unavailable=if_unavailable, epochs=epochs,
                       replicates=replicates)


def finished(folder: Path, text: str, *options: str, extend: bool = False) -> Store:
    """Run a sweep to its end below a folder, or go on with the one there."""
    spec = parse_sweep(text, "small.yaml", [f"results={folder}", *options], schema_of=schema_of)
    plan = make_plan(spec)
    store = Store.create(
        Store.root_of(spec), spec, plan.schema, environment={}, extend=extend,
        data={"name": plan.data.name, "source": plan.data.source, "fingerprint": plan.data.fingerprint})
    with store:
        conductor = Conductor(spec, plan.arms, plan.schema.objective, store, source=plan.data.source, slots=1,
                              encoders=_encoders(plan, store), extended=extend)
        restore(conductor)
        while (trial := conductor.next()) is not None:
            for message in run_job(conductor.job(trial)):
                conductor.on_report(trial, message)
            conductor.on_end(trial)
        conductor.close()
        verdict = conclude(store)
        if spec.keep == "best":
            _leave_best(store, verdict, conductor)
    return Store.open(Store.root_of(spec))
