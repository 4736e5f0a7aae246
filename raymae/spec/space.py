"""Distributions over parameters, and the conditions under which a parameter exists.

In YAML a distribution is a mapping with one of four keys, and optionally `when`:

    mask_ratio: {uniform: [0.2, 0.8], when: {arm: mae}}
    lr:         {loguniform: [1e-4, 1e-2]}
    depth:      {int: [1, 4], step: 1}
    patch_size: {choice: [4, 5, 10, 20], when: {arm: [mae, scratch]}}

`when` maps `arm` or another searched parameter to the value(s) under which this parameter is searched; all must hold.
Nothing here draws a sample: that is the search's business.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Scalar = bool | int | float | str | None


class Model(BaseModel):
    """Base of every model a user writes: frozen, no unknown keys, no silent conversions beyond int → float."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True, allow_inf_nan=False)


class _Distribution(Model):
    when: dict[str, list[Scalar]] = Field(
        default_factory=dict, description="Search this parameter only where these hold: {arm: mae} or {other: [a, b]}."
    )

    @field_validator("when", mode="before")
    @classmethod
    def _listify(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: list(v) if isinstance(v, (list, tuple)) else [v] for key, v in value.items()}
        return value

    @field_validator("when")
    @classmethod
    def _some_value(cls, value: dict[str, list[Scalar]]) -> dict[str, list[Scalar]]:
        for key, allowed in value.items():
            if not allowed:
                raise ValueError(f"`when` lists no value of {key}: the parameter would never be searched")
        return value

    def active(self, chosen: Mapping[str, Scalar]) -> bool:
        """Whether this parameter exists, given the arm (key `arm`) and the parameters chosen so far."""
        return all(key in chosen and chosen[key] in allowed for key, allowed in self.when.items())

    @abstractmethod
    def probes(self) -> list[Scalar]:
        """Values at which validity is checked: the ends of a range, or every choice."""

    def values(self) -> Sequence[Scalar] | None:
        """Every value, or None where there are infinitely many. A range stays one: it may be long."""
        return None


def _check_range(name: str, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"{name} needs [low, high] with low < high, got [{low}, {high}]")


class Uniform(_Distribution):
    """A real number between two ends, both included."""

    uniform: tuple[float, float] = Field(strict=False)  # YAML has lists

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        _check_range("uniform", *self.uniform)
        return self

    def probes(self) -> list[Scalar]:
        return list(self.uniform)


class LogUniform(_Distribution):
    """A positive real number, uniform in its logarithm."""

    loguniform: tuple[float, float] = Field(strict=False)

    @model_validator(mode="after")
    def _ordered(self) -> LogUniform:
        _check_range("loguniform", *self.loguniform)
        if self.loguniform[0] <= 0:
            raise ValueError(f"loguniform needs low > 0, got {self.loguniform[0]}")
        return self

    def probes(self) -> list[Scalar]:
        return list(self.loguniform)


class IntRange(_Distribution):
    """An integer from low to high, both included, in steps."""

    model_config = ConfigDict(protected_namespaces=())

    range_: tuple[int, int] = Field(alias="int", strict=False)
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        _check_range("int", *self.range_)
        return self

    def probes(self) -> list[Scalar]:
        low, high = self.range_
        count = (high - low) // self.step + 1
        # the second and the last but one tell whether the step fits what else divides the value
        some = range(count) if count <= 64 else (0, 1, count // 2, count - 2, count - 1)
        return [low + index * self.step for index in some]

    def values(self) -> Sequence[Scalar]:
        return range(self.range_[0], self.range_[1] + 1, self.step)


class Choice(_Distribution):
    """One of a list of values, in no order."""

    choice: list[Scalar] = Field(min_length=1)

    @field_validator("choice")
    @classmethod
    def _distinct(cls, value: list[Scalar]) -> list[Scalar]:
        if len({(isinstance(v, bool), v) for v in value}) < len(value):
            raise ValueError(f"choice lists a value twice: {value}")
        return value

    def probes(self) -> list[Scalar]:
        return self.choice

    def values(self) -> Sequence[Scalar]:
        return self.choice


KINDS = ("uniform", "loguniform", "int", "choice")


def _kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        found = [kind for kind in KINDS if kind in value]
        return found[0] if len(found) == 1 else None
    for kind, model in zip(KINDS, (Uniform, LogUniform, IntRange, Choice), strict=True):
        if isinstance(value, model):
            return kind
    return None


Distribution = Annotated[
    Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[IntRange, Tag("int")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message=(
            "needs exactly one of uniform: [low, high], loguniform: [low, high], int: [low, high] or choice: [a, b, …]"
        ),
    ),
]

Space = Mapping[str, Uniform | LogUniform | IntRange | Choice]


def ordered(space: Space) -> list[str]:
    """Names of `space` such that each comes after those its `when` refers to.

    Raises:
        ValueError: The conditions refer to each other in a circle.
    """
    done: list[str] = []
    left = list(space)
    while left:
        ready = [name for name in left if all(key == "arm" or key not in space or key in done
                                              for key in space[name].when)]
        if not ready:
            raise ValueError(f"`when` conditions refer to each other in a circle: {', '.join(left)}")
        done.extend(ready)
        left = [name for name in left if name not in ready]
    return done


def contains(distribution: Uniform | LogUniform | IntRange | Choice, value: Scalar) -> bool:
    """Whether a value could be drawn from a distribution."""
    match distribution:
        case Uniform(uniform=(low, high)) | LogUniform(loguniform=(low, high)):
            return isinstance(value, (int, float)) and low <= value <= high
        case _:
            return value in (distribution.values() or ())


def combinations(space: Space, chosen: Mapping[str, Scalar], *, limit: int = 4096) -> Iterator[dict[str, Scalar]]:
    """Every combination of the probe values of `space` that the conditions admit, at most `limit` of them.

    Args:
        space: The distributions.
        chosen: What is fixed already, with the arm under `arm`.
        limit: Stop after so many.
    """
    names = ordered(space)

    def walk(index: int, values: dict[str, Scalar]) -> Iterator[dict[str, Scalar]]:
        if index == len(names):
            yield dict(values)
            return
        name = names[index]
        if not space[name].active({**chosen, **values}):
            yield from walk(index + 1, values)
            return
        for value in space[name].probes():
            yield from walk(index + 1, {**values, name: value})

    for count, combination in enumerate(walk(0, {})):
        if count >= limit:
            return
        yield combination
