"""`raymae report`: one HTML page that opens without a network, and the same answer in Markdown."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from functools import lru_cache
from importlib.resources import files
from typing import Any

from raymae.errors import ResultsError
from raymae.results.report.content import Importance, ReportContent, collect
from raymae.results.report.intervals import DARK, LIGHT, per_cent
from raymae.results.store.folder import Folder
from raymae.results.store.layout import REPORT_HTML, REPORT_MD
from raymae.results.store.store import Store
from raymae.results.verdict.arms_table import arms_table
from raymae.results.verdict.effects import Explanation
from raymae.results.verdict.headline import rule_text, worded
from raymae.results.verdict.matrix import Matrix
from raymae.results.verdict.numbers import p_cell, significant, span
from raymae.spec.factors import told


def render_report(
    store: Store | str | os.PathLike[str], *, importance: Importance | None = None,
    explanation: Explanation | None = None,
) -> str:
    """The report of a sweep, finished or not, as one HTML page.

    Args:
        store: The sweep, or its folder as a path or a URI.
        importance: From arm to parameter to its share of importance (see
            `raymae.search.decide.importance`); None where nobody computed it.
        explanation: For which settings it helps (see `raymae.results.verdict.effects`); None likewise.

    Raises:
        ResultsError: No sweep there, or the storage failed.
    """
    return page_of(collect(store if isinstance(store, Store) else Store.open(store), importance, explanation))


def write_report(
    store: Store, *, importance: Importance | None = None, explanation: Explanation | None = None,
    to: str | None = None,
) -> tuple[str, str]:
    """Write `report.html` and `report.md`.

    Args:
        store: The sweep.
        importance: As in `render_report`.
        explanation: Likewise.
        to: Folder or URI to write them to; the sweep's own by default.

    Returns:
        Where the two were written.

    Raises:
        ResultsError: The storage failed.
    """
    content = collect(store, importance, explanation)
    folder = Folder(to if to is not None else store.root)
    try:
        folder.make()
        for name, text in ((REPORT_HTML, page_of(content)), (REPORT_MD, markdown_of(content))):
            folder.write(name, text.encode())
    except OSError as error:
        raise ResultsError(f"{folder.root}: cannot write the report: {error}; name another folder with --to") from None
    return folder.uri(REPORT_HTML), folder.uri(REPORT_MD)


def page_of(content: ReportContent) -> str:
    """The HTML page of a report.

    Text is escaped by the template, data is JSON in which no tag can end, and the page's own policy forbids every
    connection, every form, and every script but the two it was written with.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters |= {"significant": significant, "span": span, "p_cell": p_cell}
    environment.globals |= {"per_cent": per_cent, "worded": worded, "palette": list(zip(LIGHT, DARK, strict=True))}
    scripts = [plotly(), _asset("page.js")]
    return environment.from_string(_asset("page.html.j2")).render(
        **vars(content), cell=told(content.verdict.cell or {}), rows=arms_table(content.verdict),
        rule=rule_text(content.verdict),
        css=_asset("page.css"), plotly=scripts[0], script=scripts[1],
        data=json_in_html(content.plots), importance_data=json_in_html(content.importance or {}),
        hashes=" ".join(map(_hash, scripts)),
    )


def json_in_html(value: Any) -> str:
    """JSON that may stand inside a `<script type="application/json">`: no `<`, `>` or `&` of anybody's text is left.

    Dataclasses become objects.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=vars)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@lru_cache(maxsize=1)
def plotly() -> str:
    """The drawing library, as its Python package brings it."""
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script")


def _asset(name: str) -> str:
    return (files("raymae.results.report") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=4)
def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def markdown_of(content: ReportContent) -> str:
    """The summary of a report, as Markdown."""
    verdict, metric = content.verdict, content.verdict.objective.metric
    count = content.num_trials
    lines = [f"# {_md(verdict.sweep)}", "", f"**{_md(content.headline)}**", ""]
    lines += [f"{_md(verdict.task)} on {_md(verdict.data.name)} ({verdict.data.source} data); "
              f"{count.completed} trials completed, {count.stopped} stopped, {count.failed} failed.", ""]
    if content.matrix:
        lines += [*_cells(content.matrix), "", f"In the cell {_md(told(verdict.cell or {}))}:", ""]
    rows = arms_table(verdict)
    skilled = any(row.skill for row in rows)
    lines += [f"| arm | test {metric}, mean | 95 % interval | compute | seeds | best val {metric} |"
              + " pretraining's skill |" * skilled, "|---|---|---|---|---|---|" + "---|" * skilled]
    lines += [f"| {_md(row.arm)} | {row.test} | {row.interval} | {row.compute} | {row.seeds} | {row.val} |"
              + f" {row.skill} |" * skilled for row in rows]
    if verdict.pairs:
        lines += ["", "| difference | value | 95 % interval | over seeds alone | % of the other | p (Holm) | verdict |",
                  "|---|---|---|---|---|---|---|"]
        for pair in verdict.pairs:
            lines.append(f"| {_md(pair.a)} − {_md(pair.b)} | {significant(pair.difference)} | {span(pair.ci95)} | "
                         f"{span(pair.ci95_seeds)} | {per_cent(pair, verdict) or '–'} | {p_cell(pair.p_holm)} | "
                         f"{worded(pair, verdict)} |")
    if content.importance:
        lines += ["", "## What mattered", ""]
        for name, shares in content.importance.items():
            listed = ", ".join(f"{_md(param)} {share:.0%}" for param, share in shares.items())
            lines.append(f"* {_md(name)}: {listed}")
    if content.explanation:
        lines += ["", "## For which settings it helps", "", *_explained(content.explanation)]
    if content.failed:
        lines += ["", "## Failed trials", ""]
        lines += [f"* {_md(failure.trial_id)}: {_md(failure.error.strip().splitlines()[0])}"
                  for failure in content.failed]
    if content.models:
        lines += ["", "## Use what it found", ""]
        for use in content.models:
            lines += [f"{_md(use.arm)}: {use.num_models} of its replicates, {use.size}, best in {_md(use.file)}", "",
                      f"    {use.shell}", f"    {use.python}", ""]
        lines.pop()
    if content.command:
        lines += ["", "## Again", "", f"    {content.command}"]
    return "\n".join(lines) + "\n"


def _explained(found: Explanation) -> list[str]:
    """What is clear of each parameter, as lines of Markdown."""
    if found.problem:
        return [_md(f"Nothing can be said: {found.problem}.")]
    return [*(f"* {_md(effect.says)}" for effect in found.effects), "", _md(f"{found.basis} {found.mind}")]


def _cells(matrix: Matrix) -> list[str]:
    """The table of cells, as lines of Markdown."""
    titles = [*matrix.factors, matrix.a or "first arm", matrix.b or "second arm", "difference", "95 % interval",
              "p (Holm)", "verdict", "skill"]
    return [f"| {' | '.join(map(_md, titles))} |", "|---" * len(titles) + "|",
            *(f"| {' | '.join(map(_md, (*row.named(), *row.cells())))} |" for row in matrix.rows),
            *(["", f"{matrix.note}."] if matrix.note else [])]


def _md(text: str) -> str:
    """Text that stays text in a Markdown table."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
