"""A sweep finds out once what it computes in, writes it down, and computes in nothing else."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from raymae.errors import SpecError
from raymae.search import single
from raymae.search.plan import make_plan
from raymae.search.precision import chosen, computing_in, fastest, is_open, step_seconds
from raymae.search.single import train_one
from raymae.spec.load import parse_sweep
from raymae.tasks import schema_of

TEXT = """
name: precise
task: forecasting
size: debug
data: {name: ETTh1, if_unavailable: synthetic}
arms: {mae: {}, scratch: {}, persistence: {}}
training: {precision: auto, pretrain_precision: auto, epochs: 1, pretrain_epochs: 1}
"""


def parsed(text):
    return parse_sweep(text, "precise.yaml", schema_of=schema_of)


@pytest.fixture
def plan():
    return make_plan(parsed(TEXT))


def test_what_is_faster_by_a_tenth_is_chosen():
    assert chosen({"float32": 2.0, "bfloat16": 1.0}) == ("bfloat16", 2.0)
    assert chosen({"float32": 1.05, "bfloat16": 1.0})[0] == "float32"
    assert chosen({"float32": 1.0, "bfloat16": 3.0})[0] == "float32"
    assert chosen({"float32": 0.0, "bfloat16": 0.0}) == ("float32", 1.0)


def test_every_arm_that_leaves_it_open_gets_the_same(plan):
    assert is_open(plan.arms)
    settled = computing_in(plan.arms, "bfloat16")
    assert not is_open(settled)
    assert settled["mae"].fixed["precision"] == settled["mae"].fixed["pretrain_precision"] == "bfloat16"
    assert settled["scratch"].fixed["precision"] == "bfloat16"
    assert "precision" not in settled["persistence"].fixed
    own = make_plan(parsed(TEXT.replace("scratch: {}", "scratch: {precision: float32}")))
    assert computing_in(own.arms, "bfloat16")["scratch"].fixed["precision"] == "float32"


def test_a_step_of_each_phase_is_timed(plan):
    from raymae.search.plan import example_config

    both, one = (step_seconds(example_config(plan, name), 1) for name in ("mae", "scratch"))
    assert min(*both.values(), *one.values()) > 0
    assert both["float32"] > one["float32"]  # it pretrains as well, with the same network


def test_an_arm_that_cannot_be_timed_is_said_and_float32_stays(plan, monkeypatch):
    class FailedError(Exception):
        cause = ValueError("boom\nat length")

    class Remote:
        def remote(self, *args):
            return args

    def get(_):
        raise FailedError

    fake = SimpleNamespace(remote=lambda **_: lambda _: Remote(), get=get,
                           exceptions=SimpleNamespace(RayTaskError=FailedError))
    monkeypatch.setitem(sys.modules, "ray", fake)
    said: list[str] = []
    assert fastest(plan, said.append) == ("float32", 1.0)
    assert len(said) == 2
    assert "arm mae could not be timed" in said[0]
    assert "boom" in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize("where", [
    "space: {precision: {choice: [auto, float32]}}", "factors: {precision: [auto, float32]}",
])
def test_auto_is_not_one_of_several(where):
    text = TEXT.replace("precision: auto, pretrain_precision: auto, ", "") + where
    with pytest.raises(SpecError, match=r"precision: auto is one value for a whole sweep"):
        parsed(text)
    assert parsed(text.replace("auto", "bfloat16"))


def test_one_trial_settles_it_too(monkeypatch):
    monkeypatch.setattr(single, "step_seconds", lambda *_: {"float32": 2.0, "bfloat16": 1.0})
    first = next(iter(train_one(parsed(TEXT), "mae")))
    assert first["config"]["params"]["precision"] == first["config"]["params"]["pretrain_precision"] == "bfloat16"
