"""The arms of several sweeps beside each other, and beside what others have published.

Settings are shown where they differ from those of the sweep file that a sweep was made from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raymae.errors import ResultsError, SpecError
from raymae.results.store.folder import Folder
from raymae.results.store.layout import SWEEP
from raymae.results.store.store import Store
from raymae.results.verdict.bisection import place_text
from raymae.results.verdict.headline import needed_text, rule_text, unlearned_text
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.statistics import LEVEL, Interval, adjusted
from raymae.results.verdict.verdict import CellAnswer, Pair, SweepData, Word, plain
from raymae.spec import SweepSpec, load_sweep
from raymae.spec.space import Scalar
from raymae.spec.task import ArmKind, Mode, Published

OTHER_DATA = "data.name"  # the setting that differs where a sweep is on other data than its file


def sweep_files(folder: str | Path = "sweeps") -> dict[str, SweepSpec]:
    """The sweep files in a folder by path, without those that cannot be read; their tasks are not asked.

    Args:
        folder: By default that of a checkout, seen from its root.
    """
    found = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        with contextlib.suppress(SpecError):
            found[path.as_posix()] = load_sweep(path)
    return found


def sweeps_in(roots: Iterable[str]) -> tuple[list[str], list[str]]:
    """The sweeps that paths or URIs name, and those of them that name none.

    A folder that is no sweep stands for the sweeps directly in it, without those that `--fresh` moved aside.
    """
    found, empty = [], []
    for root in roots:
        folder = Folder(root)
        try:
            if SWEEP in folder.names():
                found.append(root)
                continue
            below = [folder.uri(name) for name in folder.folders()
                     if ".old-" not in name and SWEEP in folder.names(name)]
        except OSError as error:
            raise ResultsError(f"{root}: cannot list: {error}") from None
        found += below
        if not below:
            empty.append(root)
    return found, empty


@dataclass(frozen=True)
class ComparedArm:
    """An arm of one of several sweeps, with its test score over `n` replicates.

    Attributes:
        pair: The arm that the sweep is about, compared with this one.
        report: What others have published for it.
        unlearned: What has to be said of their pretraining beside the pair's word, or "".
    """

    arm: str
    kind: ArmKind
    n: int
    mean: float | None
    ci95: Interval | None
    pair: Pair | None
    report: Published | None
    unlearned: str = ""


@dataclass(frozen=True)
class ComparedSweep:
    """One of several sweeps.

    Attributes:
        settings: What it fixes about its problem.
        file: The sweep file that is nearest to it.
        changed: The settings that differ from that file's; all without one.
        metric: What is compared, on the test split.
        mode: Whether less or more of it is better.
        complete: Whether nothing is missing.
        about: The arm that the others are compared with.
        pair: The pretrained arm compared with the same network without pretraining.
        arms: Best first.
        rule: The rule of its verdict.
        needed: What an undecided comparison would have taken, for people.
        p_all: The primary comparison's p-value, adjusted for those of all sweeps that are compared, and no less than
            adjusted for the pairs of its own.
        word_all: Its verdict by that.
        cells: What is found in each cell of its factors; `arms` and `pair` are then of one of them.
        place: Where the answer changes along a factor that is bisected, in words; "" where none is.
    """

    sweep: str
    root: str
    task: str
    data: SweepData
    settings: Mapping[str, Scalar]
    file: str | None
    changed: Mapping[str, Scalar]
    metric: str
    mode: Mode
    complete: bool
    about: str | None
    pair: Pair | None
    arms: tuple[ComparedArm, ...]
    rule: str = ""
    needed: str = ""
    p_all: float | None = None
    word_all: Word | None = None
    cells: tuple[CellAnswer, ...] = ()
    place: str = ""

    def to_json(self) -> dict[str, object]:
        """Plain values, as `--json` prints them."""
        found: dict[str, object] = plain(self)
        return found


def across(roots: Sequence[str], files: Mapping[str, SweepSpec] | None = None) -> list[ComparedSweep]:
    """Read every sweep's arms and its primary comparison.

    Args:
        roots: Folders of sweeps, paths or URIs.
        files: Sweep files by path, of which some of the sweeps may have been made.

    Raises:
        ResultsError: One of them is no sweep, or cannot be read.
    """
    return together([compared(root, files) for root in roots])


def together(sweeps: Sequence[ComparedSweep]) -> list[ComparedSweep]:
    """Sweeps with the p-values of their primary comparisons adjusted for all of them."""
    values = adjusted([sweep.pair.p if sweep.pair else None for sweep in sweeps])
    strictest = [p if p is None or sweep.pair is None or sweep.pair.p_holm is None else max(p, sweep.pair.p_holm)
                 for sweep, p in zip(sweeps, values, strict=True)]
    return [replace(sweep, p_all=p, word_all=_word(sweep, p)) for sweep, p in zip(sweeps, strictest, strict=True)]


def _word(sweep: ComparedSweep, p: float | None) -> Word | None:
    """The primary verdict where p-values are adjusted for all sweeps: fewer differences may be shown than in each."""
    pair = sweep.pair
    if pair is None:
        return None
    if pair.verdict == "practically equal":
        return pair.verdict
    if p is None or p >= 1 - LEVEL:
        return "undecided"
    return "helps" if (pair.difference < 0) == (sweep.mode == "min") else "hurts"


def compared(root: str, files: Mapping[str, SweepSpec] | None = None) -> ComparedSweep:
    """Read one of several sweeps; takes and raises what `across` does."""
    store = Store.open(root)
    verdict = verdict_now(store)
    spec, objective = store.spec(), verdict.objective
    about = verdict.pairs[0].a if verdict.pairs else None
    pairs = verdict.against(about)
    arms = []
    for arm in verdict.arms:
        test = verdict.test(arm)
        arms.append(ComparedArm(
            arm.arm, arm.kind, arm.n, test.mean if test else None, test.ci95 if test else None, pairs.get(arm.arm),
            store.manifest.task.published_for(arm.arm, {**spec.settings, **(verdict.cell or {})}),
            unlearned_text(pairs[arm.arm], verdict) if arm.arm in pairs else "",
        ))
    file, changed = _nearest(spec, files or {})
    return ComparedSweep(
        verdict.sweep, store.root, verdict.task, verdict.data, {**_settings(spec), **(verdict.cell or {})}, file,
        {**changed, **(verdict.cell or {})}, objective.metric,
        objective.mode, verdict.complete, about, next((pair for pair in verdict.pairs if pair.primary), None),
        tuple(arms), rule_text(verdict), needed_text(verdict.pairs[0], verdict) if verdict.pairs else "",
        cells=verdict.cells, place=place_text(verdict),
    )


def _settings(spec: SweepSpec) -> dict[str, Scalar]:
    """What the sweep fixes about its problem: two sweeps of one task differ in these."""
    fraction = spec.training.model_dump(exclude_unset=True).get("label_fraction")
    size = {} if spec.size is None else {"size": spec.size}
    return {**size, **spec.settings, **({} if fraction is None else {"label_fraction": fraction})}


def _nearest(spec: SweepSpec, files: Mapping[str, SweepSpec]) -> tuple[str | None, dict[str, Scalar]]:
    """The file that a sweep is of, and the settings that differ from it.

    It is of the same task and data, or else of another data set and the sweep's name begins with its: `few-wine` is of
    `few`. Of several it is the one that has the sweep's name, or else the fewest other settings and arms.
    """
    ours = _settings(spec)
    best: tuple[tuple[bool, bool, int], str | None, dict[str, Scalar]] = ((True, True, 0), None, ours)
    for path, other in files.items():
        elsewhere = other.data.name != spec.data.name
        if other.task != spec.task or (elsewhere and not f"{spec.name}-".startswith(f"{other.name}-")):
            continue
        theirs = _settings(other)
        changed = {key: ours.get(key, "default") for key in {**theirs, **ours}
                   if key not in ours or key not in theirs or ours[key] != theirs[key]}
        if elsewhere:
            changed[OTHER_DATA] = spec.data.name
        distance = other.name != spec.name, elsewhere, len(changed) + len(set(spec.arms) ^ set(other.arms))
        if best[1] is None or distance < best[0]:
            best = (distance, path, changed)
    return best[1], best[2]
