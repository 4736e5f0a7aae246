"""A sweep handed to Optuna, loaded back by Optuna."""

from __future__ import annotations

import datetime as dt
import json
import math
from pathlib import Path

import optuna
import pandas as pd
import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.errors import ResultsError
from raymae.results import Store
from raymae.search.decide.export import export
from raymae.spec import load_sweep
from raymae.tasks import schema_of

ROOT = Path(__file__).parents[3]
START = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
SPACE = "space={lr: {loguniform: [1e-4, 1e-1]}, mask_ratio: {uniform: [0.2, 0.8], when: {arm: mae}}}"
States = optuna.trial.TrialState


@pytest.fixture
def make(tmp_path):
    """A sweep of ten trials per arm that depend on lr alone, one of them stopped and one failed."""

    def build(*overrides: str) -> Store:
        spec = load_sweep(ROOT / "sweeps" / "debug.yaml", [SPACE, *overrides], schema_of=schema_of)
        store = Store.create(tmp_path / "debug", spec, schema_of(spec.task), environment={},
                             data={"name": "ETTh1", "source": "real", "fingerprint": "f"})
        for arm in ("mae", "scratch"):
            for number in range(10):
                add(store, arm, number)
        store.write_config("mae-9999", {"sampled": {"lr": 1e-3, "mask_ratio": 0.5}})  # under way
        return store

    return build


def add(store: Store, arm: str, number: int) -> None:
    trial_id, lr = f"{arm}-{number:04d}", 10.0 ** (-4 + 0.3 * number)
    sampled = {"lr": lr, **({"mask_ratio": 0.2 + 0.6 * (number * 7 % 10) / 10} if arm == "mae" else {})}
    score = (math.log10(lr) + 3) ** 2 + 0.1
    status = {3: "stopped", 4: "failed"}.get(number, "completed")
    store.write_config(trial_id, {"sampled": sampled})
    for epoch in range(1, 2 if status != "completed" else 4):
        store.add_report({"trial_id": trial_id, "arm": arm, "stage": "search", "attempt": 0, "step": epoch,
                          "phase": "finetune", "epoch": epoch, "val_mse": score + 1 / epoch})
    store.add_trial({
        "trial_id": trial_id, "config_id": trial_id, "arm": arm, "stage": "search", "attempt": 0, "status": status,
        "seed": 0, "val_mse": None if status == "failed" else score, "wall_s": 2.0, "started_at": START,
        "ended_at": START + dt.timedelta(seconds=number), "error": "NaN loss" if status == "failed" else None,
        **sampled,
    })


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def test_what_nobody_may_choose_breaks_a_constraint(make, tmp_path):
    store = make("search.min_skill=0")
    for number, skill in ((5, -0.25), (6, 0.0), (7, 0.1)):  # again, of an encoder that learned or not
        row = {"trial_id": f"mae-{number:04d}", "config_id": "c", "arm": "mae", "stage": "search", "attempt": 1,
               "status": "completed", "seed": 0, "val_mse": 0.01, "wall_s": 2.0, "started_at": START,
               "ended_at": START + dt.timedelta(seconds=20 + number), "pretext_skill": skill, "lr": 1e-3}
        store.add_trial(row)
    export(store, url_of(tmp_path))
    for name in ("debug", "debug/mae"):
        trials = optuna.load_study(study_name=name, storage=url_of(tmp_path)).get_trials()
        lacking = {trial.user_attrs["trial_id"]: trial.constraints["pretext_skill"] for trial in trials}
        assert len(lacking) == len(trials)
        assert {one: value for one, value in lacking.items() if value} == {"mae-0005": 0.25, "mae-0006": 1e-12}, name


