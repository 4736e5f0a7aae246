"""The models that a sweep has kept, arm by arm, as its verdict counts them; read from their cards, without torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymae.errors import ModelError, unknown
from raymae.results.store import layout
from raymae.results.store.cards import ModelCard, read_cards
from raymae.results.store.folder import Folder
from raymae.results.store.store import Store
from raymae.results.verdict.cells import counted
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.verdict import Verdict
from raymae.spec.factors import Cell, Factors, stranger, told
from raymae.spec.space import Scalar

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


@dataclass(frozen=True)
class Models:
    """What is in `models/`.

    Attributes:
        root: The sweep's folder.
        folder: The models' own.
        by_arm: Of each arm that has any, those of the replicates that the verdict counts, the best on validation
            first. Arms stand as in the verdict, the best first.
        others: Of replicates that it does not count: those of a configuration that a longer search has overtaken.
        problems: What is wrong with damaged ones.
    """

    root: str
    folder: str
    by_arm: dict[str, tuple[ModelCard, ...]]
    others: tuple[ModelCard, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def num_models(self) -> int:
        """Models there are, whether the verdict counts them or not."""
        return sum(map(len, self.by_arm.values())) + len(self.others)

    @property
    def num_bytes(self) -> int:
        """Bytes of their weights."""
        return sum(card.num_bytes for cards in (*self.by_arm.values(), self.others) for card in cards)

    def line(self) -> str:
        """How many there are, their size and where; "" where there are none."""
        if not self.num_models:
            return ""
        arms = {card.arm for cards in (*self.by_arm.values(), self.others) for card in cards}
        return (f"{_counted(self.num_models, 'model')} of {_counted(len(arms), 'arm')}, {size(self.num_bytes)} in "
                f"{self.folder}; raymae models {self.root}")

    def of(self, arm: str | None = None) -> tuple[ModelCard, ...]:
        """The models of an arm, the best on validation first.

        Args:
            arm: The arm; by default the best of the verdict's that has a model.

        Raises:
            ModelError: There are none; says how to get one.
        """
        if arm is not None and arm in self.by_arm:
            return self.by_arm[arm]
        damaged = "".join(f"\n  {problem}" for problem in self.problems)
        if not self.by_arm:
            raise ModelError(
                f"{self.folder}: no model of a replicate that the verdict counts. A sweep keeps them unless its file "
                f"says `keep: none`; versions before 0.2 kept none. `raymae extend {self.root} --replicates N` with "
                f"one more replicate than there are keeps that one's{damaged}")
        if arm is not None:
            raise ModelError(f"{self.folder}: {unknown('arm', arm, self.by_arm)}{damaged}")
        return next(iter(self.by_arm.values()))


@dataclass(frozen=True)
class Use:
    """How an arm's model is used.

    Attributes:
        arm: The arm.
        file: Its best replicate's weights.
        num_models: How many replicates have a model.
        size: Of all of them, for people.
        licence: Of the data that it learned from; None where nobody knows it.
        shell: What to type to predict with it.
        python: What to write.
    """

    arm: str
    file: str
    num_models: int
    size: str
    licence: str | None
    shell: str
    python: str


def uses(models: Models) -> tuple[Use, ...]:
    """How the model of each arm is used, arms best first."""
    return tuple(Use(
        arm, Folder(models.folder).uri(layout.weights(cards[0].trial_id)), len(cards),
        size(sum(card.num_bytes for card in cards)), cards[0].data.get("licence"),
        f"raymae predict {shlex.quote(models.root)} INPUT --to OUT --arm {shlex.quote(arm)}",
        f"raymae.load_model({models.root!r}, {arm!r}).predict(inputs)",
    ) for arm, cards in models.by_arm.items())


def models_of(store: Store, verdict: Verdict | None = None, trials: pd.DataFrame | None = None) -> Models:
    """The models of a sweep, finished or not.

    Args:
        store: The sweep.
        verdict: Its verdict, where the caller has it already.
        trials: Its `trials` dataset, likewise.

    Raises:
        ModelError: Their folder cannot be listed.
    """
    folder = Folder(store.uri(layout.MODELS))
    cards, problems = read_cards(folder)
    by_arm: dict[str, tuple[ModelCard, ...]] = {}
    if cards:
        trials = store.trials() if trials is None else trials
        verdict = verdict or verdict_now(store, trials)
        counts = counted(trials, store.spec(), store.manifest)
        for arm in verdict.arms:
            if found := [card for card in cards if card.arm == arm.arm and card.trial_id in counts]:
                by_arm[arm.arm] = best_first(found)
    used = {card.trial_id for found in by_arm.values() for card in found}
    return Models(store.root, folder.root, by_arm, tuple(card for card in cards if card.trial_id not in used),
                  tuple(map(str, problems)))


def rows(models: Models) -> list[dict[str, Any]]:
    """One row a model: those that the verdict counts first, arms best first; `best` is what is loaded by default.

    Returns:
        `arm`, `trial`, `best`, `seed`, both scores under their column's names, `parameters`, `bytes`, `file`.
    """
    best = {cards[0].trial_id for cards in models.by_arm.values()}
    found = []
    for card in (*(card for cards in models.by_arm.values() for card in cards), *models.others):
        found.append({
            "arm": card.arm, "trial": card.trial_id, "best": card.trial_id in best,
            "seed": card.seed, f"val_{card.objective}": card.val, f"test_{card.objective}": card.test,
            "parameters": card.num_parameters, "bytes": card.num_bytes,
            "file": f"{layout.MODELS}/{layout.weights(card.trial_id)}",
        })
    return found


def best_first(cards: Iterable[ModelCard]) -> tuple[ModelCard, ...]:
    """Cards of one arm, the best on validation first."""
    return tuple(sorted(cards, key=lambda card: card.rank))


def cell_of(card: ModelCard, factors: Factors) -> dict[str, Scalar]:
    """The values of a sweep's factors that a model was trained with."""
    params = card.config.get("params")
    return {name: params[name] for name in factors if isinstance(params, dict) and name in params}


def in_one_cell(cards: Sequence[ModelCard], factors: Factors, cell: Cell) -> Sequence[ModelCard]:
    """Those of a sweep's models that are of the same values of its factors, the best on validation first.

    Args:
        cards: Models of an arm, the best first.
        factors: The sweep's.
        cell: What some of the factors have to be.

    Raises:
        ModelError: There are no such factors, or no model has these values.
    """
    if wrong := stranger(cell, factors):
        raise ModelError(f"cell: {wrong}")
    kept = [card for card in cards if all(cell_of(card, factors).get(name, value) == value
                                          for name, value in cell.items())]
    if not kept:
        there = "; ".join(dict.fromkeys(told(cell_of(card, factors)) for card in cards))
        raise ModelError(f"cell: no model with {told(cell)}; there are those with {there}")
    return [card for card in kept if cell_of(card, factors) == cell_of(kept[0], factors)]


def size(num_bytes: float) -> str:
    """Bytes for people, such as `3.1 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" or num_bytes >= 99.95 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
