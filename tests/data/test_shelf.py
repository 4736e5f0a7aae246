from __future__ import annotations

import pytest

from raymae.data.shelf import Shelf


def test_a_function_reads_once_for_the_same_arguments_and_keeps_the_latest() -> None:
    shelf, read = Shelf(), []

    @shelf.keeps(2)
    def table(name: str, *, rows: int = 1) -> str:
        read.append((name, rows))
        return name * rows

    assert [table("a"), table("b"), table("a"), table("a", rows=2)] == ["a", "b", "a", "aa"]
    assert read == [("a", 1), ("b", 1), ("a", 2)]
    table("a")
    assert len(read) == 3  # "b" was unused for longest
    table("b")
    assert len(read) == 4
    assert len(shelf) == 2


def test_functions_do_not_push_each_other_out_and_all_are_forgotten_together() -> None:
    shelf, read = Shelf(), []

    @shelf.keeps(1)
    def first(name: str) -> object:
        read.append(name)
        return object()

    @shelf.keeps(1)
    def second(name: str) -> object:
        read.append(name)
        return object()

    one, other = first("x"), second("x")
    assert (first("x"), second("x")) == (one, other)
    assert len(shelf) == 2
    shelf.clear()
    assert len(shelf) == 0
    assert first("x") is not one
    assert read == ["x"] * 3


def test_what_could_not_be_read_is_tried_again() -> None:
    shelf, outcomes = Shelf(), iter([OSError("gone"), "here"])

    @shelf.keeps(1)
    def read() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    with pytest.raises(OSError, match="gone"):
        read()
    assert read() == "here"
