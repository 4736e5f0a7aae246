from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymae.data.find.locate import locate
from raymae.data.synthetic.tables import COLUMNS, synthetic_table, table_content
from raymae.data.tables import read_table, split_rows, table_of
from raymae.errors import DataError
from raymae.spec.sweep import DataSpec


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"area": [1.5, None, 3.0, 4.0], "rooms": [1, 2, 2, 3], "kind": ["b", "a", None, "b"],
                         "new": [True, False, True, True]})


def test_the_real_housing(real_data: Path) -> None:
    path = locate(DataSpec(name="california-housing", root=str(real_data))).path
    assert path is not None
    table = read_table(path)
    assert table.values_RC.shape == (20640, 10)
    assert table.columns == COLUMNS
    assert table.categories[:9] == ((),) * 9
    assert table.categories[9] == ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")
    assert np.isnan(table.values_RC).sum(axis=0).tolist() == [0, 0, 0, 0, 207, 0, 0, 0, 0, 0]
    assert table.values_RC[0, [0, 3, 9]].tolist() == [-122.23, 880, 3]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_types_are_inferred_from_either_format(suffix: str, frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / f"some.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    table = read_table(path)
    assert table.categories == ((), (), ("a", "b"), (False, True))
    np.testing.assert_array_equal(
        table.values_RC, [[1.5, 1, 1, 1], [np.nan, 2, 0, 0], [3, 2, np.nan, 1], [4, 3, 1, 1]])
    assert table.is_categorical.tolist() == [False, False, True, True]


def test_types_can_be_overridden(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "some.csv", index=False)
    table = read_table(tmp_path / "some.csv", categorical=["rooms"], drop=["kind"])
    assert table.columns == ("area", "rooms", "new")
    assert table.categories[1] == (1, 2, 3)
    with pytest.raises(DataError, match=r"column 'kind' must be numeric, but row 1 holds 'b'; leave it empty"):
        read_table(tmp_path / "some.csv", numeric=["kind"])
    with pytest.raises(DataError, match=r"'room'.*rooms"):
        read_table(tmp_path / "some.csv", categorical=["room"])
    with pytest.raises(DataError, match="cannot be both"):
        read_table(tmp_path / "some.csv", categorical=["rooms"], numeric=["rooms"])


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"), (b"a,b\n", "at least one row"), (b"a,b\n1,2\ninf,2\n", "finite numbers, but row 2"),
    (b"a\n\xff\xfe\n", "UTF-8"), (b"a,b\n1,2\n1,2,3,4\n", ":3: has 4 cells, the header has 2"),
    (b"a\n1\n2\n", "holds one column"), (b"a,b,\n1,2,x\n", "column 3 has no name"),
])
def test_malformed_files_are_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad.csv.*{said}"):
        read_table(path)


def test_absent_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "nothing.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        read_table(tmp_path / "bad.parquet")


def test_an_identifier_is_no_category() -> None:
    with pytest.raises(DataError, match="'id' would have 300 categories, at most 256"):
        table_of(pd.DataFrame({"id": [f"row {n}" for n in range(300)]}))
    with pytest.raises(DataError, match="holds list cells"):
        table_of(pd.DataFrame({"a": [[1], [2]]}))


def test_rows_are_split_once_each_by_seed() -> None:
    parts = split_rows(100, (0.7, 0.1, 0.2), 3)
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 70, "val": 10, "test": 20}
    assert sorted(np.concatenate(list(parts.values()))) == list(range(100))
    assert parts["val"].tolist() != split_rows(100, (0.7, 0.1, 0.2), 4)["val"].tolist()
    with pytest.raises(DataError, match="2 rows are too few"):
        split_rows(2, (0.7, 0.1, 0.2), 0)


@pytest.fixture
def households(tmp_path: Path) -> Path:
    """60 people of 20 households, the last two without one."""
    path = tmp_path / "people.csv"
    lines = [f"{row},{'' if row > 57 else f'home {row % 20}'},{'ab'[row % 2]}" for row in range(60)]
    path.write_text("age,household,kind\n" + "\n".join(lines) + "\n")
    return path


def test_rows_of_a_group_are_in_one_split_and_its_column_is_no_value(households: Path) -> None:
    table = read_table(households, group="household")
    assert table.columns == ("age", "kind")
    assert table.groups is not None
    assert table.groups[:2] == table.groups[20:22] == ("home 0", "home 1")
    assert table.groups[58:] == ("row 59 alone", "row 60 alone")  # nobody else's
    parts = split_rows(60, (0.7, 0.1, 0.2), 0, table.groups)
    of = {name: {table.groups[row] for row in rows} for name, rows in parts.items()}
    assert {name: len(groups) for name, groups in of.items()} == {"train": 15, "val": 2, "test": 5}
    assert len(set().union(*of.values())) == 22
    assert sorted(np.concatenate(list(parts.values()))) == list(range(60))
    assert read_table(households).groups is None
    each = [f"{row:03d}" for row in range(60)]
    alone, plain = split_rows(60, (0.7, 0.1, 0.2), 0, each), split_rows(60, (0.7, 0.1, 0.2), 0)
    assert all(np.array_equal(alone[name], plain[name]) for name in plain)


def test_what_a_column_of_groups_must_be(households: Path) -> None:
    with pytest.raises(DataError, match="unknown column 'houshold'; did you mean `household`"):
        read_table(households, group="houshold")
    with pytest.raises(DataError, match="column 'household' says which rows belong together, so it is no column to"):
        read_table(households, group="household", categorical=["household"])
    with pytest.raises(DataError, match=r"2 groups are too few to split by .*: no group is left for"):
        split_rows(4, (0.7, 0.1, 0.2), 0, ["a", "a", "b", "b"])


def test_the_stand_in_has_the_form_of_housing() -> None:
    table = synthetic_table()
    assert table.values_RC.shape == (2000, 10)
    assert table_content() == synthetic_table().values_RC.tobytes() != synthetic_table(seed=1).values_RC.tobytes()
    assert 5 < np.isnan(table.values_RC).sum() == np.isnan(table.values_RC[:, 4]).sum() < 60
    assert set(table.values_RC[:, 9]) <= set(range(5))
    related = np.corrcoef(table.values_RC[:, [3, 5, 6]].T)
    assert related.min() > 0.5  # so that something can be imputed
    with pytest.raises(DataError, match="at least 2 rows, got 1"):
        synthetic_table(num_rows=1)