def test_states_values_and_attributes(make, tmp_path):
    counts = export(make(), url_of(tmp_path))
    assert counts == {"debug": 20, "debug/mae": 10, "debug/scratch": 10, "debug/persistence": 0}
    study = optuna.load_study(study_name="debug/mae", storage=url_of(tmp_path))
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [
        {3: States.PRUNED, 4: States.FAIL}.get(number, States.COMPLETE) for number in range(10)]
    stopped, failed = trials[3], trials[4]
    assert list(stopped.intermediate_values) == [1]
    assert stopped.values is None
    assert failed.user_attrs["error"] == "NaN loss"
    assert (trials[0].user_attrs["trial_id"], trials[0].user_attrs["arm"]) == ("mae-0000", "mae")
    assert list(trials[9].intermediate_values) == [1, 2, 3]
    assert study.best_value == pytest.approx(0.26)  # that of the stopped trial is smaller
    assert study.metric_names == ["val_mse"]
    assert trials[0].distributions["lr"] == optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    assert trials[9].duration == dt.timedelta(seconds=9)
    assert trials[9].datetime_start == START.astimezone().replace(tzinfo=None)
    assert study.user_attrs["arm mae"]["best"]["score"] == pytest.approx(study.best_value)
    assert "arm scratch" not in study.user_attrs
    assert study.user_attrs["data_source"] == "real"


def test_a_deleted_config_costs_no_trial(make, tmp_path):
    store = make()
    for config in (tmp_path / "debug" / "configs").iterdir():
        config.unlink()
    assert export(store, url_of(tmp_path))["debug"] == 20
    trials = optuna.load_study(study_name="debug", storage=url_of(tmp_path)).get_trials()
    assert {frozenset(trial.params) for trial in trials} == {frozenset({"arm", "lr"}),
                                                             frozenset({"arm", "lr", "mask_ratio"})}


def test_importances_of_all_arms_and_of_one(make, tmp_path):
    export(make(), url_of(tmp_path))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    one = optuna.load_study(study_name="debug/mae", storage=url_of(tmp_path))
    found = optuna.importance.get_param_importances(one, evaluator=evaluator)
    assert set(found) == {"lr", "mask_ratio"}
    assert found["lr"] > found["mask_ratio"]
    both = optuna.load_study(study_name="debug", storage=url_of(tmp_path))
    assert set(optuna.importance.get_param_importances(both, evaluator=evaluator)) == {"lr", "arm"}


def test_metric_and_cost(make, tmp_path):
    export(make("search.cost=wall_s"), url_of(tmp_path))
    study = optuna.load_study(study_name="debug/mae", storage=url_of(tmp_path))
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert study.get_trials()[0].values[1] == 2.0
    assert study.get_trials()[3].state == States.PRUNED
    assert study.best_trials


def test_an_existing_study_is_refused_and_left_alone(make, tmp_path):
    store = make()
    export(store, url_of(tmp_path))
    with pytest.raises(ResultsError, match="holds the study 'debug' already"):
        export(store, url_of(tmp_path))
    assert len(optuna.load_study(study_name="debug", storage=url_of(tmp_path)).trials) == 20


@pytest.mark.parametrize("url", ["nonsense", "nodb://x", "sqlite:////no/such/folder/study.db"])
def test_unusable_storages(make, url):
    with pytest.raises(ResultsError, match=r"not a usable Optuna storage.*sqlite:///study\.db"):
        export(make(), url)


def test_the_command(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = make()
    command = ["export", str(store.root), "--csv", "trials.csv", "--optuna", "sqlite:///s.db", "--tensorboard", "tb",
               "--json"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    written = {one["what"]: one for one in json.loads(done.stdout)[:2]}
    assert (written["csv"]["trials"], written["tensorboard"]["trials"]) == (20, 20)
    frame = pd.read_csv("trials.csv", parse_dates=["ended_at"])
    assert list(frame["trial_id"]) == list(store.trials()["trial_id"])
    assert frame["val_mse"].isna().sum() == 2
    assert frame["ended_at"][9] == pd.Timestamp(START) + pd.Timedelta(seconds=9)
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "exists already" in again.stderr
    nothing = CliRunner().invoke(main, ["export", str(store.root)])
    assert nothing.exit_code == 2
    assert "--optuna URL, --csv FILE, --tensorboard FOLDER" in nothing.stderr
