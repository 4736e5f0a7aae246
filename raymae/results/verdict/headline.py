"""The verdict in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from raymae.results.verdict.bisection import place_text
from raymae.results.verdict.numbers import (
    duration,
    interval_decimals,
    number,
    p_value,
    places,
    significant,
    with_interval,
)
from raymae.results.verdict.verdict import ArmResult, Pair, Verdict
from raymae.spec.factors import said, told

MOST_NAMED = 4  # cells of one word
_WORDS = {"helps": "helps", "hurts": "hurts", "practically equal": "makes practically no difference",
          "undecided": "is undecided", "none": "is not compared yet"}


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
    if verdict.cells:
        return _of_cells(verdict, metric)
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
    unlearned = unlearned_text(pair, verdict)
    word = f"{_word(pair, subject)}{f'; {unlearned}' if unlearned else ''}"
    if pair.ci95 is None:
        sure = f"difference {difference}; {pair.note or 'no interval'}"
        return " ".join(filter(None, (f"{word}: {scores} ({sure}).", needed_text(pair, verdict), rule_text(verdict))))
    low, high = (number(end, decimals) for end in pair.ci95)
    number_of = max(len(verdict.pairs), verdict.rule.comparisons if verdict.rule else 0)
    adjusted = "" if number_of == 1 else f" for {number_of} comparisons"
    sure = (f"difference {difference}, 95 % interval {low} to {high} over {_over(verdict)}, "
            f"{p_value(pair.p_holm)}{adjusted}, {seeds}")
    return " ".join(filter(None, (f"{word}: {scores} ({sure}).", needed_text(pair, verdict), rule_text(verdict))))


def _of_cells(verdict: Verdict, metric: str) -> str:
    """The answer of a sweep with factors: in which cells the first comparison says what."""
    each, total = verdict.each(), len(verdict.cells)
    pairs = [(one, one.pairs[0]) for one in each if one.pairs]
    if not pairs:
        return f"No comparison yet in any of {total} cells."
    first = pairs[0][1]
    subject = "MAE pretraining" if first.primary else f"{first.a} against {first.b}"
    words: dict[str, list[Verdict]] = {}
    for one, pair in pairs:
        words.setdefault(pair.verdict, []).append(one)
    if len(pairs) < total:
        words["none"] = [one for one in each if not one.pairs]
    parts = [f"{text} in {len(words[word])}{f' of {total} cells' if not place else ''}{_named(words[word])}"
             for place, (word, text) in enumerate((word, text) for word, text in _WORDS.items() if word in words)]
    ends = sorted(pairs, key=lambda one: one[1].difference)
    spread = [f"{with_interval(pair.difference, pair.ci95)} at {told(one.cell or {})}"
              for one, pair in (ends[0], ends[-1])]
    number_of = verdict.rule.comparisons if verdict.rule else 0
    adjusted = f"p-values are adjusted for {number_of} comparisons in all cells." if number_of > 1 else ""
    differences = f"Difference in test {metric}: {' to '.join(spread) if len(pairs) > 1 else spread[0]}."
    unlearned = {text for one, pair in pairs if (text := unlearned_text(pair, one))}
    mind = f"Mind: {'; '.join(sorted(unlearned)[:MOST_NAMED])}." if unlearned else ""
    return " ".join(filter(None, (f"{subject} {', '.join(parts)}.", place_text(verdict), differences, adjusted, mind,
                                  _rule_of_cells(verdict))))


def _named(cells: list[Verdict]) -> str:
    """Which cells, in brackets, such as ` (label_fraction 0.02, 0.1)`; "" where they are many."""
    held = [one.cell or {} for one in cells]
    if len(held) > MOST_NAMED:
        return ""
    if len(held[0]) == 1:
        (name,) = held[0]
        return f" ({name} {', '.join(said(cell[name]) for cell in held)})"
    return f" ({'; '.join(map(told, held))})"


def _rule_of_cells(verdict: Verdict) -> str:
    """The rule, and what cells that share pretrained encoders have saved."""
    bare = replace(verdict, arms=(), pairs=(), cells=())
    found = [f"{arm} {spent.pretrainings} for {spent.starts} trials, {duration(spent.compute_s)} in place of "
             f"{duration(spent.unshared_s)} of compute" for arm, spent in (verdict.spent or {}).items()
             if spent.unshared_s > spent.compute_s + 1]
    shared = f"Trials share pretrained encoders: {'; '.join(found)}." if found else ""
    finals = _finals_text([arm for one in verdict.cells for arm in one.arms])
    return " ".join(filter(None, (rule_text(bare), finals, shared)))


def _word(pair: Pair, subject: str) -> str:
    match pair.verdict:
        case "practically equal":
            return f"{subject} makes practically no difference here"
        case "undecided":
            return f"Undecided whether {subject} helps" if pair.primary else f"Undecided whether {subject} is better"
    if pair.primary:
        return f"{subject} {pair.verdict} here"
    return f"{subject} does {'better' if pair.verdict == 'helps' else 'worse'} here"


def unlearned_text(pair: Pair, verdict: Verdict) -> str:
    """What has to be said beside a pair's word where the pretraining of an arm learned nothing; "" elsewhere."""
    found = []
    for arm in verdict.arms:
        if arm.arm in (pair.a, pair.b) and arm.skill is not None and arm.skill.unlearned:
            some = arm.skill.unlearned < arm.skill.n
            where = f" in {arm.skill.unlearned} of {arm.skill.n} replicates" if some else ""
            skill = number(arm.skill.least if some else arm.skill.mean, 2)
            found.append(f"the pretraining of {arm.arm} did not learn{where} "
                         f"(skill {skill}{' at worst' if some else ''})")
    return ", and ".join(found)


