"""`raymae compare`: the arms of several sweeps beside each other, and beside what others have published.

`markdown` has a table for each sweep, `short` one line for each sweep file; `into` writes either between its two
markers in a page. Settings are shown where they differ from those of the sweep file that a sweep was made from.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from raymae.errors import ResultsError, SpecError
from raymae.results.store.folder import Folder
from raymae.results.store.layout import SWEEP
from raymae.results.store.store import Store
from raymae.results.verdict.headline import needed_text, rule_text, unlearned_text
from raymae.results.verdict.judge import verdict_now
from raymae.results.verdict.numbers import half_width, interval_decimals, p_value, significant, with_interval
from raymae.results.verdict.statistics import LEVEL, Interval, adjusted
from raymae.results.verdict.verdict import Pair, SweepData, Word, plain
from raymae.spec import SweepSpec, load_sweep
from raymae.spec.space import Scalar
from raymae.spec.task import ArmKind, Mode, Published

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADER = ("arm", "mean ± 95 %", "seeds", "difference", "verdict", "published")
SHORT = ("task", "data", "MAE", "same network without pretraining", "verdict")


def markers(short: bool = False) -> tuple[str, str]:
    """The lines of a page between which a table stands."""
    name = "compare short" if short else "compare"
    return f"<!-- {name} -->", f"<!-- /{name} -->"


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
    )


def _settings(spec: SweepSpec) -> dict[str, Scalar]:
    """What the sweep fixes about its problem: two sweeps of one task differ in these."""
    fraction = spec.training.model_dump(exclude_unset=True).get("label_fraction")
    size = {} if spec.size is None else {"size": spec.size}
    return {**size, **spec.settings, **({} if fraction is None else {"label_fraction": fraction})}


def _nearest(spec: SweepSpec, files: Mapping[str, SweepSpec]) -> tuple[str | None, dict[str, Scalar]]:
    """The file of the same task and data with the fewest other settings and arms, and the settings that differ."""
    ours = _settings(spec)
    best: tuple[int, str | None, dict[str, Scalar]] = (0, None, ours)
    for path, other in files.items():
        if (other.task, other.data.name) != (spec.task, spec.data.name):
            continue
        theirs = _settings(other)
        changed = {key: ours.get(key, "default") for key in {**theirs, **ours}
                   if key not in ours or key not in theirs or ours[key] != theirs[key]}
        distance = len(changed) + len(set(spec.arms) ^ set(other.arms))
        if best[1] is None or distance < best[0]:
            best = (distance, path, changed)
    return best[1], best[2]


def table(sweeps: Sequence[ComparedSweep]) -> RenderableType:
    """Draw one row for each sweep and arm, for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for sweep in sweeps:
        state = "" if sweep.complete else ", unfinished"
        about = f"  {sweep.task} on {data_of(sweep)}, test {sweep.metric}{state}"
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
        for title, width in zip(header_of(sweep), (14, 24, 5, 26, 20, 22), strict=True):
            drawn.add_column(title, width=width, justify="left" if title in ("arm", "verdict") else "right")
        for cells in rows_of(sweep):
            drawn.add_row(*map(Text, cells))
        parts += [Text.assemble((sweep.sweep, "bold"), about), drawn, *map(Text, details_of(sweep, len(sweeps))), ""]
    return Group(*parts[:-1])


def markdown(sweeps: Sequence[ComparedSweep]) -> str:
    """Write a table for each sweep, one row an arm, between two markers."""
    start, end = markers()
    lines = [start]
    for sweep in sweeps:
        state = "" if sweep.complete else ", unfinished"
        file = f", of `{sweep.file}`" if sweep.file else ""
        better = "less" if sweep.mode == "min" else "more"
        lines += [f"**{_escaped(sweep.sweep)}**{file}: {sweep.task} on {_escaped(data_of(sweep))}; test "
                  f"{sweep.metric}, {better} is better{state}", "",
                  *_markdown_table(header_of(sweep), rows_of(sweep)), ""]
        lines += [_escaped(" ".join(details_of(sweep, len(sweeps)))), ""]
    return "\n".join([*lines[:-1], end]) + "\n"


def short(sweeps: Sequence[ComparedSweep]) -> str:
    """Write one line for each sweep file with a primary comparison, between two markers.

    Of several sweeps of one file, the one whose settings are nearest to the file's stands for it.
    """
    chosen: dict[str, tuple[ComparedSweep, Pair]] = {}
    for sweep in sweeps:
        key = sweep.file or sweep.root
        if sweep.pair and (key not in chosen or len(sweep.changed) < len(chosen[key][0].changed)):
            chosen[key] = (sweep, sweep.pair)
    rows = []
    names = [(sweep.task, data_of(sweep)) for sweep, _ in chosen.values()]
    for sweep, pair in chosen.values():
        arms = {arm.arm: arm for arm in sweep.arms}
        alike = names.count((sweep.task, data_of(sweep))) > 1
        task = f"{sweep.task} ({sweep.sweep})" if alike else sweep.task
        arrow = "↓" if sweep.mode == "min" else "↑"
        state = "" if sweep.complete else ", unfinished"
        unlearned = arms[pair.b].unlearned.removeprefix(f"the pretraining of {pair.a} ")  # whose it is, the column says
        rows.append((task, f"{data_of(sweep)}: {sweep.metric} {arrow}",
                     _score(arms[pair.a], sweep), _score(arms[pair.b], sweep),
                     f"{sweep.word_all or pair.verdict}, {p_value(sweep.p_all)}{state}"
                     + (f"; {unlearned}" if unlearned else "")))
    start, end = markers(short=True)
    return "\n".join([start, *_markdown_table(SHORT, rows), end]) + "\n"


