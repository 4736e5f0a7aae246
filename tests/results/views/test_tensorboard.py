"""The event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_task import report, tiny_schema, tiny_spec, trial

from raymae.errors import ResultsError
from raymae.results.store.columns import columns_of
from raymae.results.views.tensorboard import LiveEvents, export, pictures_of, scalars

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs the package tensorboard")
COLUMNS = columns_of(tiny_schema())["trials"]


def read(folder: Path):
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return found


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def hparams_of(found):
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams


def test_a_whole_sweep(make_store, tmp_path):
    store = make_store()
    seed0 = "mae-0000-seed0"
    for trial_id, stage in (("mae-0000", "search"), (seed0, "replicate")):
        store.add_report(report(trial_id, 0, stage=stage, phase="pretrain", val_mse=None, loss=2.0))
        for step, value in ((1, 0.5), (2, 0.25), (3, float("nan"))):
            store.add_report(report(trial_id, step, stage=stage, val_mse=value))
    store.add_report(report("gru-0000", 0, "gru"))  # under way
    store.add_trial(trial("mae-0000", val_mse=0.25))
    store.add_trial(trial(seed0, stage="replicate", val_mse=0.25, test_mse=0.375))
    store.add_trial(trial("scratch-0000", "scratch", status="failed", val_mse=None, error="x"))  # at its start
    pictures = Path(store.root) / "pictures"
    pictures.mkdir()
    (pictures / f"{seed0}-window-1.png").write_bytes(png(7, 5))
    (pictures / "mae-0000-seed01-other.png").write_bytes(png(7, 5))
    assert export(store, tmp_path / "tb") == 4
    folders = {path.name for path in (tmp_path / "tb").iterdir() if path.is_dir()}
    assert folders == {"mae-0000", seed0, "gru-0000", "scratch-0000"}

    found = read(tmp_path / "tb" / seed0)
    assert [(one.step, one.value) for one in found.Scalars("val/mse")] == [(1, 0.5), (2, 0.25)]
    assert [(one.step, one.value) for one in found.Scalars("pretrain/loss")] == [(0, 2.0)]
    assert [one.step for one in found.Scalars("finetune/lr")] == [1, 2, 3]
    assert found.Scalars("test_mse")[0].value == 0.375
    image, = found.Images("pictures/window-1")
    assert (image.width, image.height) == (7, 5)
    values = hparams_of(found)
    assert values["arm"].string_value == "mae"
    assert values["lr"].number_value == 1e-3
    assert values["mask_ratio"].number_value == 0.75
    assert "norm_target" not in values  # the same in every trial: it would stand before what was searched

    search = read(tmp_path / "tb" / "mae-0000")
    assert search.Tags()["images"] == []
    assert "test_mse" not in search.Tags()["scalars"]
    assert search.Scalars("val_mse")[0].value == 0.25
    with pytest.raises(ResultsError, match="holds something already"):
        export(store, tmp_path / "tb")


def test_the_experiment_has_the_parameters_of_every_arm(make_store, tmp_path):
    """TensorBoard shows the columns of the first description it finds, so there is one, and it is complete."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    store = make_store(spec=tiny_spec(arms={"mae": {"depth": 2}, "gru": {"lr": 0.01}, "persistence": {}}))
    store.add_trial(trial("persistence-0", "persistence"))
    store.add_trial(trial("mae-0"))
    export(store, tmp_path / "tb")
    tag = "_hparams_/experiment"
    content = read(tmp_path / "tb").SummaryMetadata(tag).plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert [info.name for info in experiment.hparam_infos] == ["lr", "mask_ratio", "depth", "arm", "stage", "seed"]
    assert [info.name.tag for info in experiment.metric_infos] == ["val_mse", "test_mse"]
    for name in ("persistence-0", "mae-0"):
        with pytest.raises(KeyError):
            read(tmp_path / "tb" / name).SummaryMetadata(tag)


def test_two_attempts_within_a_second_are_both_kept(tmp_path):
    for attempt in range(2):
        with LiveEvents(str(tmp_path), "val_mse", COLUMNS, ["lr"], print) as events:
            events.reported(report("mae-0", attempt), {})
    assert len(list((tmp_path / "tensorboard" / "mae-0").iterdir())) == 2
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "mae-0"))
    found.Reload()
    assert [one.step for one in found.Scalars("val/mse")] == [0, 1]


def test_boto3_is_not_imported_for_it_and_can_be_afterwards():
    pytest.importorskip("boto3")
    code = ("import sys; from raymae.results.views.tensorboard import _imported; _imported(); "
            "assert 'boto3' not in sys.modules; import tensorboardX, boto3; print(boto3.__name__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["boto3"], done.stderr


def test_storage_that_fails_is_said_once_and_hurts_nothing(tmp_path):
    (tmp_path / "tensorboard").write_text("a file is in the way")
    said: list[str] = []
    with LiveEvents(str(tmp_path), "val_mse", COLUMNS, ["lr"], said.append) as events:
        for step in range(3):
            events.reported(report("mae-0", step), {})
        events.ended(trial("mae-0"), None)
    assert len(said) == 1
    assert "raymae export" in said[0]


def test_nothing_is_written_to_an_object_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LiveEvents("s3://bucket/x?region=us-east-1", "val_mse", COLUMNS, ["lr"], print) as events:
        events.reported(report("mae-0", 0), {})
        events.ended(trial("mae-0"), None)
    assert list(tmp_path.iterdir()) == []


def test_scalars_leave_out_what_is_no_number():
    row = report("a", 0, val_mse=float("inf"), val_abs_error=0.5, loss=None)
    assert scalars(row) == {"val/abs_error": 0.5, "finetune/lr": 1e-3}


def test_a_search_trial_has_no_pictures(make_store):
    assert pictures_of(make_store()._folder, trial("mae-0000"), ["mae-0000-seed0-x.png"]) == {}
