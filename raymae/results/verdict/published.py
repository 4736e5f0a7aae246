"""What the report that this project started from found (DSA5204 group 5, April 2024), as data beside our results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Published(NamedTuple):
    """One number of the report.

    Attributes:
        task: The task it belongs to.
        arm: This project's arm that stands for the report's.
        metric: What was measured, on the test split.
        value: The number, shares as fractions.
        data: The report's data set.
        note: What has to be known about it.
    """

    task: str
    arm: str
    metric: str
    value: float
    data: str
    note: str = ""


REPORT = (
    Published("classification", "mae", "top1", 0.456, "Tiny ImageNet", "200 classes, ViT-B"),
    Published("classification", "scratch", "top1", 0.377, "Tiny ImageNet", "200 classes, ViT-B"),
    Published("forecasting", "mae", "mse", 0.07546, "ETTh1", "best of three mask ratios"),
    Published("forecasting", "scratch", "mse", 0.01538, "ETTh1"),
    Published("forecasting", "rnn", "mse", 0.00072, "ETTh1"),
    Published("forecasting", "lstm", "mse", 0.00071, "ETTh1"),
    Published("forecasting", "gru", "mse", 0.00071, "ETTh1"),
    Published("segmentation", "mae", "miou", 0.288, "ADE20K"),
    Published("segmentation", "scratch", "miou", 0.280, "ADE20K"),
    Published("volumes", "mae", "dice", 0.7712, "BTCV"),
    Published("volumes", "scratch", "dice", 0.7548, "BTCV"),
    Published("imputation", "report_mae", "mse", 0.5171, "California Housing", "not on the baseline's scale"),
    Published("imputation", "mae", "mse", 0.5171, "California Housing", "not on the baseline's scale"),
    Published("imputation", "autoencoder", "mse", 0.0093, "California Housing", "the report's baseline imputer"),
)

_SAME_PROTOCOL: Mapping[str, Mapping[str, Any]] = {"forecasting": {"protocol": "report", "horizon": 1}}


def published(task: str, arm: str, metric: str, settings: Mapping[str, Any]) -> Published | None:
    """The report's number for an arm, of the same metric where it has one; None where it measured something else.

    Args:
        task: The task.
        arm: The arm.
        metric: The metric one would like.
        settings: The sweep's own settings: forecasts over other horizons are not what the report made.
    """
    if any(settings.get(name, value) != value for name, value in _SAME_PROTOCOL.get(task, {}).items()):
        return None
    found = [one for one in REPORT if (one.task, one.arm) == (task, arm)]
    return next((one for one in found if one.metric == metric), found[0] if found else None)
