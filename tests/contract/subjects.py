"""Every registered task, on synthetic data and, where it has any and the machine holds it, on real data."""

from __future__ import annotations

from collections.abc import Callable

from raymae.contract import Subject
from raymae.tasks import TASKS

REAL_NAMES = {  # the small real data set that a task is tested on as well
    "forecasting": "ETTh1", "classification": "tiny-imagenet-mini", "segmentation": "CamVid",
    "imputation": "california-housing", "prediction": "california-housing",
}
SOURCES = [*((name, "synthetic") for name in TASKS), *((name, "real") for name in REAL_NAMES)]
MakeSubject = Callable[..., Subject]
