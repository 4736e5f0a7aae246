"""The sweep file as typed models: which task, which arms, which space, which budget."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, PrivateAttr, Tag, field_validator, model_validator

from raymae.errors import shorten
from raymae.spec.bisect import AskedFactors, BisectSpec
from raymae.spec.limits import BudgetSpec, ResourceSpec
from raymae.spec.names import as_text
from raymae.spec.read import Tree
from raymae.spec.record import RecordSpec
from raymae.spec.space import Distribution, Model, Scalar
from raymae.spec.task import TrainingParams

SERIES_KEYS = ("date_format", "timezone", "fill", "group")  # of `Reading`: of a series alone, the others of a table too


class Reading(Model):
    """How a file of series or of a table is read; what is not given is found out where the file leaves no doubt."""

    separator: str | None = Field(None, min_length=1, max_length=1, description="Between cells of a text file, such as "
                                  "`;`; a blank stands for any white space. Found out by default.")
    decimal: Literal[".", ","] | None = Field(None, description="In numbers of a text file. Found out by default.")
    encoding: str | None = Field(None, description="Of a text file, such as latin-1 or cp1252; UTF-8 by default.")
    missing: tuple[str, ...] = Field((), description="Words that stand for a missing cell, beside the usual ones.")
    not_missing: tuple[str, ...] = Field((), description="Usual words for a missing cell that are values here, such as "
                                         "NA for Namibia.")
    date_format: str | None = Field(None, min_length=1, description="Of a series' dates, as for strptime: %d/%m/%Y "
                                    "%H:%M. Found out by default, where day and month cannot be mistaken.")
    timezone: str | None = Field(None, description="Whose local time a series' dates are, such as Europe/Oslo: hours "
                                 "that summer time leaves out or repeats are then no gaps.")
    fill: Literal["interpolate", "last"] | None = Field(
        None, description="What stands for a series' missing cells, for every arm: a line between the cells before and "
        "after, which looks ahead, or the cell before. By default they stay missing: never forecast, in no loss, and "
        "networks see that they are."
    )
    group: str | None = Field(None, min_length=1, description="Column that says which of several series a row of one "
                              "long file is of. Each has dates of its own and is split in time by itself.")
    columns: tuple[str, ...] = Field((), description="The only columns that are read.")
    drop: tuple[str, ...] = Field((), description="Columns that are left out, such as an identifier.")

    @field_validator("missing", "not_missing", "columns", "drop", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        items = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in items):
            raise ValueError(f"must be a list of text, got {shorten(value)}; put quotes around each")
        return tuple(map(str, items))  # -999 stands for a missing cell in many files

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except (LookupError, ValueError):
            raise ValueError(f"must be an encoding that Python knows, such as latin-1, got {value!r}") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _on_earth(cls, value: str | None) -> str | None:
        try:
            zoneinfo.ZoneInfo(value or "UTC")
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"must be a time zone such as Europe/Oslo, got {value!r}") from None
        return value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        both = set(self.columns) & set(self.drop)
        if both:
            raise ValueError(f"columns and drop both name {min(both)!r}; name it once")
        return self

    def given(self) -> Tree:
        """What a sweep file says of reading, as plain values; empty where it says nothing."""
        return {key: value for key, value in self.model_dump(mode="json", include={*Reading.model_fields}).items()
                if value not in (None, [])}


class DataSpec(Reading):
    """Which data set, where to look for it, and how it is read."""

    name: str = Field(description="A name from `raymae data list`, or any name for your own file under `path`.")
    path: str | None = Field(None, description="Your own file or folder. Relative paths are taken from the sweep file; "
                             "a URI such as s3://bucket/file.csv is copied once to every machine.")
    root: str | None = Field(
        None, description="Folder or URI to look in first; then $RAYMAE_DATA, the user cache, a download."
    )
    if_unavailable: Literal["error", "synthetic"] = Field(
        "error", description="`synthetic`: where the data cannot be had, run on a generated stand-in and say so."
    )

    def reading(self) -> Reading:
        """How the file is read, without where it lies."""
        return Reading(**self.given())


class CorpusSpec(DataSpec):
    """Data without labels to pretrain on."""

    name: str = Field("", description="A name from `raymae data list`; beside `path` any name, by default that of the "
                      "file or folder.")
    if_unavailable: Literal["error"] = Field("error", description="Nothing stands in for a corpus.")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("name"):
            return value
        if not isinstance(value.get("path"), str):
            raise ValueError("needs a name from `raymae data list`, or a path")
        return {**value, "name": value["path"].rstrip("/").rpartition("/")[2] or value["path"]}


class PretrainingSpec(Model):
    """What the pretrained arms pretrain on."""

    data: list[CorpusSpec] = Field(
        default_factory=list, description="More data, without its labels: a name or a path each. Nothing of the "
        "sweep's own validation and test splits is taken from it."
    )
    own: bool = Field(True, description="The sweep's own training split as well.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.own and not self.data:
            raise ValueError("own: false leaves nothing to pretrain on; name data")
        return self

    def given(self) -> Tree:
        """What determines the result of pretraining on it, wherever it lies, as plain values; empty by default."""
        data = [{"name": corpus.name, **corpus.given()} for corpus in self.data]
        return {"own": self.own, "data": data} if data else {}


class SearchSpec(Model):
    """How configurations are proposed and which trials are ended early."""

    algorithm: Literal["tpe", "gp", "cmaes", "qmc", "random", "grid"] = "tpe"
    num_trials: int = Field(16, ge=1, le=100_000, description="Trials per arm. Every arm gets the same number.")
    finetunes_per_encoder: int = Field(
        1, ge=1, le=1000, description="Search trials of a pretrained arm that start from one encoder: what pretraining "
        "reads is proposed once for so many fine-tunings. Arms get the same number of trials whatever it is."
    )
    scheduler: Literal["asha", "hyperband", "median", "pbt", "none"] = Field(
        "asha", description="Ends trials early. hyperband is the asynchronous one: asha with several brackets. pbt is "
        "population-based training: the worst trials make way for changed copies of the best."
    )
    grace_epochs: int = Field(
        2, ge=1, description="Fine-tuning epochs before a trial can be ended early; with pbt, between two comparisons."
    )
    cost: Literal["wall_s", "num_parameters"] | None = Field(
        None, description="Search for cheap configurations too: the verdict then lists the Pareto front of metric and "
        "cost. Early stopping and replicates go by the metric."
    )
    reduction_factor: float = Field(3.0, gt=1, description="asha: about one in so many trials goes on at each rung.")
    max_concurrent: int | None = Field(None, ge=1, description="Trials at once; null is as many as the resources hold.")
    seed: int = Field(0, ge=0, le=10**12, description="Seed of the search. Trial k of every arm, counted from 0, is "
                      "trained on seed 1000 * seed + k; a trial of a population that goes on from another keeps that "
                      "one's.")
    points: list[dict[str, Scalar]] = Field(
        default_factory=list, description="Configurations to begin with, such as [{lr: 1e-3}]: each arm tries what it "
        "searches of them, in this order, before the search proposes any; what they leave open is proposed."
    )
    finalists: int = Field(
        1, ge=1, le=100, description="The best so many configurations of each arm's search are run again on more "
        "validation seeds, and the best mean is chosen; 1 chooses by the search's own seed, which flatters its best."
    )
    min_skill: float | None = Field(
        None, lt=1, description="Of an arm that pretrains, a configuration is chosen only if its pretraining's skill "
        "is above this: 0 for pretrainings that learned, even where another one scores better on validation. Without "
        "such a one the best is chosen all the same, and the verdict says that it did not learn."
    )
    finalist_seeds: int = Field(2, ge=1, le=100, description="More seeds of each finalist, the same for every arm.")
    at: dict[str, Scalar] = Field(
        default_factory=dict, description="The cell of the factors that is searched, such as {label_fraction: 0.1}: "
        "each arm's best configuration there is replicated in every cell. By default every cell is searched by itself."
    )
    warm_start: list[str] = Field(
        default_factory=list, description="Results folders of earlier sweeps whose trials the search learns from."
    )

    @model_validator(mode="after")
    def _one_objective(self) -> SearchSpec:
        if self.cost is not None and self.algorithm == "cmaes":
            raise ValueError("cmaes searches for one objective; with cost use tpe, gp, qmc, random or grid")
        return self

    def num_finals(self, num_trials: int) -> int:
        """Finals of an arm that has so many search trials: none where there is nothing to choose from."""
        number = min(self.finalists, num_trials)
        return number * self.finalist_seeds if number > 1 else 0


class FairSpec(Model):
    """What the trained arms get as much of as the pretrained arm, so that pretraining is not merely more training."""

    by: Literal["epochs", "steps", "compute"] = Field(
        "epochs", description="epochs: every arm fine-tunes for the same epochs, and pretraining comes on top. steps: "
        "trained arms get as many optimiser steps as the pretrained arm has in both phases. compute: as much time as "
        "it takes in both phases, measured on this machine before the search and written to sweep.json."
    )


class RoundsSpec(Model):
    """Replicates in rounds, until the primary comparison is decided."""

    min: int = Field(5, ge=2, description="Replicates of the first round, and of each one after it.")
    max: int = Field(40, ge=2, le=10_000, description="Replicates after which the comparison stays undecided.")
    until: Literal["decided"] = Field(
        "decided", description="Intervals then are a confidence sequence, which holds at every look."
    )

    @model_validator(mode="after")
    def _in_order(self) -> RoundsSpec:
        if self.max < self.min:
            raise ValueError(f"max must be at least min, got min {self.min} and max {self.max}")
        return self


Replicates = Annotated[
    Annotated[int, Field(ge=0, le=10_000), Tag("number")] | Annotated[RoundsSpec, Tag("rounds")],
    Discriminator(lambda value: "rounds" if isinstance(value, (Mapping, RoundsSpec)) else "number"),
]


class SweepSpec(Model):
    """A sweep: the search over every arm's configurations, and the comparison of the best ones."""

    model_config = ConfigDict(populate_by_name=False)
    _opened: tuple[float, ...] = PrivateAttr(())

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Names the results folder: letters, digits, dot, dash, underscore.",
    )
    task: str = Field(description="A name from the task registry, such as `forecasting`.")
    size: str | None = Field(None, description="A named preset of the task's parameters, such as `debug`.")
    data: DataSpec
    pretraining: PretrainingSpec = Field(default_factory=PretrainingSpec)
    settings: dict[str, Scalar] = Field(
        default_factory=dict, description="Fixed values of the task's own parameters: protocol, horizon, widths. A "
        "list of names, such as of columns, may stand for the text that names them, separated by commas."
    )
    arms: dict[str, dict[str, Scalar]] = Field(
        min_length=1, description="The arms: a list of names, or a mapping from name to values fixed for that arm."
    )
    asked_factors: AskedFactors = Field(
        default_factory=dict, alias="factors", description="Parameters whose values the arms are compared at, such as "
        "{label_fraction: [0.02, 0.1, 1]}: every combination is a cell with trials, replicates and an answer of its "
        "own. {label_fraction: {bisect: [0.02, 1]}} looks for the value at which the answer changes."
    )
    space: dict[str, Distribution] = Field(default_factory=dict, description="The searched parameters.")
    constraints: list[str] = Field(
        default_factory=list,
        description="Expressions over parameters that every trial satisfies, such as `lookback >= 8 * patch_size`.",
    )
    search: SearchSpec = Field(default_factory=SearchSpec)
    training: TrainingParams = Field(
        default_factory=TrainingParams, description="Fixed values of the training parameters."
    )
    replicates: Replicates = Field(
        5, description="Fresh seeds on which each arm's best configuration is re-trained: a number, fixed before the "
        "first test score, or {min: 5, max: 40, until: decided} for rounds of them."
    )
    keep: Literal["replicates", "best", "none"] = Field(
        "replicates", description="Models that are left in the results folder: of each trained arm every replicate's "
        "network as it was scored, or only that of the replicate which is best on validation, or none."
    )
    fair: FairSpec = Field(default_factory=FairSpec)
    compare: Literal["independent", "paired"] = Field(
        "independent", description="Whether replicates of equal seed are paired (they share the labelled subset and "
        "the order of data) or the arms' replicates count as independent."
    )
    margin: float | None = Field(
        None, gt=0, description="Largest difference of the objective that does not matter to you: an arm within it is "
        "`practically equal`."
    )
    resources: ResourceSpec = Field(default_factory=ResourceSpec)
    budget: BudgetSpec = Field(default_factory=BudgetSpec)
    results: str = Field("results", description="Folder under which `<name>/` is written.")
    encoders: str | None = Field(
        None, min_length=1, description="Folder or URI of pretrained encoders that several sweeps share; by default "
        "each sweep keeps its own, in its results folder."
    )
    notify: list[str] = Field(
        default_factory=list, description="Whom to tell at the end, of warnings, and when nine tenths of a budget are "
        "spent: URLs of apprise's, such as `mailto://…` or `${SLACK_URL}`, a variable of the environment."
    )
    record: RecordSpec = Field(
        default_factory=RecordSpec, description="Where else every trial is recorded as it goes: [mlflow], [wandb], or "
        "a mapping that says where, such as {mlflow: {uri: http://host:5000}}. The results folder has it all anyway."
    )

    @field_validator("settings", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: as_text(item) for key, item in value.items()}

    @field_validator("arms", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            names = [item for item in value if isinstance(item, str)]
            if len(names) < len(value):
                raise ValueError(f"a list of arms holds names only, got {list(value)!r}")
            if len(set(names)) < len(names):
                raise ValueError(f"an arm is named twice: {names}")
            return {name: {} for name in names}
        if isinstance(value, Mapping):
            return {key: {} if item is None else item for key, item in value.items()}
        return value

    @property
    def factors(self) -> dict[str, list[Scalar]]:
        """The values of each factor; of one that is bisected those whose cells are open, in order."""
        return {name: one.values(self._opened) if isinstance(one, BisectSpec) else one
                for name, one in self.asked_factors.items()}

    @property
    def bisected(self) -> tuple[str, BisectSpec] | None:
        """The factor that is bisected, and how; None where none is."""
        return next(((name, one) for name, one in self.asked_factors.items() if isinstance(one, BisectSpec)), None)

    def with_opened(self, opened: Sequence[float]) -> Self:
        """The same sweep with the cells that were opened between the ends of the factor that is bisected."""
        wider = self.model_copy()
        wider._opened = tuple(opened)
        return wider

    @property
    def num_replicates(self) -> int:
        """Replicates that every sweep like this has: all of them, or those of the first round."""
        return self.replicates if isinstance(self.replicates, int) else self.replicates.min

    @property
    def most_replicates(self) -> int:
        """Replicates that it may come to have."""
        return self.replicates if isinstance(self.replicates, int) else self.replicates.max

    @field_validator("results")
    @classmethod
    def _some_folder(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must name a folder, such as `results`")
        return value

    def to_json(self) -> Tree:
        """Plain values that load back to an equal spec; training holds only what the file fixed."""
        plain = self.model_dump(mode="json", by_alias=True)
        plain["training"] = self.training.model_dump(mode="json", exclude_unset=True)
        return plain
