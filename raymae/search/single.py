"""One trial in the plain process: no Ray, breakpoints work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from raymae.errors import Problem, SpecError, unknown
from raymae.search.plan import example_config, make_plan
from raymae.search.precision import chosen, is_open, settled, step_seconds
from raymae.spec.sweep import SweepSpec
from raymae.train.trial import run_trial


def train_one(spec: SweepSpec, arm: str, *, seed: int | None = None, test: bool = False) -> Iterator[dict[str, Any]]:
    """Train one arm of a sweep and yield plain values per report, with a line for people under `text`.

    Args:
        spec: The sweep.
        arm: One of its arms.
        seed: `search.seed` by default.
        test: Score the test split at the end.

    Raises:
        SpecError: The sweep has no such arm.
        TrialError: Training failed.
    """
    if arm not in spec.arms:
        raise SpecError([Problem("--arm", "", unknown("arm", arm, spec.arms))])
    plan = make_plan(spec)
    config = example_config(plan, arm)
    config = replace(config, seed=config.seed if seed is None else seed, stage="replicate" if test else "search")
    if is_open(plan.arms):
        precision, _ = chosen(step_seconds(config, torch.get_num_threads(), plan.given.get(arm)))
        config = replace(config, params=settled(config.params, precision))
    yield {"config": config.to_json(), "text": "\n".join(f"{k} = {v}" for k, v in sorted(config.params.items()))}
    for report in run_trial(config, given=plan.given.get(arm)):
        metrics = "  ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        yield {
            "phase": report.phase, "epoch": report.epoch, "step": report.step, "metrics": report.metrics,
            "best": report.best, "seconds": report.seconds,
            "text": f"{report.phase} {report.epoch:>3}  {metrics}  ({report.seconds:.1f} s)",
        }
