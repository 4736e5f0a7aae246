"""The verdict in one sentence."""

from __future__ import annotations

from raymae.results.verdict.numbers import interval_decimals, number, p_value, places, significant
from raymae.results.verdict.verdict import Pair, Verdict


def headline(verdict: Verdict) -> str:
    """One plain sentence with the answer, after a warning where the data is synthetic."""
    warning = synthetic(verdict.data.name, verdict.data.source)
    unfinished = "" if verdict.complete else "The sweep is not finished: this can change."
    return " ".join(filter(None, (warning, _answer(verdict), unfinished)))


def synthetic(name: str, source: str) -> str:
    """The warning that the data is generated, or "".

    Args:
        name: The data set.
        source: `real` or `synthetic`.
    """
    if source != "synthetic":
        return ""
    return f"SYNTHETIC DATA: a generated stand-in for {name}, so this says nothing about real data."


def _answer(verdict: Verdict) -> str:
    metric = verdict.objective.metric.replace("_", " ")
    if not verdict.pairs:
        return _leader(verdict, metric)
    pair = verdict.pairs[0]
    arms = {arm.arm: arm for arm in verdict.arms}
    means = [arms[name].metrics[pair.metric].mean for name in (pair.a, pair.b)]
    # only in the primary pair do the two differ by their pretraining alone
    subject = "MAE pretraining" if pair.primary else pair.a
    beside = "from scratch" if pair.primary else f"for {pair.b}"
    decimals = _decimals(pair, means)
    scores = f"test {metric} {number(means[0], decimals)} against {number(means[1], decimals)} {beside}"
    seeds = f"{pair.n_a} seeds each" if pair.n_a == pair.n_b else f"{pair.n_a} and {pair.n_b} seeds"
    difference = number(pair.difference, decimals)
    if pair.ci95 is None:
        reason = pair.note or "no interval"
        return f"No difference shown for {subject}: {scores} (difference {difference}; {reason})."
    low, high = (number(end, decimals) for end in pair.ci95)
    sure = f"difference {difference}, 95 % interval {low} to {high}, {p_value(pair.p)}, {seeds}"
    if pair.verdict == "no difference shown":
        return f"No difference shown for {subject}: {scores} ({sure})."
    if pair.primary:
        return f"{subject} {pair.verdict} here: {scores} ({sure})."
    return f"{subject} does {'better' if pair.verdict == 'helps' else 'worse'} here: {scores} ({sure})."


def _leader(verdict: Verdict, metric: str) -> str:
    first = verdict.arms[0] if verdict.arms else None
    if first is not None and first.n:
        mean = first.metrics[verdict.objective.test].mean
        return f"No comparison yet: only {first.arm} has a test score, {metric} {significant(mean)}."
    if first is not None and first.val.score is not None:
        score = f"{metric} {significant(first.val.score)}"
        return f"No verdict yet: no replicate is scored on test; best on validation is {first.arm} with {score}."
    return "No verdict yet: no trial is completed."


def _decimals(pair: Pair, means: list[float]) -> int:
    """As many decimals as show two digits of the interval's half-width, or four of the means without one."""
    decimals = interval_decimals([pair.ci95])
    return max(places(mean, 4) for mean in means) if decimals is None else decimals
