from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_task import TinyParams, tiny_schema, trial

from raymae.errors import ResultsError
from raymae.results.store.columns import arrow_schema, checked_row, columns_of, param_columns
from raymae.spec import Objective, param


def test_types_come_from_the_annotations() -> None:
    columns = columns_of(tiny_schema())["trials"]
    expected = {"mask_ratio": "double", "patch_size": "int64", "norm_target": "bool", "protocol": "string",
                "depth": "int64", "lr": "double", "precision": "string", "epochs": "int64", "test_mse": "double"}
    assert {name: columns[name] for name in expected} == expected
    schema = arrow_schema(columns)
    assert schema.field("norm_target").type == pa.bool_()
    assert schema.field("started_at").type == pa.timestamp("us", tz="UTC")


def test_parameters_are_told_from_fixed_and_metric_columns() -> None:
    assert set(param_columns(columns_of(tiny_schema())["trials"])) == set(TinyParams.model_fields)


@pytest.mark.parametrize("name", ["size", "Size", "wall_s", "test_share", "val_mse"])
def test_a_parameter_named_like_a_column_is_refused(name: str) -> None:
    clash = type("Clash", (TinyParams,), {"__annotations__": {name: int}, name: param(1, "clashes")})
    with pytest.raises(ResultsError, match=f"parameter `{name}` has the name of a results column"):
        columns_of(tiny_schema(params=clash))


def test_a_parameter_no_column_can_hold_is_refused() -> None:
    odd = type("Odd", (TinyParams,), {"__annotations__": {"widths": list[int]}, "widths": param([1], "a list")})
    with pytest.raises(ResultsError, match="`widths` has type"):
        columns_of(tiny_schema(params=odd))


def test_an_objective_that_is_not_a_metric_is_refused() -> None:
    with pytest.raises(ResultsError, match="unknown metric 'msee'; did you mean `mse`"):
        columns_of(tiny_schema(objective=Objective("msee", "min", "")))


def fit(**changes: Any) -> dict[str, Any]:
    return checked_row("trials", trial("t", sweep="ett", **changes), columns_of(tiny_schema())["trials"])


def test_a_row_has_every_column_and_numpy_scalars_fit() -> None:
    row = fit(val_mse=np.float32(0.25), attempt=np.int64(3), norm_target=np.True_, depth=2.0)
    assert list(row) == list(columns_of(tiny_schema())["trials"])
    assert (row["val_mse"], row["attempt"], row["norm_target"], row["depth"]) == (0.25, 3, True, 2)
    assert row["test_mse"] is None
    assert math.isnan(fit(val_mse=math.nan)["val_mse"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_msee": 1.0}, "unknown metric 'msee'; did you mean `mse`"),
        ({"mask_ration": 1.0}, "unknown column 'mask_ration'; did you mean `mask_ratio`"),
        ({"stage": "serach"}, "unknown stage 'serach'; did you mean `search`"),
        ({"status": "PRUNED"}, "unknown status 'PRUNED'"),
        ({"patch_size": 1.5}, "`patch_size` holds a whole number, got 1.5"),
        ({"norm_target": "yes"}, "`norm_target` holds true or false, got 'yes'"),
        ({"val_mse": "low"}, "`val_mse` holds a number, got 'low'"),
        ({"started_at": dt.datetime(2026, 1, 1)}, "`started_at` holds a datetime with a time zone"),
        ({"attempt": None}, "column `attempt` is required"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        fit(**changes)
