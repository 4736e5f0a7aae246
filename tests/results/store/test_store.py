from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest
from tiny_task import DATA, ENVIRONMENT, report, tiny_schema, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results import Store
from raymae.results.store.columns import arrow_schema

Make = Callable[..., Store]


def test_what_was_written_is_read_back(make_store: Make, tmp_path: Path) -> None:
    with make_store() as store:
        store.write_config("t1", {"arm": "mae", "params": {"lr": 1e-3}})
        store.add_report(report("t1", 0, val_mse=math.nan))
        store.add_report(report("t1", 1, loss=math.inf))
        store.add_trial(trial("t1", size="debug"))
        store.write_verdict({"complete": True})
    found = Store.open(tmp_path / "ett")
    row = found.trials().iloc[0]
    assert (row["sweep"], row["task"], row["size"], row["data_source"], row["data_fingerprint"]) == (
        "ett", "tiny", "debug", "real", "abc123")
    assert row["norm_target"]
    assert row["epochs"] == 4
    assert row["started_at"].tzinfo is not None
    assert pd.isna(row["test_mse"])
    assert pd.isna(row["patch_size"])
    assert list(found.reports()["step"]) == [0, 1]
    assert found.reports()["loss"].iloc[1] == math.inf
    assert math.isnan(found.table("reports")["val_mse"].to_pylist()[0])
    assert found.configs() == {"t1": {"arm": "mae", "params": {"lr": 1e-3}}}
    assert found.verdict() == {"complete": True}
    assert found.environment() == ENVIRONMENT
    assert found.spec() == tiny_spec()
    assert found.objective() == tiny_schema().objective
    assert vars(found.manifest.data) == DATA
    assert found.manifest.raymae_version
    assert found.location == str(tmp_path / "ett")


def test_an_empty_sweep_has_typed_columns(make_store: Make) -> None:
    trials = make_store().trials()
    assert trials.empty
    assert str(trials["patch_size"].dtype) == "Int64"
    assert str(trials["norm_target"].dtype) == "boolean"


