"""What a sweep file limits: the resources of a trial, and the budget of the whole sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, Field, Tag, field_validator

from raymae.spec.space import Model


class ResourceSpec(Model):
    """What one trial gets. Fractions of a device are shares of it."""

    workers: int = Field(1, ge=1, le=10_000, description="Ray Train workers per trial.")
    cpus_per_worker: float = Field(1.0, ge=0.001)
    gpus_per_worker: float = Field(0.0, ge=0)
    report_timeout_s: float | None = Field(
        None, gt=0, description="A trial whose next report takes longer is failed and its workers are replaced."
    )
    checkpoint_minutes: float = Field(
        10.0, ge=0, description="Inside an epoch a trial's state is written after so many minutes, and a trial that "
        "has to leave its machine does so; 0 does both at reports alone. It changes no result."
    )
    recycle_after: int = Field(0, ge=0, description="Replace a group's workers after so many trials; 0 is never.")
    priority: int = Field(
        0, ge=-100, le=100, description="On a cluster that several sweeps share: those of lower priority give this one "
        "the places it can use, each at its trial's next report or inside a long epoch, and go on when it ends."
    )

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if 0 < value < 0.001:
            raise ValueError(f"must be 0 or at least 0.001, got {value}")
        if value > 1 and value != int(value):
            raise ValueError(f"must be a fraction below 1 or a whole number of GPUs, got {value}")
        return value


PriceSpec = Annotated[
    Annotated[float, Field(gt=0), Tag("number")]
    | Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1), Tag("by_type")],
    Discriminator(lambda value: "by_type" if isinstance(value, Mapping) else "number"),
]


class BudgetSpec(Model):
    """When to stop. The limit includes the replicates and the verdict."""

    wall_minutes: float | None = Field(None, gt=0, description="Wall time of the whole sweep; null is no limit.")
    num_trials: int | None = Field(None, ge=1, description="Search trials over all arms; null is arms x num_trials.")
    target: float | None = Field(
        None, description="The search ends once every arm that trains has a completed trial whose validation score is "
        "as good; arms keep equal numbers of trials."
    )
    patience_trials: int | None = Field(
        None, ge=1, description="The search ends once every arm that trains has had so many trials without a better "
        "score; with a target, either will do. Arms keep equal numbers of trials."
    )
    gpu_hours: float | None = Field(None, gt=0, description="GPU time of all trials together.")
    dollars: float | None = Field(None, gt=0, description="Price of the whole sweep. On this machine it needs "
                                  "price_per_node_hour; on a cluster the nodes that are up are charged.")
    price_per_node_hour: PriceSpec | None = Field(
        None, description="What a node costs for an hour, in dollars: one number, or by type of node, such as {head: "
        "0.2, gpu_spot: 0.4}. By default a cluster's machines cost what `raymae cluster prices` says, on demand."
    )
