"""No example and no group is in two splits, labels are a share of training, and names need no reading."""

from __future__ import annotations

import hashlib
import itertools

import torch

from raymae.contract.subject import Check, Subject, require
from raymae.tasks.base import Source, Task, Units

SPLITS = ("pretrain", "train", "val", "test")
AT_ONCE = 256


def rows(source: Source) -> list[str]:
    """A digest of every example of a split."""
    found: list[str] = []
    for index_B in torch.arange(len(source)).split(AT_ONCE):
        batch = source.batch(index_B, None)
        parts = [value.reshape(len(index_B), -1).cpu().numpy() for _, value in sorted(batch.items())]
        found += [hashlib.sha256(b"".join(part[row].tobytes() for part in parts)).hexdigest()
                  for row in range(len(index_B))]
    return found


def splits_of(task: Task) -> tuple[str, ...]:
    """The splits that a task's arm reads."""
    return SPLITS if task.arm.kind == "pretrained" else SPLITS[1:]


def names_units(task: Task) -> bool:
    """Whether a task names its examples; numbers, which it has by default, say nothing of what they are."""
    return type(task).units is not Task.units


def units_apart(task: Task) -> dict[str, Units]:
    """Hold a task to what `units` promises, and return the units of each split.

    Raises:
        ViolationError: Names are not unique or not as many as examples, or a name or group is in two splits.
    """
    of = {split: task.units(split) for split in splits_of(task)}
    for split, units in of.items():
        names = units.names
        require(names, f"the {split} split has no examples")
        require(len({*names}) == len(names), f"units({split!r}) names an example twice")
        require(units.groups is None or len(units.groups) == len(names),
                f"units({split!r}) has {len(names)} names and {len(units.groups or ())} groups")
        if split in ("val", "test"):
            count = len(task.load(split))
            require(len(names) == count, f"units({split!r}) has {len(names)} names for {count} examples")
    require(len({units.groups is None for units in of.values()}) == 1, "units() knows groups of some splits only")
    for one, other in itertools.combinations([("pretrain", "train"), ("val",), ("test",)], 2):
        for part in ("names",) if all(units.in_time for units in of.values()) else ("names", "groups"):
            sides = [{value for split in side if split in of for value in getattr(of[split], part) or ()}
                     for side in (one, other)]
            both = sorted(sides[0] & sides[1])
            require(not both, f"{len(both)} {part if len(both) > 1 else part[:-1]}, such as {both[:1]}, in "
                              f"{' or '.join(one)} and in {' or '.join(other)} too")
    if "pretrain" in of:
        require({*of["train"].names} <= {*of["pretrain"].names}, "pretraining does not see every training example")
    return of


def examples_are_in_one_split(subject: Subject) -> None:
    """No example and no group is in two splits, and every example has a name."""
    for fraction in (1.0, 0.3):
        task = subject.make(label_fraction=fraction)
        if names_units(task):
            units_apart(task)
            continue
        content = {split: {*rows(task.load(split))} for split in ("train", "val", "test")}
        for one, other in itertools.combinations(content, 2):
            both = len(content[one] & content[other])
            require(not both, f"{both} examples of {one} are in {other} too")


def units_read_no_split(subject: Subject) -> None:
    """units() names examples without load()."""
    task = subject.make()
    if names_units(task):
        def load(split: str) -> Source:
            require(False, f"units() reads the split {split!r}: name the examples without load()")
            raise AssertionError

        task.load = load  # type: ignore[method-assign]
        for split in splits_of(task):
            task.units(split)


def labels_are_a_nested_share(subject: Subject) -> None:
    """label_fraction takes a nested share of train, and leaves pretrain, val and test whole."""
    tasks = {share: subject.make(label_fraction=share) for share in (0.1, 0.4, 1.0)}
    if tasks[1.0].arm.kind == "reference":
        return
    labelled = {share: rows(task.load("train")) for share, task in tasks.items()}
    require({*labelled[0.1]} < {*labelled[0.4]} < {*labelled[1.0]},
            f"with label_fraction 0.1, 0.4 and 1 train has {len(labelled[0.1])}, {len(labelled[0.4])} and "
            f"{len(labelled[1.0])} examples, and the fewer are not all among the more; see raymae.data.subsets")
    groups = tasks[1.0].units("train").groups
    largest = 1 if groups is None else max(groups.count(group) for group in {*groups})
    for share, kept in labelled.items():
        wanted = share * len(labelled[1.0])
        require(abs(len(kept) - wanted) <= max(0.1 * wanted, largest),
                f"label_fraction={share} keeps {len(kept)} of {len(labelled[1.0])} examples")
    splits = [split for split in splits_of(tasks[1.0]) if split != "train"]
    for split in splits:
        few, all_ = (len(tasks[share].load(split)) for share in (0.1, 1.0))
        require(few == all_ > 0, f"label_fraction=0.1 leaves {few} of {all_} examples of {split}; it is for train")
    if "pretrain" in splits:
        require(rows(tasks[0.1].load("pretrain")) == rows(tasks[1.0].load("pretrain")),
                "label_fraction changes what pretraining sees")
        require(len(tasks[0.1].load("pretrain")) >= len(labelled[1.0]),
                "pretraining sees fewer examples than there are with labels")


CHECKS = (Check(examples_are_in_one_split), Check(units_read_no_split), Check(labels_are_a_nested_share))
