"""For which settings an arm beats another, for the terminal: a table a parameter, each with its sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raymae.results.verdict.effects import Effect, Explanation
from raymae.results.verdict.numbers import interval_decimals, number, significant
from raymae.spec.factors import said, told

if TYPE_CHECKING:
    from rich.console import RenderableType

_COLORS = {"helps": "green", "hurts": "red", "": ""}


def render(found: Explanation, warning: str = "") -> RenderableType:
    """The whole page: what it rests on, a table a parameter, and what it must not be taken for.

    Args:
        found: What is shown.
        warning: That the data is synthetic, or "".
    """
    from rich.console import Group
    from rich.text import Text

    better = "less" if found.mode == "min" else "more"
    cell = f", {told(found.cell)}" if found.cell else ""
    head = Text(f"{found.a} − {found.b} in {found.metric} by parameter{cell} ({better} is better)", style="bold")
    parts: list[RenderableType] = [Text(f" {warning} ", style="bold yellow on red")] if warning else []
    parts += [head, Text(found.basis)]
    if found.problem:
        return Group(*parts, "", Text(f"Nothing can be said: {found.problem}.", style="bold"))
    for effect in found.effects:
        parts += ["", Text(effect.says, style="bold"), _table(effect, found)]
    return Group(*parts, "", Text(found.mind))


def _table(effect: Effect, found: Explanation) -> RenderableType:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    title = effect.param if effect.shared else f"{effect.param} of {found.a}"
    for name in (title, "difference", "band from", "to"):
        table.add_column(escape(name), justify="right")
    table.add_column("")
    decimals = interval_decimals(effect.band)
    for value, difference, ends, clear in zip(effect.values, effect.difference, effect.band, effect.clear, strict=True):
        shown = significant(value, 3) if isinstance(value, float) and not effect.category else said(value)
        word = f"[{_COLORS[clear]}]{clear}[/]" if clear else ""
        table.add_row(escape(shown), *(number(one, decimals) for one in (difference, *ends)), word)
    return table
