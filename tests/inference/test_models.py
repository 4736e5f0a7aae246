"""What a sweep keeps, and what is said of it: in a table, at its end, and where storage or a task refuses."""

from __future__ import annotations

import html
import io
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rich.console import Console

import raymae
from raymae.cli import main
from raymae.errors import ModelError
from raymae.inference.shelf import ModelShelf
from raymae.results.report.content import collect
from raymae.results.report.report import markdown_of, page_of
from raymae.results.store.folder import Folder
from raymae.results.views import show
from raymae.results.views.models import models_of, size, uses
from raymae.search.engine.workers import run_job
from raymae.search.messages import Job, ModelRef
from raymae.web.catalog import Catalog
from raymae.web.pages import templates

from .finished import finished, text_of

THREE = text_of("forecasting", arms="[mae, scratch, persistence]")


@pytest.fixture(autouse=True)
def generated(monkeypatch):
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", "/nowhere")


def names(store):
    return sorted(Folder(store.uri("models")).names())


def test_the_replicates_of_every_trained_arm(tmp_path):
    store = finished(tmp_path, THREE)
    trials = ["mae-0000-seed0", "mae-0000-seed1", "scratch-0000-seed0", "scratch-0000-seed1"]
    assert names(store) == sorted(f"{trial}.{end}" for trial in trials for end in ("json", "safetensors"))
    models = models_of(store)
    assert list(models.by_arm) == [arm.arm for arm in show.summary(store).verdict.arms
                                   if arm.arm != "persistence"]
    line = f"4 models of 2 arms, {size(models.num_bytes)} in {store.location}/models; raymae models {store.root}"
    assert models.line() == line
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(show.render(show.summary(store)))
    assert line in console.export_text()
    done = CliRunner().invoke(main, ["models", store.root], catch_exceptions=False)
    assert done.exit_code == 0
    for trial in trials:
        assert f"models/{trial}.safetensors" in "".join(done.output.split())
    rows = json.loads(CliRunner().invoke(main, ["models", store.root, "--json"]).output)
    trial_rows = store.trials().set_index("trial_id")
    for row in rows:
        assert row["test_mse"] == trial_rows.loc[row["trial"], "test_mse"]
        assert row["val_mse"] == trial_rows.loc[row["trial"], "val_mse"]
        assert row["seed"] == trial_rows.loc[row["trial"], "seed"]
        assert row["parameters"] == trial_rows.loc[row["trial"], "num_parameters"]
    assert sorted(row["arm"] for row in rows if row["best"]) == ["mae", "scratch"]
    assert raymae.load_model(store.root).arm == next(iter(models.by_arm))
    # one more replicate leaves one more model, and the others stay as they are
    before = {name: Folder(store.uri("models")).read(name) for name in names(store)}
    store = finished(tmp_path, THREE, "replicates=3", extend=True)
    assert len(names(store)) == 12
    assert all(Folder(store.uri("models")).read(name) == data for name, data in before.items())


def test_the_best_alone(tmp_path):
    store = finished(tmp_path, text_of("forecasting"), "keep=best")
    trials = store.trials()
    replicates = trials[trials["stage"] == "replicate"].sort_values("val_mse")
    assert names(store) == [f"{replicates.iloc[0]['trial_id']}.{end}" for end in ("json", "safetensors")]


def test_none(tmp_path):
    store = finished(tmp_path, text_of("forecasting", replicates=1), "keep=none")
    assert names(store) == []
    assert models_of(store).line() == ""
    done = CliRunner().invoke(main, ["models", store.root])
    assert done.exit_code == 1
    assert "keep: none" in done.output
    assert json.loads(CliRunner().invoke(main, ["models", store.root, "--json"]).output) == []


@pytest.fixture
def job(tmp_path, make_config):
    for name in ("checkpoints", "scores"):
        (tmp_path / name).mkdir()
    config = make_config("forecasting", "scratch", stage="replicate", epochs=1)
    return Job("scratch-0000-seed0", 0, config, "val_mse", str(tmp_path), model=ModelRef("f", None))


def test_storage_that_fails_is_waited_for_and_then_said(job, monkeypatch):
    tries, slept, write = [], [], Folder.write

    def full(folder, name, data):
        if name.endswith(".safetensors"):
            tries.append(name)
            raise OSError(28, "No space left on device")
        write(folder, name, data)

    monkeypatch.setattr(Folder, "write", full)
    monkeypatch.setattr("raymae.results.store.shelf.time.sleep", slept.append)
    *_, last = run_job(job)
    assert last.final
    assert last.failure is None
    assert last.report.metrics["test_mse"] > 0, "the score is not lost"
    assert "its model could not be kept" in last.warning
    assert "No space left" in last.warning
    assert len(tries) == 7
    tries.clear()
    slept.clear()
    list(run_job(replace(job, trial_id="other", model=ModelRef("f", 20.0))))
    assert sum(slept) <= 10, "half of what a report may take"
    assert ModelShelf.of_sweep(job.root).ids() == set()


def test_what_no_file_can_hold_costs_the_model_alone(job, monkeypatch):
    from raymae.tasks.forecasting import Forecasting

    monkeypatch.setattr(Forecasting, "kept_state", lambda task, model: {"scale": float("nan")})
    *_, last = run_job(job)
    assert last.failure is None
    assert "its model could not be kept: ValueError" in last.warning


def test_on_s3(job, s3_endpoint, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    here, away = list(run_job(job))[-1], list(run_job(replace(job, root="s3://bucket/kept")))[-1]
    assert (here.warning, away.warning) == (None, None)
    shelves = [ModelShelf.of_sweep(root) for root in (job.root, "s3://bucket/kept")]
    cards = [shelf.card(job.trial_id) for shelf in shelves]
    assert cards[0].sha256 == cards[1].sha256
    assert shelves[0].shapes(cards[0]) == shelves[1].shapes(cards[1])
    with pytest.raises(ModelError, match="no such card"):
        shelves[1].card("another")


def test_report_and_server_say_how_a_model_is_used(sweep_of):
    store = sweep_of("forecasting")
    [use] = uses(models_of(store))
    assert use.file == f"{store.location}/models/{raymae.load_model(store.root).card.trial_id}.safetensors"
    assert use.num_models == 2
    assert use.shell == f"raymae predict {store.root} INPUT --to OUT --arm mae"
    content = collect(store)
    for text in (page_of(content), markdown_of(content)):
        text = html.unescape(text)
        assert use.shell in text
        assert use.python in text
    catalog = Catalog(store.location)
    [name] = catalog.names()
    assert catalog.models(name) == (use,)
    served = templates().get_template("sweep.html").render(
        root="", name=name, seen=catalog.look(name), plots=[], trials=[], models=catalog.models(name))
    assert use.shell in html.unescape(served)
    assert use.python in html.unescape(served)


def test_a_model_is_there_before_its_score_is_heard_of_and_after_a_death(job):
    shelf = ModelShelf.of_sweep(job.root)
    for message in run_job(job):
        assert shelf.ids() == ({job.trial_id} if message.final else set())
    data = Folder(job.root).read(f"models/{job.trial_id}.safetensors")
    shelf.forget(job.trial_id)
    [again] = run_job(replace(job, attempt=1, next_step=message.report.step))  # the checkpoint was there, the row not
    assert again.report.metrics == message.report.metrics
    assert Folder(job.root).read(f"models/{job.trial_id}.safetensors") == data
    assert shelf.card(job.trial_id).scores["test_mse"] == message.report.metrics["test_mse"]
