"""What has to be said beside a verdict of how its arms were searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from raymae.results.verdict.finals import Chosen
from raymae.spec import Arm, SweepSpec
from raymae.spec.task import TrainingParams

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]


def how_searched(
    last: pd.DataFrame, spec: SweepSpec, arms: Mapping[str, Arm], chosen: Mapping[str, Chosen], *, complete: bool
) -> Iterator[str]:
    """Searches that were cut short or unequal, finals that are missing, and what people did by hand; nothing where all
    is as the sweep file asks.

    Args:
        last: The last attempt of every trial, of one cell of the factors.
        spec: The sweep.
        arms: Its arms.
        chosen: How configurations were chosen, of arms that had finals.
        complete: Whether every arm has its replicates; before, a search may go on yet.
    """
    yield _searches(last, spec, arms, complete=complete)
    yield _finals(chosen)
    yield _by_hand(last, spec)


def _searches(last: pd.DataFrame, spec: SweepSpec, arms: Mapping[str, Arm], *, complete: bool) -> str:
    """That arms have fewer search trials than the file asks for, or not as many each."""
    asked = last[(last["stage"] == "search") & last["parent"].isna()] if "parent" in last else last
    counts = {name: int((asked["arm"] == name).sum()) for name in spec.arms if arms[name].kind != "reference"}
    counts = {name: count for name, count in counts.items() if count > 1 or (count and _has_space(name, spec))}
    cut = complete and _may_be_cut(spec) and any(count < spec.search.num_trials for count in counts.values())
    if not cut and len(set(counts.values())) < 2:
        return ""
    of = f" of {spec.search.num_trials}" if cut else ""
    found = ", ".join(f"{name} {count}{of}" for name, count in counts.items())
    return f"{'the budget cut the search short' if cut else 'search trials are unequal'}: {found}"


def _has_space(name: str, spec: SweepSpec) -> bool:
    """Whether something is surely searched for an arm that trains: others have one trial by rights."""
    return any(name in kind.when["arm"] if "arm" in kind.when else key in TrainingParams.model_fields
               for key, kind in spec.space.items() if key not in spec.arms[name])


def _may_be_cut(spec: SweepSpec) -> bool:
    """Whether only a limit of time or money can have left trials out: no file asks for fewer in another way."""
    budget = spec.budget
    limited = any(limit is not None for limit in (budget.wall_minutes, budget.gpu_hours, budget.dollars))
    fewer = (budget.num_trials, budget.target, budget.patience_trials)
    return limited and all(one is None for one in fewer) and spec.search.algorithm != "grid"


def _finals(chosen: Mapping[str, Chosen]) -> str:
    """That finals are fewer than the file asks for."""
    found = [f"{name} {one.seeds - 1} of {one.asked - 1}" for name, one in chosen.items() if one.seeds < one.asked]
    return f"finals are incomplete, seeds that all finalists have: {', '.join(found)}" if found else ""


def _by_hand(last: pd.DataFrame, spec: SweepSpec) -> str:
    """That people had a hand in the search."""
    searched, found = last[last["stage"].isin(("search", "pretrain"))], []
    for column, what in (("added_by", "points were added"), ("stopped_by", "trials were stopped")):
        hands = searched[searched[column].notna()]["arm"].tolist() if column in searched else []
        counts = [f"{name} {hands.count(name)}" for name in spec.arms if name in hands]
        found += [f"{what} ({', '.join(counts)})"] if counts else []
    return f"by hand, {' and '.join(found)}" if found else ""
