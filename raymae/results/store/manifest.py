"""What `sweep.json` holds: all that a reader of results has to know about a sweep and its task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal

from raymae.errors import ResultsError, shorten, unknown
from raymae.results.store.columns import KINDS, LATER, fixed_columns
from raymae.results.store.layout import REPORTS
from raymae.spec import Arm, Objective, SweepSpec
from raymae.spec.read import Tree
from raymae.spec.task import Published

Precision = Literal["float32", "bfloat16"]

_OLD_PRIMARY = ("mae", "scratch")
"""The comparison that every task was about before a task could say so itself."""


@dataclass(frozen=True)
class SweepData:
    """The data set of a sweep.

    Attributes:
        name: Its name.
        source: `real`, or `synthetic` for a generated stand-in.
        fingerprint: Differs where the data differs.
    """

    name: str
    source: Literal["real", "synthetic"]
    fingerprint: str


@dataclass(frozen=True)
class SweepTask:
    """What a reader of results has to know about their task, so that it need not import it.

    Attributes:
        name: Its name.
        objective: What is selected on.
        metrics: Names of all its metrics, without prefix.
        arms: All its arms by name, in its order.
        primary: The two arms whose difference the task is about, or None.
        published: By arm, what others have published for it.
    """

    name: str
    objective: Objective
    metrics: tuple[str, ...]
    arms: Mapping[str, Arm]
    primary: tuple[str, str] | None
    published: Mapping[str, tuple[Published, ...]]

    def published_for(self, arm: str, settings: Mapping[str, object]) -> Published | None:
        """The number published for an arm, of the objective where there is one.

        Args:
            arm: The arm.
            settings: The sweep's own settings: other settings make it another problem.
        """
        numbers = [number for number in self.published.get(arm, ())
                   if all(settings.get(name, value) == value for name, value in number.settings.items())]
        return min(numbers, key=lambda number: number.metric != self.objective.metric, default=None)


@dataclass(frozen=True)
class Manifest:
    """The contents of `sweep.json`: all that a reader needs without importing the task.

    Attributes:
        raymae_version: The version that wrote it last.
        created_at: When the sweep was started first, ISO, UTC.
        spec: The resolved sweep file, as plain values.
        data: The data that was found.
        task: The task.
        columns: From dataset to column to its type.
        times_epochs: By trained arm how many times the epochs it gets, so that arms are equal in what `fair` says;
            None until that was measured.
        epoch_costs: By arm what an epoch of its fine-tuning costs in that: seconds, or steps.
        precision: What is computed in where the sweep file says `auto`; None where it does not, or not yet.
        looked_before: Replicates were asked for after a verdict had been written, without a rule for that.
        pretrains_on: What pretraining sees where that is not the training split alone, and what was left out; or "".
        factors: By arm the factors of the sweep that it has; empty where the sweep has none.
        opened: Values of the factor that is bisected whose cells were opened, in the order in which they were.
        may_open: Those whose cells may come to be opened: the rules of the task, which a reader need not import, admit
            them.
    """

    raymae_version: str
    created_at: str
    spec: Mapping[str, Any]
    data: SweepData
    task: SweepTask
    columns: Mapping[str, Mapping[str, str]]
    times_epochs: Mapping[str, float] | None = None
    epoch_costs: Mapping[str, float] = field(default_factory=dict)
    precision: Precision | None = None
    looked_before: bool = False
    pretrains_on: str = ""
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    opened: tuple[int | float, ...] = ()
    may_open: tuple[int | float, ...] = ()

    def shared(self, dataset: str) -> dict[str, object]:
        """The columns that have the same value in every row of a dataset."""
        row: dict[str, object] = {"sweep": self.spec["name"], "data_source": self.data.source}
        return row if dataset == REPORTS else {
            **row, "task": self.spec["task"], "size": self.spec["size"], "data_name": self.data.name,
            "data_fingerprint": self.data.fingerprint}

    def sweep(self, where: str) -> SweepSpec:
        """The sweep as it was asked for.

        Args:
            where: The file that it came from, for messages.

        Raises:
            ResultsError: It is no sweep of this version; names the key.
        """
        try:
            spec = SweepSpec.model_validate(self.spec)
        except ValueError as error:
            raise ResultsError(f"{where}: spec: not of this version of raymae: {error}") from None
        for arm in spec.arms:
            if arm not in self.task.arms:
                raise ResultsError(f"{where}: spec.arms: {unknown('arm', arm, self.task.arms)}")
        low, high = spec.bisected[1].bisect if spec.bisected else (math.inf, -math.inf)
        if not all(low < value < high for value in self.opened):
            raise ResultsError(f"{where}: opened: holds values between the ends of the factor that is bisected, got "
                               f"{shorten(self.opened)}. Restore the file, or delete the folder")
        return spec.with_opened(self.opened)

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Tree) -> Manifest:
        """The manifest that this version or an earlier one wrote.

        Version 0.1.0 said neither what a task is about nor what was published for it: then the comparison is the one
        that all its tasks were about, and nothing is published.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another form.
        """
        task, data = plain["task"], plain["data"]
        primary = task.get("primary", _OLD_PRIMARY if set(_OLD_PRIMARY) <= set(task["arms"]) else None)
        return cls(
            raymae_version=plain["raymae_version"], created_at=plain["created_at"], spec=plain["spec"],
            data=SweepData(data["name"], data["source"], data["fingerprint"]),
            task=SweepTask(
                name=task["name"], objective=Objective(**task["objective"]), metrics=tuple(task["metrics"]),
                arms={name: Arm(**arm) for name, arm in task["arms"].items()},
                primary=None if primary is None else (primary[0], primary[1]),
                published={arm: tuple(Published(**number) for number in numbers)
                           for arm, numbers in task.get("published", {}).items()},
            ),
            columns=plain["columns"], times_epochs=plain.get("times_epochs"), epoch_costs=plain.get("epoch_costs", {}),
            precision=plain.get("precision"),
            looked_before=plain.get("looked_before", False),
            pretrains_on=plain.get("pretrains_on", ""),
            factors={arm: tuple(names) for arm, names in plain.get("factors", {}).items()},
            opened=tuple(plain.get("opened", ())), may_open=tuple(plain.get("may_open", ())),
        )


def read(plain: Tree, where: str) -> Manifest:
    """The manifest in a `sweep.json`, whoever wrote it: every value that a reader relies on is of its kind.

    Args:
        plain: What the file holds.
        where: The file, for messages.

    Raises:
        ResultsError: Something is missing, of another kind, or of another version; names the file and the key.
    """
    try:
        manifest = Manifest.from_json(plain)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise ResultsError(f"{where}: not written by raymae, or by another version: {error}") from None
    checked(Manifest, manifest.to_json(), where)
    objective = manifest.task.objective
    scores = {name: dict.fromkeys((objective.val, objective.test), "double") for name in ("trials", "reports")}
    for dataset in ("trials", "reports"):
        columns, key = manifest.columns.get(dataset), f"{where}: columns.{dataset}"
        if columns is None:
            raise ResultsError(f"{key}: is required")
        for name, kind in columns.items():
            if kind not in KINDS:
                raise ResultsError(f"{key}.{name}: {unknown('kind', kind, KINDS)}")
        for name, kind in {**fixed_columns(dataset), **scores[dataset]}.items():
            if columns.get(name, kind if name in LATER else None) != kind:  # readers rely on what every version wrote
                raise ResultsError(f"{key}.{name}: must be {kind}, got {shorten(columns.get(name))}")
    return manifest


@cache
def _adapter(kind: type) -> Any:
    """What checks values against a dataclass; it takes a while to make."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def checked(kind: type, plain: Tree, where: str) -> None:
    """Check plain values against the fields of a dataclass, and of those in it.

    Args:
        kind: The dataclass.
        plain: The values.
        where: The file that they came from, for messages.

    Raises:
        ResultsError: One is of another kind; names the file and the key.
    """
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = f"{first['msg'][0].lower()}{first['msg'][1:]}, got {shorten(first['input'])}"
        raise ResultsError(f"{where}: {key}: {message}. Restore the file, or delete the folder") from None
