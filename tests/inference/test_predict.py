"""`raymae predict` on held-out real files: what it writes has the recorded score, by other people's libraries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.metrics import accuracy_score, confusion_matrix, mean_squared_error, r2_score

from raymae import load_model
from raymae.cli import main
from raymae.results.store.store import Store
from raymae.spec.trial import TrialConfig
from raymae.tasks import task_class

from .finished import finished

TEXT = """
name: {task}
task: {task}
size: debug
data: {{name: {name}, path: "{path}"}}
arms: [mae]
settings: {settings}
search: {{num_trials: 1, scheduler: none}}
training: {{epochs: 1}}
replicates: {replicates}
"""
SETTINGS = {"forecasting": {"horizon": 2}, "volumes": {"num_classes": 3, "intensity": "volume"}}
Sweep = tuple[Path, Any]  # the results folder, and the task of its best replicate, with its data


@pytest.fixture(scope="session")
def sweep_of(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sweep]:
    """A finished sweep of debug size over real files."""
    made: dict[str, Sweep] = {}

    def files(task: str, folder: Path) -> tuple[str, Path]:
        if task == "volumes":
            source = real_data / "hippocampus" / "Task04_Hippocampus"
            for kind in ("imagesTr", "labelsTr"):
                (folder / kind).mkdir()
                for path in sorted((source / kind).glob("hippocampus_*"))[:20]:
                    shutil.copy(path, folder / kind)
            return "own", folder
        if task == "imputation":
            lines = (real_data / "california_housing" / "housing.csv").read_text().splitlines(keepends=True)
            (folder / "some.csv").write_text("".join(lines[:1] + lines[1::9]))
            return "own", folder / "some.csv"
        return {
            "forecasting": ("ETTh1", real_data / "ett" / "ETTh1.csv"), "segmentation": ("CamVid", real_data / "camvid"),
            "classification": ("tiny-imagenet-mini", real_data / "tiny_imagenet" / "mini" / "tiny-imagenet-200"),
        }[task]

    def make(task: str) -> Sweep:
        if task not in made:
            torch.set_num_threads(1)
            name, path = files(task, tmp_path_factory.mktemp(f"{task}-data"))
            if not path.exists():
                pytest.skip(f"needs {path}")
            text = TEXT.format(task=task, name=name, path=path, settings=json.dumps(SETTINGS.get(task, {})),
                               replicates=2 if task == "classification" else 1)
            store: Store = finished(tmp_path_factory.mktemp(task), text)
            card = load_model(store.location, device="cpu").card
            made[task] = Path(store.location), task_class(task)(TrialConfig.from_json(card.config), torch.device("cpu"))
        return made[task]

    return make


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments), "--device", "cpu"])


def recorded(folder: Path, metric: str) -> float:
    return load_model(folder, device="cpu").card.scores[f"test_{metric}"]


def test_forecasts(sweep_of: Callable[[str], Sweep], real_data: Path, tmp_path: Path) -> None:
    folder, task = sweep_of("forecasting")
    file, to = real_data / "ett" / "ETTh1.csv", tmp_path / "out.csv"
    command = [sys.executable, "-m", "raymae.cli", "predict", folder, file, "--to", to, "--backtest", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["written"] == [str(to)]
    rows = pd.read_csv(to, parse_dates=["made_at", "time"])
    tested = pd.DatetimeIndex(task.data.times[task.splits["test"]])
    rows = rows[rows["made_at"].isin(tested - pd.Timedelta(hours=1))]
    truth = pd.read_csv(file, parse_dates=["date"]).set_index("date")["OT"]
    train = truth.iloc[:int(.7 * len(truth))]
    half = (train.max() - train.min()) / 2
    score = mean_squared_error(truth[rows["time"]] / half, rows["forecast"] / half)
    assert score == pytest.approx(recorded(folder, "mse"), rel=1e-5)


def test_classes_and_an_ensemble_with_bad_files_among_good_ones(
    sweep_of: Callable[[str], Sweep], real_data: Path, tmp_path: Path
) -> None:
    folder, _ = sweep_of("classification")
    images = tmp_path / "in"
    source = real_data / "tiny_imagenet" / "mini" / "tiny-imagenet-200" / "val"
    shutil.copytree(source / "images", images)
    first = sorted(images.iterdir())[0]
    (images / "000.png").write_bytes(first.read_bytes()[:100])
    (images / "zzz.jpg").write_text("no image")
    found = predict(folder, images, "--to", tmp_path / "one.csv")
    assert found.exit_code == 1
    good = len(list(images.iterdir())) - 2
    assert f"{good} of {good + 2} inputs predicted by mae" in found.stdout
    assert f"written to {tmp_path / 'one.csv'}; 2 failed" in found.stdout
    bad = [str(images / "000.png"), str(images / "zzz.jpg")]
    assert re.findall(r"error: (\S+): damaged image", found.stderr) == bad
    labels = pd.read_csv(source / "val_annotations.txt", sep="\t", header=None).set_index(0)[1]
    one = pd.read_csv(tmp_path / "one.csv").set_index("file")
    assert accuracy_score(labels[one.index], one["class"]) == pytest.approx(recorded(folder, "top1"), abs=1e-12)
    for path in (images / "000.png", images / "zzz.jpg"):
        path.unlink()
    both = predict(folder, images, "--to", tmp_path / "both.parquet", "--ensemble", "--json")
    assert both.exit_code == 0
    said = json.loads(both.stdout)
    assert said | {"trials": len(said["trials"])} == {
        "arm": "mae", "trials": 2, "predicted": good, "failed": [], "written": [str(tmp_path / "both.parquet")]}
    members = load_model(folder, ensemble=True, device="cpu").members
    mean = np.mean([member.predict(first).filter(like="p_").to_numpy()[0] for member in members], axis=0)
    row = pd.read_parquet(tmp_path / "both.parquet").set_index("file").loc[first.name]
    assert np.allclose(row.filter(like="p_").astype(float), mean)


def test_masks(sweep_of: Callable[[str], Sweep], tmp_path: Path) -> None:
    folder, task = sweep_of("segmentation")
    (tmp_path / "in").mkdir()
    for source in task.data.test.sources:
        shutil.copy(source, tmp_path / "in")
    found = predict(folder, tmp_path / "in", "--to", tmp_path / "out")
    assert found.exit_code == 0, found.output
    confusion = 0
    for source, label in zip(task.data.test.sources, task.data.test.files, strict=True):
        with Image.open(tmp_path / "out" / "masks" / f"{source.stem}.png") as mask, Image.open(label) as truth:
            said_HX, true_HX = np.asarray(mask), np.asarray(truth)
        known = true_HX > 0
        confusion += confusion_matrix(true_HX[known], said_HX[known], labels=range(1, task.num_classes + 1))
    hit, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    assert (hit / np.maximum(union, 1))[union > 0].mean() == pytest.approx(recorded(folder, "miou_native"), rel=1e-5)


def test_labels_of_volumes(sweep_of: Callable[[str], Sweep], tmp_path: Path) -> None:
    from monai.metrics import DiceMetric
    from monai.networks.utils import one_hot

    folder, task = sweep_of("volumes")
    (tmp_path / "in").mkdir()
    for scan in task.data.scans["test"]:
        shutil.copy(scan.image, tmp_path / "in")
    assert predict(folder, tmp_path / "in", "--to", tmp_path / "out").exit_code == 0
    dice = DiceMetric(include_background=False, reduction="mean_batch")
    for scan in task.data.scans["test"]:
        pair = [nibabel.load(path) for path in (tmp_path / "out" / scan.image.name, scan.label)]
        dice(*(one_hot(torch.tensor(np.asarray(one.dataobj).astype(np.int64))[None, None], 3) for one in pair))
    assert float(dice.aggregate().mean()) == pytest.approx(recorded(folder, "dice"), rel=1e-6)


def test_filled_tables(sweep_of: Callable[[str], Sweep], tmp_path: Path) -> None:
    folder, task = sweep_of("imputation")
    file, gaps, to = Path(task.data.table.origin), tmp_path / "gaps.csv", tmp_path / "filled.csv"
    hidden_RC = task.data.hidden_RC
    pd.read_csv(file, dtype=str, keep_default_na=False).mask(hidden_RC, "").to_csv(gaps, index=False)
    assert predict(folder, gaps, "--to", to).exit_code == 0
    whole, filled, scores = pd.read_csv(file), pd.read_csv(to), []
    tested_R = np.isin(np.arange(len(whole)), task.data.rows["test"])
    for column, name in enumerate(whole.columns):
        there = hidden_RC[:, column] & tested_R
        score = accuracy_score if name == "ocean_proximity" else r2_score
        scores.append(score(whole[name][there], filled[name][there]))
    assert np.mean(scores) == pytest.approx(recorded(folder, "column_score"), rel=1e-5)


def test_what_is_refused_before_anything_is_computed(
    sweep_of: Callable[[str], Sweep], real_data: Path, tmp_path: Path
) -> None:
    folder, _ = sweep_of("imputation")
    tables = tmp_path / "tables"
    tables.mkdir()
    file = tables / "some.csv"
    file.write_text("a,b\n1,2\n")
    before = file.read_bytes()
    (tmp_path / "link.csv").symlink_to(file)
    (tmp_path / "empty").mkdir()
    for source, to, options, problem in (
        (file, file, (), "is the input itself"),
        (file, tmp_path / "link.csv", (), "is the input itself"),
        (tables, tables / "out", (), "lies in the input folder"),
        (tables, tables, (), "is the input itself"),
        (file, tables, (), "is the folder of the input"),
        (file, "s3://bucket/out.csv", (), "answers are written on this machine"),
        (file, tmp_path / "out.xlsx", (), "must end with one of"),
        (file, tmp_path / "out.csv", ("--backtest",), "unknown option 'backtest'"),
        (file, tmp_path / "out.csv", ("--arm", "gru"), "gru"),
        (tmp_path / "empty", tmp_path / "out", (), "nothing to predict for"),
    ):
        found = predict(folder, source, "--to", to, *options)
        assert (found.exit_code, found.stdout) == (1, ""), found.output
        assert problem in found.stderr
    nowhere = ["predict", folder, file, "--to", tmp_path / "out.csv", "--device", "x"]
    found = CliRunner().invoke(main, list(map(str, nowhere)))
    assert found.exit_code == 1
    assert "--device x: cannot be used here" in found.stderr
    found = predict(folder, file, "--to", tmp_path / "out.csv")
    assert found.exit_code == 1
    assert "unknown column 'longitude'" in found.stderr
    assert "0 of 1 input predicted by mae" in found.stdout
    assert file.read_bytes() == before
    assert not (tmp_path / "out.csv").exists()
