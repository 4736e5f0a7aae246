"""The real ETTh1, read, split and scaled here, gives the numbers computed for it elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raymae.data.scaling import Scaler
from raymae.data.series import read_series
from raymae.data.splits import protocol_rows, protocol_splits


def test_report_protocol_on_etth1(real_etth1: Path) -> None:
    series = read_series(real_etth1, target="OT")
    rows = protocol_rows("report", len(series.times))
    test = np.array(protocol_splits("report", len(series.times), lookback=100, horizon=1, name="ETTh1")["test"])
    scaler = Scaler.fit(series.values_TC[slice(*rows["train"])], "minmax")
    truth_T = scaler.transform(series.values_TC)[:, series.target_index]

    persistence = truth_T[test] - truth_T[test - 1]
    assert len(test) == 1742
    assert np.mean(persistence**2) == pytest.approx(0.000695, abs=5e-7)
    assert np.mean(np.abs(persistence)) == pytest.approx(0.01765, abs=5e-6)
    constant = truth_T[test] - truth_T[slice(*rows["train"])].mean()
    assert np.mean(constant**2) == pytest.approx(0.0765, abs=5e-5)
    window = truth_T[test] - [truth_T[start - 100:start].mean() for start in test]
    assert np.mean(window**2) == pytest.approx(0.00787, abs=5e-6)