def into(text: str, written: str, where: str) -> str:
    """Put sweeps into a page: those that stand there already are replaced, the others stay as they are.

    Args:
        text: The page.
        written: What `markdown` or `short` returned, its markers included.
        where: The page's name, for the message.

    Raises:
        ResultsError: The page has not exactly one pair of the same markers.
    """
    lines = written.splitlines()
    start, end = lines[0], lines[-1]
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise ResultsError(f"{where}: needs one {start} and after it one {end}, got {text.count(start)} and "
                           f"{text.count(end)}; the table goes between them")
    before, _, rest = text.partition(start)
    old, _, after = rest.partition(end)
    long = (start, end) == markers()
    between = "\n\n" if long else "\n"
    kept = {**_entries(old.splitlines(), long), **_entries(lines[1:-1], long)}
    return f"{before}{start}\n{between.join(kept.values())}\n{end}{after}"


def _entries(lines: Iterable[str], long: bool) -> dict[str, str]:
    """The text of each sweep between two markers: by its name, or in the short table by its task and data."""
    entries: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        if long and line.startswith("**"):
            name = line.split("**")[1]
        elif not long and line.startswith("|"):
            name = " | ".join(line.split(" | ")[:2])
        if name:
            entries.setdefault(name, []).append(line)
    return {name: "\n".join(text).strip() for name, text in entries.items()}


def header_of(sweep: ComparedSweep) -> tuple[str, ...]:
    """The titles over a sweep's rows."""
    difference = f"{sweep.about} minus it" if sweep.about else "difference"
    return tuple(difference if title == "difference" else title for title in HEADER)


def rows_of(sweep: ComparedSweep) -> Iterator[tuple[str, ...]]:
    """The cells of each arm, under `header_of`."""
    for arm in sweep.arms:
        pair = arm.pair
        verdict = f"{pair.verdict}, {p_value(pair.p_holm)}" if pair else ""
        verdict += f"; {arm.unlearned}" if arm.unlearned else ""
        yield (arm.arm, _score(arm, sweep), str(arm.n),
               with_interval(pair.difference, pair.ci95) if pair else "", verdict,
               _reported(arm.report, sweep))


def details_of(sweep: ComparedSweep, num_sweeps: int) -> list[str]:
    """Sentences about the primary comparison: over seeds alone, beside other sweeps, what it needs, and its rule."""
    pair = sweep.pair
    if pair is None:
        return [sweep.rule] if sweep.rule else []
    lines = []
    mean = next((arm.mean for arm in sweep.arms if arm.arm == pair.b), None)
    if mean:
        share = 100 * pair.difference / abs(mean)
        lines.append(f"{pair.a} is {significant(abs(share), 2)} % {'above' if share > 0 else 'below'} {pair.b}.")
    if pair.ci95_seeds is not None and pair.ci95_seeds != pair.ci95:
        seeds = with_interval(pair.difference, pair.ci95_seeds)
        lines.append(f"{pair.a} − {pair.b} over seeds alone: {seeds}, {p_value(pair.p_seeds)}.")
    if num_sweeps > 1:
        lines.append(f"Adjusted for the {num_sweeps} sweeps here: {sweep.word_all}, {p_value(sweep.p_all)}.")
    return [*lines, *filter(None, (sweep.needed, sweep.rule))]


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return lines + [f"| {' | '.join(map(_escaped, row))} |" for row in rows]


def data_of(sweep: ComparedSweep) -> str:
    """The data of a sweep, and the settings that make it another problem."""
    name = sweep.data.name + (" (SYNTHETIC)" if sweep.data.source == "synthetic" else "")
    return ", ".join([name, *(f"{key}={value}" for key, value in sweep.changed.items())])


def _score(arm: ComparedArm, sweep: ComparedSweep) -> str:
    """Mean ± half-width of its interval: two digits of the half-width, or all that the primary difference shows.

    Arms share the test examples, so that a difference between them is known better than either mean.
    """
    if arm.mean is None:
        return "–"
    half, decimals = half_width(arm.ci95), interval_decimals([arm.ci95])
    if half is None or decimals is None:
        return significant(arm.mean)
    decimals = max(decimals, (interval_decimals([sweep.pair.ci95]) if sweep.pair else None) or 0)
    return f"{arm.mean:.{decimals}f} ± {half:.{decimals}f}"


def _reported(report: Published | None, sweep: ComparedSweep) -> str:
    """The published number, with its metric and its data where they are not this sweep's, and its note."""
    if report is None:
        return ""
    ours = _plain(sweep.data.name)
    about = [report.metric] if report.metric != sweep.metric else []
    about += [] if _plain(report.data) in ours or ours in _plain(report.data) else [f"on {report.data}"]
    about = [" ".join(about), report.note] if about else [report.note]
    return f"{report.value:g}" + (f" ({'; '.join(filter(None, about))})" if any(about) else "")


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace("|", "\\|")
    return " ".join(re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).split())
