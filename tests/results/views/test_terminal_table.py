from __future__ import annotations

import pytest
from rich.cells import cell_len

from raymae.results.views.terminal_table import text_table


def test_a_table_that_fits_stays_whole() -> None:
    assert text_table(["arm", "seeds", "ok"], [["mae", "scratch"], [5, None], [True, None]], 80) == (
        "arm      seeds  ok\n"
        "mae          5  True\n"
        "scratch   NULL  NULL\n"
    )


def test_more_columns_than_rows_are_turned_on_their_side() -> None:
    names = [f"column_{i}" for i in range(30)]
    text = text_table(names, [[i] for i in range(30)], 80)
    assert text.splitlines()[:3] == ["           row 1", "column_0   0", "column_1   1"]
    assert len(text.splitlines()) == 31


def test_many_rows_come_in_blocks_that_begin_with_what_tells_rows_apart() -> None:
    trials = [f"t{i}" for i in range(20)]
    columns = [trials, *([f"{name}{i}" * 8 for i in range(20)] for name in "abcdefgh")]
    blocks = text_table(["trial", *"abcdefgh"], columns, 60).split("\n\n")
    assert len(blocks) == 4
    assert all(block.split()[0] == "trial" and block.splitlines()[5].startswith("t4 ") for block in blocks)
    numbered = text_table(["arm", *"abcdefgh"], [["mae"] * 20, *columns[1:]], 60).split("\n\n")
    assert [line.split()[0:2] for line in numbered[1].splitlines()[1:3]] == [["row", "1"], ["row", "2"]]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("rows", [1, 3, 50])
@pytest.mark.parametrize("cell", ["x" * 500, "日本" * 100, "a\tb\n\x1b[31m" * 30, 0.1234567890123, None, ""])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut(width: int, rows: int, cell: object) -> None:
    names = ["n" * 200, *(f"c{i}" for i in range(12))]
    text = text_table(names, [[cell] * rows] * 13, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert text.replace("\n", "").isprintable()
    for part in ("x", "日", "\\x1b"):
        if part in str(cell).replace("\x1b", "\\x1b"):
            assert text.count(part) >= 13 * rows * str(cell).replace("\x1b", "\\x1b").count(part) - text.count("\n")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.25, 0.5], ["0.25", "0.50"]), ([3.0], ["3.0"]), ([0.38472913, 0.38472914], ["0.38472913", "0.38472914"]),
        ([0.1 + 0.2, 0.3], ["0.30000000000000004", "0.3"]), ([1 / 3], ["0.3333333"]), ([1e-9, 1.0], ["1e-09", "1"]),
        ([123456789.0], ["123456789.0"]), ([1e300, float("inf"), float("nan"), None], ["1e+300", "inf", "nan", "NULL"]),
        ([0.0, -0.0], ["0.0", "0.0"]), ([-0.000002, 0.5], ["-2e-06", "0.5"]), ([5e-324], ["4.940656e-324"]),
    ],
)
def test_numbers_that_differ_look_different(values: list[float | None], shown: list[str]) -> None:
    assert [line.strip() for line in text_table(["x"], [values], 80).splitlines()[1:]] == shown