def test_every_part_has_the_pinned_schema(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    store.add_trial(trial("p", "persistence", stage="replicate", test_mse=1.0))
    store.add_trial(trial("m", "mae"))
    pinned = arrow_schema(store.manifest.columns["trials"])
    parts = sorted((tmp_path / "ett/trials").glob("*.parquet"))
    assert len(parts) == 2
    assert all(pa.parquet.read_schema(part).equals(pinned) for part in parts)


def test_plain_readers_need_only_a_glob(make_store: Make, tmp_path: Path) -> None:
    with make_store() as store:
        for number in range(3):
            store.add_trial(trial(f"t{number}"))
    folder = tmp_path / "ett/trials"
    (folder / ".part-torn.parquet.1-a.tmp").write_bytes(b"PAR1 half a file")
    assert len(pd.read_parquet(folder)) == 3
    assert pyarrow.dataset.dataset(folder).count_rows() == 3
    assert duckdb.sql(f"SELECT count(*) FROM '{folder}/*.parquet'").fetchall() == [(3,)]
    assert len(store.trials()) == 3


def test_reports_wait_for_flush_s_and_trials_do_not(make_store: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    store = make_store(flush_s=10.0)
    store.add_report(report("t1", 0))
    now[0] += 9.9
    store.add_report(report("t1", 1))
    assert len(store.reports()) == 0
    now[0] += 0.2
    store.add_report(report("t1", 2))
    assert len(store.reports()) == 3
    store.add_report(report("t1", 3))
    assert len(store.reports()) == 3
    store.add_trial(trial("t1"))
    assert len(store.reports()) == 4
    assert len(store.trials()) == 1


def test_trials_that_end_together_are_written_together(
    make_store: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    folder, store = tmp_path / "ett", make_store(flush_s=1e9, together_s=2.0)
    now[0] += 2.1

    def rows(dataset: str) -> int:
        return len(getattr(Store.open(folder), dataset)())  # as another process sees it

    store.add_trial(trial("t1"))
    assert rows("trials") == 1, "one that ends alone is written at once"
    for number in range(2, 6):
        store.add_report(report(f"t{number}", 0))
        store.add_trial(trial(f"t{number}"))
    assert rows("trials") == 1
    assert len(store.trials()) == 5, "who writes them reads them"
    assert (rows("trials"), rows("reports")) == (5, 4)
    assert len(list((folder / "trials").glob("*.parquet"))) == 2
    store.add_trial(trial("t6"))
    assert rows("trials") == 5
    deadline = time.time() + 20
    while rows("trials") < 6:
        assert time.time() < deadline, "nobody asks, nothing follows: it is written all the same"
        time.sleep(0.05)
    store.add_trial(trial("t7"))
    store.close()
    assert rows("trials") == 7


def test_of_rows_with_one_key_the_last_counts(make_store: Make) -> None:
    store = make_store()
    store.add_report(report("t1", 0, loss=1.0))
    store.add_report(report("t1", 0, loss=2.0))
    store.add_report(report("t1", 0, loss=3.0, attempt=1))
    assert list(store.reports()["loss"]) == [2.0, 3.0]


def test_parts_sort_by_time_even_if_the_clock_goes_back(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    store.add_report(report("t1", 0, loss=1.0))
    [part] = (tmp_path / "ett/reports").glob("*.parquet")
    part.rename(part.with_name("part-29990101T000000000000Z-1abc-000001.parquet"))
    make_store().add_report(report("t1", 0, loss=2.0))
    assert list(store.reports()["loss"]) == [2.0]


def test_the_same_sweep_is_continued(make_store: Make, tmp_path: Path) -> None:
    with make_store() as store:
        store.add_trial(trial("t1"))
    created = store.manifest.created_at
    changed = tiny_spec(results="elsewhere", resources={"workers": 4}, budget={"wall_minutes": 5})
    with make_store(spec=changed, environment={"python": "3.12"}) as store:
        store.add_trial(trial("t2"))
    found = Store.open(tmp_path / "ett")
    assert list(found.trials()["trial_id"]) == ["t1", "t2"]
    assert found.spec().resources.workers == 4
    assert found.manifest.created_at == created
    assert found.environment() == {"python": "3.12", "earlier": [ENVIRONMENT]}


def test_another_sweep_is_refused_key_by_key(make_store: Make, tmp_path: Path) -> None:
    make_store()
    other = tiny_spec(
        arms=["mae", "scratch"], replicates=3, training={}, budget={"wall_minutes": 5},
        space={"lr": {"loguniform": [1e-4, 2e-2]}},
    )
    with pytest.raises(ResultsError) as caught:
        make_store(spec=other, data={**DATA, "source": "synthetic", "fingerprint": "fff"})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'ett'}: holds a different sweep")
    assert "  space.lr.loguniform: [0.0001, 0.01] -> [0.0001, 0.02]" in lines
    assert "  replicates: 5 -> 3" in lines
    assert "  arms.gru: {} -> (absent)" in lines
    assert "  training.epochs: 4 -> (absent)" in lines
    assert "  data_found.source: 'real' -> 'synthetic'" in lines
    assert "  data_found.fingerprint: 'abc123' -> 'fff'" in lines
    assert not any("budget" in line for line in lines)
    assert "another name" in lines[-1]
    assert "--fresh" in lines[-1]
    assert "ett.old-1" in lines[-1]


def test_a_folder_of_before_a_column_was_added_is_continued(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    store.add_trial(trial("before"))
    store.close()
    path = tmp_path / "ett" / "sweep.json"
    plain = json.loads(path.read_text())
    for added in ("depth", "pretext_skill"):  # a parameter and a fixed column
        del plain["columns"]["trials"][added]
    path.write_text(json.dumps(plain))
    with make_store() as store:
        store.add_trial(trial("after", depth=3, pretext_skill=0.2))
        found = store.trials().set_index("trial_id")
    assert found.loc["before", ["depth", "pretext_skill"]].isna().all()
    assert found.loc["after", ["depth", "pretext_skill"]].tolist() == [3, 0.2]


def test_other_columns_are_refused(make_store: Make) -> None:
    make_store()
    with pytest.raises(ResultsError, match=r"other parameters or metrics[\s\S]*columns.trials.val_rmse: \(absent\)"):
        make_store(schema=tiny_schema(metrics=("mse", "abs_error", "rmse")))


def test_fresh_keeps_the_old_folder(make_store: Make, tmp_path: Path) -> None:
    for seen in range(3):
        store = make_store(spec=tiny_spec(replicates=seen), fresh=True)
        assert store.trials().empty
        store.add_trial(trial("t1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ett", "ett.old-1", "ett.old-2"]
    assert Store.open(tmp_path / "ett.old-2").spec().replicates == 1


def test_a_path_below_a_file_cannot_be_written(make_store: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file/ett"):
        with pytest.raises(ResultsError, match="cannot write results here: a file is in the way"):
            make_store(root=root)


def test_data_must_be_identified(make_store: Make) -> None:
    with pytest.raises(ResultsError, match="`fingerprint` is required"):
        make_store(data={"name": "x", "source": "real"})
    with pytest.raises(ResultsError, match="unknown source 'fake'"):
        make_store(data={**DATA, "source": "fake"})


def test_opening_what_is_no_sweep_names_those_nearby(make_store: Make, tmp_path: Path) -> None:
    make_store()
    with pytest.raises(ResultsError, match=r"no sweep here: looked for .*sweep.json. The folder holds .*/ett$"):
        Store.open(tmp_path)
    with pytest.raises(ResultsError, match="unknown sweep 'etth'; did you mean `ett`"):
        Store.open(tmp_path / "etth")
    (tmp_path / "ett/sweep.json").write_text('{"spec": 1')
    with pytest.raises(ResultsError, match="not valid JSON"):
        Store.open(tmp_path / "ett")
    (tmp_path / "ett/sweep.json").write_text('{"spec": {}}')
    with pytest.raises(ResultsError, match="not written by raymae"):
        Store.open(tmp_path / "ett")


def test_an_opened_store_cannot_write(make_store: Make, tmp_path: Path) -> None:
    make_store()
    store = Store.open(tmp_path / "ett")
    for write in (lambda: store.add_trial(trial("t")), lambda: store.write_config("t", {}), store.compact, store.flush):
        with pytest.raises(ResultsError, match="opened for reading"):
            write()
    store.close()


def test_files_hold_plain_finite_values_under_plain_names(make_store: Make) -> None:
    store = make_store()
    with pytest.raises(ResultsError, match="plain, finite"):
        store.write_verdict({"p": math.nan})
    for name in ("../escape", ".hidden", ""):
        with pytest.raises(ResultsError, match="a trial_id is"):
            store.write_config(name, {})
    assert store.verdict() is None


def test_a_damaged_part_is_named(make_store: Make, tmp_path: Path) -> None:
    store = make_store()
    (tmp_path / "ett/trials/part-20260101T000000000000Z-1-000001.parquet").write_bytes(b"PAR1 not parquet PAR1")
    with pytest.raises(ResultsError, match=r"trials: cannot read the 1 parts: .*part-20260101"):
        store.trials()


@pytest.mark.parametrize(
    ("results", "root"),
    [("results", "results/ett"), ("s3://bucket/x?region=eu-west-1", "s3://bucket/x/ett?region=eu-west-1")],
)
def test_root_of_a_spec(results: str, root: str) -> None:
    assert Store.root_of(tiny_spec(results=results)) == root


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ResultsError, match="ftp://host/x: not a usable storage location"):
        Store.open("ftp://host/x")


def test_sweep_json_is_plain(make_store: Make, tmp_path: Path) -> None:
    make_store()
    meta = json.loads((tmp_path / "ett/sweep.json").read_text())
    assert set(meta) == {"raymae_version", "created_at", "spec", "data", "task", "columns", "times_epochs",
                         "epoch_costs", "precision", "looked_before", "pretrains_on", "factors", "opened",
                         "may_open"}
    assert meta["task"]["arms"]["persistence"]["kind"] == "reference"
