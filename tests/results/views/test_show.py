from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tiny_task import DATA, report, trial

from raymae.results import Store, render, summary
from raymae.results.verdict.numbers import aligned, duration, p_value, significant

Make = Callable[..., Store]


def text(store: Store) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115
    with console.file:
        console.print(render(summary(store)))
        return console.export_text()


def finished(make_store: Make, source: str = "real") -> Store:
    store = make_store(data={**DATA, "source": source})
    for arm, mean in (("mae", 6.17e-4), ("scratch", 6.3e-4), ("gru", 7.1e-4)):
        store.add_trial(trial(f"{arm}-s", arm, val_mse=mean, wall_s=3700.0))
        for seed in range(5):
            score = mean + (seed - 2) * 2e-6
            row = trial(f"{arm}-{seed}", arm, stage="replicate", test_mse=score, test_abs_error=score**0.5)
            store.add_trial(row)
    store.add_trial(trial("p", "persistence", stage="replicate", val_mse=None, test_mse=0.00102, test_abs_error=0.03))
    return store


def test_a_finished_sweep_fits_in_100_columns(make_store: Make) -> None:
    lines = text(finished(make_store)).splitlines()
    assert max(map(len, lines)) <= 100
    [mae] = [line for line in lines if line.startswith("mae ") and "pretrained" in line]
    assert mae.split() == ["mae", "pretrained", "6", "0", "0", "0.0006170", "0.0006170", "±", "0.0000039", "5",
                           "1", "h", "01", "min"]
    rows = [line for line in lines if line.startswith(("mae ", "scratch ", "gru ")) and "±" in line]
    assert len({line.index("±") for line in rows[:3]}) == 1
    [pair] = [line for line in lines if line.startswith("mae − scratch *")]
    assert pair.endswith("helps") or "helps " in pair
    assert "SYNTHETIC" not in "\n".join(lines)


def test_every_table_of_synthetic_data_says_so(make_store: Make) -> None:
    lines = text(finished(make_store, "synthetic")).splitlines()
    titles = [n for n, line in enumerate(lines) if line.startswith(("Arms, best", "Other test", "Differences in"))]
    assert len(titles) == 3
    assert all("SYNTHETIC DATA" in lines[n - 1] for n in titles)


def test_an_unfinished_sweep_has_a_summary(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    assert "No verdict yet: no trial is completed" in text(store)
    store.write_config("t1", {})
    store.write_config("t2", {})
    store.add_report(report("t1", 0))
    store.add_trial(trial("t1", val_mse=0.25))
    found = summary(Store.open(tmp_path / "ett")).to_json()
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert found["num_trials"] == {"started": 2, "unfinished": 1, "completed": 1, "stopped": 0, "failed": 0}
    assert found["num_reports"] == 1
    assert "best on validation is mae with mse 0.2500" in found["headline"]


def test_a_written_verdict_counts_once_it_is_complete(make_store: Make) -> None:
    store = finished(make_store)
    verdict = {**summary(store).verdict.to_json(), "task": "as written"}
    store.write_verdict({**verdict, "complete": False})
    assert summary(store).verdict.task == "tiny"
    store.write_verdict({**verdict, "complete": True})
    assert summary(store).verdict.task == "as written"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0006170, "0.0006170"), (12345.6, "12346"), (-0.5, "−0.5000"), (0.0, "0"), (1e-9, "1.000e−09"), (None, "–")],
)
def test_significant_digits(value: float | None, shown: str) -> None:
    assert significant(value) == shown


def test_columns_share_their_decimals() -> None:
    assert aligned([0.5, None, 0.0123]) == 5
    assert aligned([1000.0, 0.001]) is None
    assert [p_value(p) for p in (0.0001, 0.0042, 0.5, None)] == ["p < 0.001", "p = 0.004", "p = 0.50", "p –"]
    assert [duration(s) for s in (1.25, 245, 7620)] == ["1.2 s", "4 min 05 s", "2 h 07 min"]


def test_importing_the_room_is_light() -> None:
    heavy = "{'torch', 'ray', 'pandas', 'pyarrow', 'duckdb', 'scipy', 'rich'}"
    code = f"import raymae.results, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
