from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from raymae.data.splits import Protocol, Split, protocol_rows, protocol_splits
from raymae.errors import DataError

ETT_ROWS = 17420
protocols = st.sampled_from(["report", "field"])


def test_report_borders_of_etth1() -> None:
    assert protocol_rows("report", ETT_ROWS) == {
        "train": Split(0, 12194), "val": Split(12194, 15678), "test": Split(15678, 17420),
    }
    splits = protocol_splits("report", ETT_ROWS, lookback=100, horizon=1, name="ETTh1")
    assert splits == {"train": range(100, 12194), "val": range(12194, 15678), "test": range(15678, 17420)}
    assert len(splits["test"]) == 1742


def test_field_borders_of_etth1() -> None:
    assert protocol_rows("field", ETT_ROWS) == {
        "train": Split(0, 8640), "val": Split(8640, 11520), "test": Split(11520, 14400),
    }
    splits = protocol_splits("field", ETT_ROWS, lookback=336, horizon=96, name="ETTh1")
    assert splits == {"train": range(336, 8545), "val": range(8640, 11425), "test": range(11520, 14305)}
    assert len(splits["test"]) == 2785


@given(protocols, st.integers(14400, 20000), st.integers(1, 700), st.integers(1, 700), st.integers(1, 700))
def test_windows_stay_inside_and_apart(
    protocol: Protocol, num_rows: int, lookback: int, other: int, horizon: int
) -> None:
    rows = protocol_rows(protocol, num_rows)
    splits = protocol_splits(protocol, num_rows, lookback=lookback, horizon=horizon, name="x")
    again = protocol_splits(protocol, num_rows, lookback=other, horizon=horizon, name="x")
    assert splits["val"] == again["val"]
    assert splits["test"] == again["test"]
    assert splits["train"].stop == again["train"].stop
    assert splits["train"].start == lookback  # every input inside train, and none lost
    for split, starts in splits.items():
        assert len(starts) > 0
        assert starts[0] - lookback >= 0
        assert starts[0] >= rows[split].start
        assert starts[-1] + horizon == rows[split].stop  # the last target row is scored, and none beyond
    assert rows["train"].start == 0
    assert rows["train"].stop == rows["val"].start < rows["val"].stop == rows["test"].start < rows["test"].stop
    assert rows["test"].stop <= num_rows


@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 30))
def test_the_rows_said_to_be_needed_are_enough_and_one_less_is_not(
    num_rows: int, lookback: int, horizon: int
) -> None:
    message = ""
    try:
        protocol_splits("report", num_rows, lookback=lookback, horizon=horizon, name="x")
    except DataError as error:
        message = str(error)
    assume(message)
    found = re.search(r"at least (\d+) rows are needed, there are (\d+)", message)
    assert found, message
    needed = int(found[1])
    assert int(found[2]) == num_rows
    assert needed > num_rows
    protocol_splits("report", needed, lookback=lookback, horizon=horizon, name="x")
    with pytest.raises(DataError):
        protocol_splits("report", needed - 1, lookback=lookback, horizon=horizon, name="x")


def test_every_size_that_fits_has_windows() -> None:
    for num_rows in range(10, 200):
        for lookback in (1, 7, 13):
            try:
                splits = protocol_splits("report", num_rows, lookback=lookback, horizon=1, name="x")
            except DataError:
                continue
            assert all(len(starts) for starts in splits.values())


@pytest.mark.parametrize(("protocol", "num_rows", "lookback", "horizon", "expected"), [
    ("report", 100, 70, 1, "own.csv: lookback=70 and horizon=1 do not fit the `report` splits of 100 rows "
                           "(train 70, val 20, test 10): at least 102 rows are needed, there are 100; "
                           "lookback may be at most 69 here"),
    ("report", 100, 8, 11, "at least 110 rows are needed, there are 100; horizon may be at most 10 here"),
    ("field", 14399, 8, 1, "own.csv: protocol `field` needs 14400 hourly rows, got 14399; try `report`"),
    ("field", 14400, 8640, 1, "lookback may be at most 8639 here"),
    ("field", 14400, 1, 2881, "horizon may be at most 2880 here"),
    ("report", 100, 0, 1, "lookback and horizon must be at least 1, got 0 and 1"),
    ("report", 100, 1, 0, "lookback and horizon must be at least 1, got 1 and 0"),
    ("reports", 100, 1, 1, "unknown protocol 'reports'; did you mean `report`"),
])
def test_errors(protocol: Protocol, num_rows: int, lookback: int, horizon: int, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        protocol_splits(protocol, num_rows, lookback=lookback, horizon=horizon, name="own.csv")
    assert expected in str(caught.value)
    assert str(caught.value).startswith("own.csv: ")
