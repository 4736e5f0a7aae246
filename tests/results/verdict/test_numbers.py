"""Numbers that are too small for their column keep their meaning."""

from __future__ import annotations

from raymae.results.verdict.numbers import duration, number


def test_a_small_negative_number_is_not_minus_nothing() -> None:
    assert number(-2e-7, 6) == "−2e−07"
    assert number(-0.0004, 3) == "−0.0004"
    assert number(-0.0, 3).lstrip("−") == "0.000"
    assert number(-0.25, 3) == "−0.250"


def test_almost_a_minute_is_a_minute() -> None:
    assert duration(59.97) == "1 min 00 s"
