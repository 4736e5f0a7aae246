"""`raymae compare`: several sweeps as a table for the terminal, and as pages have them.

`markdown` has a table for each sweep, `short` one line for each sweep file; `into` writes either between its two
markers in a page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from raymae.errors import ResultsError
from raymae.results.verdict.numbers import half_width, interval_decimals, number, p_value, significant, with_interval
from raymae.results.verdict.statistics import Interval
from raymae.results.verdict.verdict import CellAnswer, Pair
from raymae.results.views.compare import OTHER_DATA, ComparedArm, ComparedSweep
from raymae.results.views.terminal_table import Remarks
from raymae.spec.factors import told
from raymae.spec.task import Published

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADER = ("arm", "mean ± 95 %", "seeds", "difference", "verdict", "published")
CELLS = ("cell", "arms", "first", "second", "difference", "verdict")
MOST_COLUMNS = 8  # cells beside each other: more of them are not read
SHORT = ("task", "data", "MAE", "same network without pretraining", "verdict")


def markers(short: bool = False) -> tuple[str, str]:
    """The lines of a page between which a table stands."""
    name = "compare short" if short else "compare"
    return f"<!-- {name} -->", f"<!-- /{name} -->"


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
        remarks = Remarks()
        for cells in rows_of(sweep, remarks.mark):
            drawn.add_row(*map(Text, cells))
        drawn.caption, drawn.caption_justify = Text("\n".join(remarks.notes())), "left"
        parts += [Text.assemble((sweep.sweep, "bold"), about), drawn]
        if found := list(rows_of_cells(sweep)):
            each = Table(*CELLS, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
            for cells in found:
                each.add_row(*map(Text, cells))
            parts.append(each)
        if found := list(arms_in_cells(sweep)):
            arms = Table(*arms_header(sweep), box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
                         show_edge=False)
            for cells in found:
                arms.add_row(*map(Text, cells))
            parts.append(arms)
        parts += [*map(Text, details_of(sweep, len(sweeps))), ""]
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
        if sweep.cells:
            lines += [*_markdown_table(CELLS, rows_of_cells(sweep)), ""]
        if found := list(arms_in_cells(sweep)):
            lines += [*_markdown_table(arms_header(sweep), found), ""]
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
    names = [(sweep.task, _problem_of(sweep)) for sweep, _ in chosen.values()]
    for sweep, pair in chosen.values():
        arms = {arm.arm: arm for arm in sweep.arms}
        alike = names.count((sweep.task, _problem_of(sweep))) > 1
        task = f"{sweep.task} ({sweep.sweep})" if alike else sweep.task
        arrow = "↓" if sweep.mode == "min" else "↑"
        state = "" if sweep.complete else ", unfinished"
        unlearned = arms[pair.b].unlearned.removeprefix(f"the pretraining of {pair.a} ")  # whose it is, the column says
        if sweep.cells:
            scores, word = [_over_cells(sweep, name) for name in (pair.a, pair.b)], _words_of_cells(sweep)
        else:
            scores = [_score(arms[name], sweep) for name in (pair.a, pair.b)]
            word = f"{sweep.word_all or pair.verdict}, {p_value(sweep.p_all)}"
        rows.append((task, f"{_problem_of(sweep)}: {sweep.metric} {arrow}", *scores,
                     word + state + (f"; {unlearned}" if unlearned else "")))
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


def _in_full(remark: str) -> str:
    return f"; {remark}" if remark else ""


def rows_of(sweep: ComparedSweep, mark: Callable[[str], str] = _in_full) -> Iterator[tuple[str, ...]]:
    """The cells of each arm, under `header_of`.

    Args:
        sweep: The sweep.
        mark: What stands behind a word of which something has to be said: that itself, or a mark.
    """
    for arm in sweep.arms:
        pair = arm.pair
        verdict = (f"{pair.verdict}, {p_value(pair.p_holm)}" if pair else "") + mark(arm.unlearned)
        yield (arm.arm, _score(arm, sweep), str(arm.n),
               with_interval(pair.difference, pair.ci95) if pair else "", verdict,
               _reported(arm.report, sweep))


def rows_of_cells(sweep: ComparedSweep) -> Iterator[tuple[str, ...]]:
    """Every comparison of arms that learn in every cell of a sweep's factors, under `CELLS`; the cells in their order.
    """
    for answer in sweep.cells:
        arms = {arm.arm: arm for arm in answer.arms}
        for pair in answer.pairs:
            if "reference" in (arms[pair.a].kind, arms[pair.b].kind):
                continue
            scores = [arms[name].metrics[pair.metric] for name in (pair.a, pair.b)]
            yield (told(answer.cell), f"{pair.a} − {pair.b}",
                   *(_mean(score.mean, score.ci95, pair.ci95) for score in scores),
                   with_interval(pair.difference, pair.ci95), f"{pair.verdict}, {p_value(pair.p_holm)}")


def arms_header(sweep: ComparedSweep) -> tuple[str, ...]:
    """The titles over `arms_in_cells`."""
    beside = f"arm; {sweep.about} beside it" if sweep.about else "arm"
    return beside, *(told(answer.cell) for answer in sweep.cells)


def arms_in_cells(sweep: ComparedSweep) -> Iterator[tuple[str, ...]]:
    """Every arm's score in every cell of a sweep's factors, and what is said of the arm that the sweep is about beside
    it, under `arms_header`. Nothing where there are too many cells to stand beside each other.
    """
    if not 1 < len(sweep.cells) <= MOST_COLUMNS:
        return
    for name in (arm.arm for arm in sweep.arms):
        yield name, *("; ".join([_in_cell(sweep, answer, name), *(
            pair.verdict for pair in answer.pairs if (pair.a, pair.b) == (sweep.about, name))])
            for answer in sweep.cells)


def details_of(sweep: ComparedSweep, num_sweeps: int) -> list[str]:
    """Sentences about the primary comparison: over seeds alone, beside other sweeps, what it needs, and its rule; first
    where the answer changes along a factor."""
    pair, lines = sweep.pair, [sweep.place] if sweep.place else []
    if pair is None:
        return [*lines, sweep.rule] if sweep.rule else lines
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
    changed = {key: value for key, value in sweep.changed.items() if key != OTHER_DATA}  # the name says it
    return ", ".join([name, *(f"{key}={value}" for key, value in changed.items())])


def _problem_of(sweep: ComparedSweep) -> str:
    """Likewise of all cells of a sweep, with the factors they are of in place of one cell's values."""
    factors = tuple(sweep.cells[0].cell) if sweep.cells else ()
    changed = {key: value for key, value in sweep.changed.items() if key not in factors}
    return data_of(replace(sweep, changed=changed)) + (f" by {', '.join(factors)}" if factors else "")


