"""What a worker does with one job, in this process: `run_job` needs no cluster."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import islice

import pytest
import torch

from raymae.search.engine.workers import run_job
from raymae.search.messages import Job
from raymae.train import run_trial


@pytest.fixture
def job(tmp_path, make_config):
    (tmp_path / "checkpoints").mkdir()
    config = make_config("forecasting", "scratch", epochs=4)
    return Job("t", 0, config, "val_mse", str(tmp_path))


def plain(messages):
    return [(m.report.step, m.report.epoch, m.report.metrics, m.final) for m in messages]


@pytest.mark.parametrize("damage", ["none", "truncated", "missing"])
def test_a_later_attempt_hands_over_what_nobody_has_recorded(job, tmp_path, damage):
    whole = plain(run_job(job))
    checkpoint = tmp_path / "checkpoints" / "t.pt"
    checkpoint.unlink()
    died = run_job(job)
    assert plain(islice(died, 3)) == whole[:3]
    died.close()
    if damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    elif damage == "missing":
        checkpoint.unlink()
    again = list(run_job(replace(job, attempt=1, next_step=1)))  # the driver has recorded the first report only
    assert plain(again) == whole[1:]
    assert not any(message.failure for message in again)


def test_a_message_holds_every_field_of_a_report_but_the_time_it_took(job, make_config):
    config = make_config("forecasting", "mae")
    sent = [asdict(message.report) for message in run_job(replace(job, config=config))]
    made = [{name: getattr(report, name) for name in sent[0]} for report in run_trial(config)]
    assert all(one.pop("seconds") > 0 for one in (*sent, *made))
    assert sent == made
    assert sent[-1]["pretext"]["pretext_skill"] == sent[0]["metrics"]["pretext_skill"]


def test_an_untidy_trial_changes_nothing_for_the_next(job, make_config, monkeypatch):
    clean = plain(run_job(job))
    odd = "tests.search.odd_task:Odd"
    # one epoch of more than 40 steps, after which it goes wrong: each step is slow from there on
    config = make_config(odd, "scratch", epochs=1, mishap="untidy", label_fraction=0.1, batch_size=16)
    switches = (torch.get_default_dtype(), torch.get_num_threads(), torch.backends.cudnn.benchmark,
                torch.backends.cudnn.allow_tf32, torch.is_anomaly_enabled())
    dtypes, change = [], torch.set_default_dtype
    monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: (dtypes.append(dtype), change(dtype)))
    list(run_job(replace(job, trial_id="untidy", config=config)))
    assert torch.float64 in dtypes, "it was untidy"
    assert switches == (torch.get_default_dtype(), torch.get_num_threads(), torch.backends.cudnn.benchmark,
                        torch.backends.cudnn.allow_tf32, torch.is_anomaly_enabled())
    assert plain(run_job(replace(job, trial_id="again"))) == clean
