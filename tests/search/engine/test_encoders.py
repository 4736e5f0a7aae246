"""Encoders as files: made by one job and started from by others, in this process; whole, damaged, on S3."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from raymae.errors import EncoderError
from raymae.inference.encoders import EncoderShelf
from raymae.results.store.folder import Folder
from raymae.search.engine.workers import run_job
from raymae.search.messages import Job
from raymae.spec.encoder import EncoderRef, encoder_id, pretraining_of
from raymae.tasks import schema_of
from raymae.train import run_trial


@pytest.fixture
def trial(make_config):
    return replace(make_config("forecasting", "mae", epochs=2, pretrain_epochs=3), stage="replicate", pretrain_seed=77)


@pytest.fixture
def jobs(tmp_path, trial):
    """The job that makes a trial's encoder, and the one that starts from it."""
    return jobs_of(trial, str(tmp_path), str(tmp_path / "encoders"))


def jobs_of(trial, root, shelf):
    pretraining = pretraining_of(trial, schema_of("forecasting"))
    ref = EncoderRef(encoder_id(pretraining, "sha256:1"), shelf, "sha256:1")
    return (Job(f"mae-encoder-{ref.encoder_id}", 0, pretraining, "val_mse", root, encoder=ref),
            Job("t", 0, trial, "val_mse", root, encoder=ref))


def plain(messages):
    return [(m.report.phase, m.report.epoch, m.report.metrics, m.report.pretext, m.final) for m in messages]


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("checkpoints", "scores"):
        (tmp_path / name).mkdir()


def test_a_fine_tuning_from_a_file_is_that_of_a_trial_which_pretrains_for_itself(jobs, trial, tmp_path):
    make, start = jobs
    made, tuned = list(run_job(make)), list(run_job(start))
    whole = [(r.phase, r.epoch, r.metrics, r.pretext) for r in run_trial(trial)]
    assert [one[:-1] for one in plain([*made, *tuned])] == whole
    assert [m.final for m in made] == [False, False, True]
    assert not any(m.failure or m.warning for m in (*made, *tuned))
    assert list(tmp_path.glob("pictures/mae-encoder-*-reconstruction.png")), "a pretraining is drawn"
    card = json.loads((tmp_path / "encoders" / f"{make.encoder.encoder_id}.json").read_text())
    assert card["config"]["seed"] == 77
    assert card["fingerprint"] == "sha256:1"
    assert card["pretext"] == made[-1].report.pretext
    assert card["epochs"] == 3
    assert "lr" not in card["config"]["params"]
    assert card["versions"]["torch"] == torch.__version__.partition("+")[0] or card["versions"]["torch"]


def test_a_pretraining_that_is_killed_goes_on_from_its_checkpoint_to_the_same_bits(jobs, tmp_path):
    make, _ = jobs
    file = tmp_path / "encoders" / f"{make.encoder.encoder_id}.safetensors"
    list(run_job(make))
    whole = file.read_bytes()
    file.unlink()
    (tmp_path / "checkpoints" / f"{make.trial_id}.pt").unlink()
    died = run_job(make)
    next(died), next(died)
    died.close()
    assert not file.exists()
    again = list(run_job(replace(make, attempt=1, next_step=2)))
    assert [m.report.epoch for m in again] == [3], "two epochs are not trained again"
    assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "no card", "no weights"])
def test_a_damaged_encoder_is_noticed_and_said(jobs, tmp_path, damage):
    make, start = jobs
    list(run_job(make))
    weights = tmp_path / "encoders" / f"{make.encoder.encoder_id}.safetensors"
    card, data = weights.with_suffix(".json"), weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(data[:-100])
    elif damage == "flipped":
        weights.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    elif damage == "gone":
        weights.unlink()
    elif damage == "no card":
        card.unlink()
    else:
        weights.write_bytes(b"no weights")
        card.write_text(card.read_text().replace(json.loads(card.read_text())["sha256"], __import__("hashlib").sha256(
            b"no weights").hexdigest()))
    [message] = run_job(start)
    assert message.lost_encoder
    assert f"{weights}" in message.failure
    shelf = EncoderShelf(str(tmp_path / "encoders"))
    shelf.forget(make.encoder.encoder_id)
    assert shelf.ids() == set()
    list(run_job(replace(make, attempt=1)))
    assert weights.read_bytes() == data
    assert not any(message.failure for message in run_job(replace(start, attempt=1)))


def test_an_encoder_of_another_network_starts_nothing(jobs, trial):
    make, start = jobs
    list(run_job(make))
    wider = replace(trial, params={**trial.params, "encoder_dim": 2 * trial.params["encoder_dim"]})
    [message] = run_job(replace(start, config=wider))
    assert "of another network" in message.failure


def test_a_card_of_somebody_else_is_no_card(tmp_path):
    shelf = EncoderShelf(str(tmp_path / "encoders"))
    (tmp_path / "encoders").mkdir()
    whole = {"encoder_id": "x", "config": {}, "fingerprint": "f", "pretext": {}, "epochs": 1, "seconds": 1.0,
             "num_parameters": 1, "sha256": "", "num_bytes": 0, "made_at": "", "versions": {}, "format": 1}
    (tmp_path / "encoders" / "x.json").write_text(json.dumps(whole))
    assert shelf.card("x").seconds == 1.0
    for text in ("[]", "{}", '{"encoder_id": 3}', "no json", json.dumps({**whole, "surprise": 1}),
                 json.dumps({**whole, "seconds": "long"})):
        (tmp_path / "encoders" / "x.json").write_text(text)
        assert shelf.card("x") is None
        with pytest.raises(EncoderError, match="no whole encoder"):
            shelf.load("x")


def test_a_shelf_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert EncoderShelf("shelf").root == str(tmp_path / "shelf")


def test_a_full_disk_is_waited_for(jobs, monkeypatch):
    tries, write = [], Folder.write

    def full(folder, name, data):
        if "safetensors" in name and len(tries) < 4:
            tries.append(name)
            raise OSError(28, "No space left on device")
        write(folder, name, data)

    monkeypatch.setattr(Folder, "write", full)
    monkeypatch.setattr("raymae.results.store.shelf.time.sleep", lambda seconds: None)
    assert not any(message.failure for message in [*run_job(jobs[0]), *run_job(jobs[1])])
    assert len(tries) == 4


def test_on_s3(tmp_path, trial, s3_endpoint, monkeypatch):
    for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
                        "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    here = jobs_of(trial, str(tmp_path), str(tmp_path / "encoders"))
    away = jobs_of(trial, "s3://bucket/encoders-of-a-sweep", "s3://bucket/shelf")
    list(run_job(here[0]))
    list(run_job(away[0]))
    shelf, name = EncoderShelf("s3://bucket/shelf"), here[0].encoder.encoder_id
    assert shelf.ids() == {name}
    assert shelf.card(name).sha256 == EncoderShelf(str(tmp_path / "encoders")).card(name).sha256
    assert plain(run_job(away[1])) == plain(run_job(here[1]))
    other = EncoderShelf(str(tmp_path / "other"))
    assert other.borrow(shelf, name)
    assert other.load(name).epochs == 3