def _over_cells(sweep: ComparedSweep, name: str) -> str:
    """An arm's scores from the first cell to the last, such as `0.41 to 0.84`."""
    return " to ".join(_in_cell(sweep, answer, name).split(" ± ")[0] for answer in (sweep.cells[0], sweep.cells[-1]))


def _in_cell(sweep: ComparedSweep, answer: CellAnswer, name: str) -> str:
    """An arm's score in a cell."""
    score = next((arm.metrics.get(f"test_{sweep.metric}") for arm in answer.arms if arm.arm == name), None)
    beside = next((pair.ci95 for pair in answer.pairs if pair.primary), None)
    return _mean(score.mean, score.ci95, beside) if score else "–"


def _words_of_cells(sweep: ComparedSweep) -> str:
    """In how many cells which word is said: `helps in 3, undecided in 1 of 4 cells`."""
    words = [pair.verdict for answer in sweep.cells for pair in answer.pairs if pair.primary]
    found = ", ".join(f"{word} in {words.count(word)}" for word in dict.fromkeys(words))
    return f"{found} of {len(sweep.cells)} cells" if found else "no comparison yet"


def _score(arm: ComparedArm, sweep: ComparedSweep) -> str:
    return _mean(arm.mean, arm.ci95, sweep.pair.ci95 if sweep.pair else None)


def _mean(mean: float | None, ci95: Interval | None, beside: Interval | None) -> str:
    """Mean ± half-width of its interval: two digits of the half-width, or all that the difference beside it shows.

    Arms share the test examples, so that a difference between them is known better than either mean.
    """
    if mean is None:
        return "–"
    half, decimals = half_width(ci95), interval_decimals([ci95])
    if half is None or decimals is None:
        return significant(mean)
    decimals = max(decimals, (interval_decimals([beside]) if beside else None) or 0)
    return f"{number(mean, decimals)} ± {number(half, decimals)}"


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