def worded(pair: Pair, verdict: Verdict) -> str:
    """A pair's word with what has to be said beside it, for a table's cell."""
    return "; ".join(filter(None, (pair.verdict, unlearned_text(pair, verdict))))


def _over(verdict: Verdict) -> str:
    """What the intervals are over, such as `seeds and 250 test examples`."""
    rule = verdict.rule
    if rule is None or not rule.units:
        return "seeds alone"
    return f"seeds and {rule.groups:,} groups of test examples" if rule.grouped and rule.groups < rule.units else \
        f"seeds and {rule.units:,} test examples"


def needed_text(pair: Pair, verdict: Verdict) -> str:
    """What an undecided comparison would have taken, in a sentence; "" for a decided one."""
    needed = pair.needed
    if needed is None:
        return ""
    takes = []
    if needed.replicates is not None:
        minutes = "" if needed.minutes is None else f" ({duration(60 * needed.minutes)} more)"
        takes.append(f"{needed.replicates:,} seeds{minutes}")
    if needed.units is not None:
        takes.append(f"{needed.units:,} test examples")
    shown = "It could not have shown any difference" if needed.least is None else \
        f"It would have shown a difference of {significant(needed.least, 2)}"
    found = significant(abs(pair.difference), 2)
    if not takes:
        return f"{shown}; no number of seeds or test examples alone shows one of {found}."
    return f"{shown}; one of {found} takes {' or '.join(takes)}."


def rule_text(verdict: Verdict) -> str:
    """The rule that the verdict was reached under, in a sentence."""
    rule = verdict.rule
    if rule is None:
        return ""
    parts = [f"equal {rule.fair}{_compute(verdict)}"]
    if rule.margin is not None:
        parts.append(f"margin {significant(rule.margin)}")
    if rule.min_skill is not None:
        least = f"{rule.min_skill:g}".replace("-", "−")
        parts.append(f"of pretrainings those of a skill above {least} first")
    if rule.compare == "paired":
        parts.append("replicates paired by seed")
    if rule.sequential:
        parts.append("replicates in rounds, intervals hold at every look")
    if rule.looked_before:
        parts.append("looked at before: replicates or cells were added after a verdict")
    mind = f"Mind: {rule.note}." if rule.note else ""
    return " ".join(filter(None, (f"Rule: {', '.join(parts)}.", mind, _finals_text(verdict.arms), _skill_text(verdict),
                                  _shared_text(verdict))))


def _finals_text(arms: Sequence[ArmResult]) -> str:
    """How configurations were chosen where that was of several finalists, in a sentence; "" where it was not."""
    by_how: dict[str, list[str]] = {}
    for arm in arms:
        if arm.chosen is not None:
            out = f", {arm.chosen.failed} of them out by a failed final" if arm.chosen.failed else ""
            seeds = f"{arm.chosen.seeds} validation seed{'s' if arm.chosen.seeds > 1 else ''}"
            how = f"of {arm.chosen.finalists} finalists over {seeds}{out}"
            by_how.setdefault(how, []).append(arm.arm)
    if not by_how:
        return ""
    named = [f"{', '.join(dict.fromkeys(names))} {how}" for how, names in by_how.items()]
    return f"Configurations were chosen {next(iter(by_how)) if len(by_how) == 1 else '; '.join(named)}."


def _skill_text(verdict: Verdict) -> str:
    """How much pretrainings learned, in a sentence; of one that did not, `unlearned_text` speaks."""
    found = [f"{arm.arm} {number(arm.skill.mean, 2)} (at least {number(arm.skill.least, 2)})"
             for arm in verdict.arms if arm.skill is not None and not arm.skill.unlearned]
    return f"Skill of pretraining: {', '.join(found)}." if found else ""


def _shared_text(verdict: Verdict) -> str:
    """What sharing encoders has saved, in a sentence; "" where no trials share one."""
    found = [f"{arm.arm} {duration(arm.compute_s)} in place of {duration(arm.unshared_s)}"
             for arm in verdict.arms if arm.unshared_s is not None]
    return f"Trials share pretrained encoders: {', '.join(found)} of compute." if found else ""


def _compute(verdict: Verdict) -> str:
    """How long a replicate of either side took, where the primary comparison has two that train."""
    if not verdict.pairs:
        return ""
    arms = {arm.arm: arm for arm in verdict.arms}
    pair = verdict.pairs[0]
    each = [(name, arms[name].replicate_s) for name in (pair.a, pair.b) if arms[name].kind != "reference"]
    times = [f"{name} {duration(seconds)}" for name, seconds in each if seconds is not None]
    return f" ({', '.join(times)} a replicate)" if len(times) == 2 else ""


def _leader(verdict: Verdict, metric: str) -> str:
    first = verdict.arms[0] if verdict.arms else None
    if first is not None and first.n:
        mean = first.metrics[verdict.objective.test].mean
        return f"No comparison yet: only {first.arm} has a test score, {metric} {significant(mean)}."
    if first is not None and first.val.score is not None:
        score = f"{metric} {significant(first.val.score)}"
        if verdict.rule is not None and verdict.rule.untested:
            return f"No test score was asked for (replicates: 0); best on validation is {first.arm} with {score}."
        return f"No verdict yet: no replicate is scored on test; best on validation is {first.arm} with {score}."
    return "No verdict yet: no trial is completed."


def _decimals(pair: Pair, means: list[float]) -> int:
    """As many decimals as show two digits of the interval's half-width, or four of the means without one."""
    decimals = interval_decimals([pair.ci95])
    return max(places(mean, 4) for mean in means) if decimals is None else decimals
