"""The verdict in words, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any


def headline(verdict: Mapping[str, Any]) -> str:
    """One plain sentence with the answer, after a warning where the data is synthetic.

    Args:
        verdict: What `compare.verdict` returned.
    """
    return " ".join(filter(None, (synthetic(verdict), _answer(verdict), _unfinished(verdict))))


def synthetic(verdict: Mapping[str, Any]) -> str:
    """The warning that the data is generated, or nothing."""
    if verdict["data"]["source"] != "synthetic":
        return ""
    return f"SYNTHETIC DATA: a generated stand-in for {verdict['data']['name']}, so this says nothing about real data."


def _unfinished(verdict: Mapping[str, Any]) -> str:
    return "" if verdict["complete"] else "The sweep is not finished: this can change."


def _answer(verdict: Mapping[str, Any]) -> str:
    metric = verdict["objective"]["metric"].replace("_", " ")
    if not verdict["pairs"]:
        return _leader(verdict, metric)
    pair = verdict["pairs"][0]
    arms = {arm["arm"]: arm for arm in verdict["arms"]}
    a, b = arms[pair["a"]], arms[pair["b"]]
    means = [arm["metrics"][pair["metric"]]["mean"] for arm in (a, b)]
    alike = b["arm"] == "scratch"  # only then do the two differ by their pretraining alone
    subject = "MAE pretraining" if a["arm"] == "mae" and alike else a["arm"]
    beside = "from scratch" if alike else f"for {b['arm']}"
    shown = _decimals(pair, means)

    def number(value: float) -> str:
        return f"{value:.{shown}f}".replace("-", "−")

    scores = f"test {metric} {number(means[0])} against {number(means[1])} {beside}"
    seeds = f"{pair['n_a']} seeds each" if pair["n_a"] == pair["n_b"] else f"{pair['n_a']} and {pair['n_b']} seeds"
    if pair["ci95"] is None:
        reason = pair.get("note", "no interval")
        return f"No difference shown for {subject}: {scores} (difference {number(pair['difference'])}; {reason})."
    low, high = map(number, pair["ci95"])
    sure = f"difference {number(pair['difference'])}, 95 % interval {low} to {high}, {p_value(pair['p'])}, {seeds}"
    if pair["verdict"] == "no difference shown":
        return f"No difference shown for {subject}: {scores} ({sure})."
    if a["kind"] == "pretrained" and alike:
        return f"{subject} {pair['verdict']} here: {scores} ({sure})."
    return f"{subject} does {'better' if pair['verdict'] == 'helps' else 'worse'} here: {scores} ({sure})."


def _leader(verdict: Mapping[str, Any], metric: str) -> str:
    first = verdict["arms"][0] if verdict["arms"] else None
    if first is not None and first["n"]:
        mean = first["metrics"][f"test_{verdict['objective']['metric']}"]["mean"]
        return f"No comparison yet: only {first['arm']} has a test score, {metric} {significant(mean)}."
    if first is not None and first["val"]["score"] is not None:
        score = f"{metric} {significant(first['val']['score'])}"
        return f"No verdict yet: no replicate is scored on test; best on validation is {first['arm']} with {score}."
    return "No verdict yet: no trial is completed."


def _decimals(pair: Mapping[str, Any], means: Iterable[float]) -> int:
    """As many decimals as show two digits of the interval's half-width, or four of the means without one."""
    shown = pair_decimals([pair])
    return max(_places(mean, 4) for mean in means) if shown is None else shown


def pair_decimals(pairs: Iterable[Mapping[str, Any]]) -> int | None:
    """Decimals that show two digits of the narrowest interval; None without one, or where widths differ too much."""
    return aligned([(pair["ci95"][1] - pair["ci95"][0]) / 2 for pair in pairs if pair["ci95"]], 2, missing=None)


def _places(value: float, digits: int) -> int:
    return 0 if value == 0 else max(0, min(12, digits - 1 - math.floor(math.log10(abs(value)))))


def p_value(p: float | None) -> str:
    """`p = 0.004`, or `p < 0.001`."""
    if p is None:
        return "p –"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def significant(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits, without an exponent where that is readable."""
    if value is None:
        return "–"
    if value and not 1e-6 <= abs(value) < 10**7:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    return f"{value:.{_places(value, digits)}f}".replace("-", "−")


def aligned(values: Iterable[float | None], digits: int = 4, missing: int | None = 1) -> int | None:
    """Decimals that give the smallest number of a column so many digits; None where the column spans too much."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return missing
    if max(sizes) / min(sizes) > 100 or not 1e-9 <= min(sizes) < 10**7:
        return None
    return _places(min(sizes), digits)


def duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 05 s` or `2 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
