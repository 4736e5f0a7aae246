"""A finished sweep, as far as its encoder goes: one trained replicate on record, without Ray."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from raymae.inference.encoders import EncoderShelf
from raymae.results.store.layout import ENCODERS
from raymae.results.store.store import Store
from raymae.search.decide.trials import Trial
from raymae.spec.encoder import EncoderRef, encoder_id, pretraining_of
from raymae.spec.load import parse_sweep
from raymae.spec.resolve import arm_plan, trial_config
from raymae.tasks import schema_of
from raymae.train.trial import run_trial

FINGERPRINT = "sha256:made"
SWEEP = """
name: source
task: {task}
size: debug
data: {{name: {data}, if_unavailable: synthetic}}
arms: [mae, scratch]
settings: {settings}
replicates: 2
"""


def finished(root: Path, task: str, data: str, settings: str = "{}") -> Store:
    """Pretrain once, and leave a store whose replicate started from that encoder."""
    torch.set_num_threads(1)
    spec = parse_sweep(SWEEP.format(task=task, data=data, settings=settings), "here", schema_of=schema_of)
    spec, schema = spec.model_copy(update={"results": str(root)}), schema_of(task)
    config = trial_config(spec, arm_plan(spec, schema, "mae"), {}, seed=1, stage="replicate", source="synthetic")
    pretraining = pretraining_of(config, schema)
    assert pretraining is not None
    ref = EncoderRef(encoder_id(pretraining, FINGERPRINT), str(root / "source" / ENCODERS), FINGERPRINT)
    store = Store.create(Store.root_of(spec), spec, schema, environment={},
                         data={"name": data, "source": "synthetic", "fingerprint": FINGERPRINT})
    with store:
        for report in run_trial(pretraining):
            if report.final:
                EncoderShelf(ref.shelf).keep(ref, pretraining, report)
        now = datetime.now(UTC)
        trial = Trial("mae-r0000", config, {}, 0.0, now, status="completed", encoder_id=ref.encoder_id,
                      best={schema.objective.val: 0.5})
        store.add_trial(trial.row(now))
    return Store.open(store.root)


@pytest.fixture(scope="session")
def series(tmp_path_factory: Any) -> Store:
    """Of a network that is no vision transformer of images."""
    return finished(tmp_path_factory.mktemp("series"), "forecasting", "ETTh1")


@pytest.fixture(scope="session")
def images(tmp_path_factory: Any) -> Store:
    """Of a vision transformer on images."""
    return finished(tmp_path_factory.mktemp("images"), "classification", "tiny-imagenet",
                    "{encoder_depth: 2, per_class: 4, num_classes: 3}")
