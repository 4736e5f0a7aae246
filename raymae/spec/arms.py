"""Arms of a sweep beside those of its task: the same method under a name of its own, with values of its own, or from
weights that exist.

    arms: {mae: {}, transferred: {encoder: ../other/results/x}, wide: {like: mae, encoder_dim: 512}, scratch: {}}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from raymae.errors import shorten, unknown
from raymae.spec.space import Scalar
from raymae.spec.sweep import SweepSpec
from raymae.spec.task import Arm, TaskSchema

LIKE, ENCODER, CONTINUE = "like", "encoder", "continue"
ORIGIN = (LIKE, ENCODER, CONTINUE)  # keys of an arm that are no parameters


@dataclass(frozen=True)
class Origin:
    """Where an arm comes from.

    Attributes:
        like: The task's arm whose method it is; its own name where it is the task's, "" where there is no such arm.
        encoder: Weights that it starts from: a path or a URI; "" where it starts from none.
        goes_on: Whether it pretrains on from them.
    """

    like: str = ""
    encoder: str = ""
    goes_on: bool = False

    @property
    def adopts(self) -> bool:
        """Whether it starts from weights as they are, and does not pretrain."""
        return bool(self.encoder) and not self.goes_on


def fixed_in(spec: SweepSpec, arm: str) -> dict[str, Scalar]:
    """The values that a sweep file fixes for an arm."""
    return {name: value for name, value in spec.arms[arm].items() if name not in ORIGIN}


def origin_of(spec: SweepSpec, schema: TaskSchema, arm: str) -> Origin:
    """Where an arm of a sweep comes from; of a file with mistakes as far as that can be told.

    An arm that starts from weights and does not say whose method it is has that of the task's pretrained arm.
    """
    said = spec.arms[arm]
    encoder = said.get(ENCODER)
    like = said.get(LIKE, schema.method(arm) if arm in schema.arms else _pretrained(schema) if ENCODER in said else "")
    return Origin(like if isinstance(like, str) and like in schema.arms else "",
                  encoder if isinstance(encoder, str) else "", said.get(CONTINUE) is True)


def _pretrained(schema: TaskSchema) -> str:
    """The pretrained arm that a task is about, or its first."""
    if schema.primary is not None:
        return schema.primary[0]
    return next((name for name, arm in schema.arms.items() if arm.kind == "pretrained"), "")


def with_arms(spec: SweepSpec, schema: TaskSchema) -> TaskSchema:
    """A task's description with the arms of a sweep beside its own."""
    arms, likes = dict(schema.arms), dict(schema.likes)
    for name in spec.arms:
        origin = origin_of(spec, schema, name)
        if not origin.like or (origin.like == name and not origin.encoder):
            continue
        arms[name] = Arm(schema.arms[origin.like].kind, _about(schema, name, origin),
                         schema.arms[origin.like].stochastic)
        likes[name] = origin.like
    return replace(schema, arms=arms, likes=likes) if likes != schema.likes else schema


def _about(schema: TaskSchema, name: str, origin: Origin) -> str:
    about = schema.arms[origin.like].about
    if origin.like != name:
        about = f"as {origin.like}: {about}"
    if origin.encoder:
        about += f"; pretrained on from {origin.encoder}" if origin.goes_on else \
            f"; from the weights of {origin.encoder}, without pretraining here"
    return about


def problems_of_origins(spec: SweepSpec, schema: TaskSchema) -> Iterator[tuple[str, str]]:
    """What is wrong with the names of arms and where they come from, as (key path, message)."""
    for name, said in spec.arms.items():
        key, like = f"arms.{name}", said.get(LIKE)
        if LIKE in said and like not in schema.arms:
            yield f"{key}.{LIKE}", unknown("arm", like, schema.arms)
        elif name in schema.arms and LIKE in said and like != name:
            yield f"{key}.{LIKE}", f"{name} is an arm of the task itself; give the one that is like {like} another name"
        elif name not in schema.arms and not said.keys() & {LIKE, ENCODER}:
            yield key, (f"{unknown('arm', name, schema.arms)}; an arm under a name of its own says what it is `like`, "
                        f"or from which `encoder` it starts")
        yield from ((f"{key}.{part}", message) for part, message in _wrong_start(spec, schema, name))


def _wrong_start(spec: SweepSpec, schema: TaskSchema, name: str) -> Iterator[tuple[str, str]]:
    said, origin = spec.arms[name], origin_of(spec, schema, name)
    if ENCODER in said:
        value = said[ENCODER]
        if not isinstance(value, str) or not value.strip():
            yield ENCODER, ("must name a results folder, a file of weights, or a folder of timm's or Hugging Face's, "
                            f"got {shorten(value)}")
        elif not origin.like and LIKE not in said:
            yield ENCODER, f"the task {schema.name} has no pretrained arm; leave it out"
        elif origin.like and schema.arms[origin.like].kind != "pretrained":
            yield ENCODER, (f"the arm {origin.like} is {schema.arms[origin.like].kind} and starts from no encoder; "
                            "leave it out, or let the arm be `like` a pretrained one")
    if CONTINUE in said:
        if not isinstance(said[CONTINUE], bool):
            yield CONTINUE, f"must be true or false, got {shorten(said[CONTINUE])}"
        elif ENCODER not in said:
            yield CONTINUE, "says that an arm pretrains on from an `encoder`, and names none"
