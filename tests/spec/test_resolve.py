"""Distributions, conditions, precedence, and what becomes of them for each arm."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from base_sweep import BASE, Load, Refuse

from raymae.spec import TrialConfig, TrialData, arm_plan, trial_config
from raymae.spec.space import Choice, IntRange, LogUniform, Uniform, combinations, ordered
from raymae.spec.task import encoder_params, untied
from raymae.tasks import schema_of

ARMS = "[mae, scratch, persistence]"


def space(*lines: str) -> str:
    return BASE.replace("  lr: {loguniform: [3e-4, 3e-3]}\n", "".join(f"  {line}\n" for line in lines))


# --- distributions


def test_every_form(searched: Any) -> None:
    assert searched("{uniform: [0.1, 0.5]}") == Uniform(uniform=(0.1, 0.5))
    assert searched("{uniform: [0, 0.5]}").uniform == (0.0, 0.5)
    assert searched("{loguniform: [1e-4, 1e-2]}") == LogUniform(loguniform=(1e-4, 1e-2))
    assert searched("{int: [1, 7], step: 2}", "rnn_depth") == IntRange(range_=(1, 7), step=2)
    assert searched("{choice: [0.1, 0.2]}") == Choice(choice=[0.1, 0.2])
    assert searched("{choice: [a]}", "target").choice == ["a"]
    assert searched("{choice: [0.1], when: {arm: mae}}").when == {"arm": ["mae"]}
    assert searched("{choice: [0.1], when: {arm: [mae, scratch]}}").when == {"arm": ["mae", "scratch"]}


@pytest.mark.parametrize(("line", "key", "message"), [
    ("{uniform: [0.5, 0.1]}", "", "uniform needs [low, high] with low < high, got [0.5, 0.1]"),
    ("{uniform: [0.5, 0.5]}", "", "uniform needs [low, high] with low < high"),
    ("{loguniform: [0, 0.1]}", "", "loguniform needs low > 0, got 0.0"),
    ("{loguniform: [-1, 0.1]}", "", "loguniform needs low > 0, got -1.0"),
    ("{loguniform: [0.1, 0.01]}", "", "loguniform needs [low, high] with low < high"),
    ("{int: [2, 1]}", "", "int needs [low, high] with low < high, got [2, 1]"),
    ("{int: [1, 2], step: 0}", ".step", "must be at least 1, got 0"),
    ("{int: [1, 2], step: 0.5}", ".step", "must be a whole number"),
    ("{int: [1.5, 2]}", ".int.0", "must be a whole number"),
    ("{int: [1, x]}", ".int.1", "must be a whole number"),
    ("{uniform: [a, 1]}", ".uniform.0", "must be a number, got 'a'"),
    ("{uniform: [true, 1]}", ".uniform.0", "must be a number, got True"),
    ("{uniform: [.nan, 1]}", ".uniform.0", "must be a finite number, got nan"),
    ("{loguniform: [1e-3, .inf]}", ".loguniform.1", "must be a finite number, got inf"),
    ("{uniform: [1]}", ".uniform", "must be a list of two numbers, got [1]"),
    ("{uniform: [1, 2, 3]}", ".uniform", "must be a list of two numbers, got [1, 2, 3]"),
    ("{uniform: 0.5}", ".uniform", "must be a list of two numbers, got 0.5"),
    ("{uniform: {low: 1}}", ".uniform", "must be a list of two numbers, got {'low': 1}"),
    ("{choice: []}", ".choice", "must not be empty, got []"),
    ("{choice: 3}", ".choice", "must be a list, got 3"),
    ("{choice: [1, 1]}", ".choice", "choice lists a value twice: [1, 1]"),
    ("{choice: [0, 0.0]}", ".choice", "choice lists a value twice: [0, 0.0]"),
    ("{choice: [.nan, 0.1]}", ".choice.0", "must be text, a finite number, true, false or null, got nan"),
    ("{choice: [[1], 0.1]}", ".choice.0", "must be text, a finite number, true, false or null, got [1]"),
    ("{choice: [1], when: {arm: []}}", ".when", "`when` lists no value of arm: the parameter would never be searched"),
    ("{choice: [1], when: null}", ".when", "must be a mapping, got None"),
    ("{choice: [1], when: {arm: [[1]]}}", ".when.arm.0", "must be text, a finite number, true, false or null, got [1]"),
    ("{choice: [1], step: 1}", ".step", "unknown key 'step'; did you mean `step`?"),
    ("{}", "", "needs exactly one of uniform: [low, high]"),
    ("{unifrom: [1, 2]}", "", "needs exactly one of uniform: [low, high]"),
    ("{uniform: [1, 2], choice: [1]}", "", "needs exactly one of uniform"),
    ("[0.1, 0.2]", "", "needs exactly one of uniform"),
    ("null", "", "needs exactly one of uniform"),
])
def test_malformed(refuse: Refuse, line: str, key: str, message: str) -> None:
    (got,) = refuse(space(f"dropout: {line}"))
    assert got.startswith(f"f.yaml:7: space.dropout{key}: {message}")


@pytest.mark.parametrize(("line", "message"), [
    ("mask_ratio: {uniform: [0, 0.5]}", "mask_ratio: input should be greater than 0, got 0.0"),
    ("mask_ratio: {uniform: [0.5, 1.5]}", "mask_ratio: input should be less than 1, got 1.5"),
    ("mask_ratio: {choice: [0.5, 1.5]}", "mask_ratio: input should be less than 1, got 1.5"),
    ("encoder_depth: {int: [0, 3]}", "encoder_depth: input should be greater than or equal to 1, got 0"),
    ("encoder_depth: {uniform: [1, 3]}", "encoder_depth: input should be a valid integer, got 1.0; search it with `in"),
    ("loss: {choice: [mse, l1]}", "loss: input should be 'mse' or 'huber', got 'l1'"),
    ("norm_target: {choice: [0, 1]}", "norm_target: input should be a valid boolean, got 0"),
])
def test_ends_outside_the_parameters_bounds(refuse: Refuse, line: str, message: str) -> None:
    (got,) = refuse(space(line))
    assert got.startswith(f"f.yaml:7: space.{message}")


def test_probes() -> None:
    assert Uniform(uniform=(0, 1)).probes() == [0, 1]
    assert IntRange(range_=(1, 8), step=3).probes() == [1, 4, 7]
    assert IntRange(range_=(0, 1000), step=7).probes() == [0, 7, 497, 987, 994]  # only what can be drawn
    assert IntRange(range_=(1, 2**62)).probes()[-1] == 2**62
    assert len(IntRange(range_=(1, 10**12)).values() or ()) == 10**12


def test_a_long_range_between_whole_patches(refuse: Refuse, load: Load) -> None:
    got = refuse(space("lookback: {int: [24, 600]}"))
    assert got[0].endswith("lookback=25 must be a multiple of patch_size=6; try 24 or 30")
    load(space("lookback: {int: [24, 601], step: 6}"))  # 601 itself is never drawn


# --- conditions


@pytest.mark.parametrize(("lines", "key", "message"), [
    (["dropout: {choice: [0.1], when: {arm: nope}}"], "space.dropout.when.arm", "unknown arm 'nope'"),
    (["dropout: {choice: [0.1], when: {arm: gruu}}"], "space.dropout.when.arm", "unknown arm 'gruu'; did you"),
    (["mask_ratio: {choice: [0.1], when: {arm: scratch}}"], "space.mask_ratio.when.arm", "the arm scratch has no mask"),
    (["dropout: {choice: [0.1], when: {lss: mse}}", "loss: {choice: [mse, huber]}"], "space.dropout.when.lss",
     "unknown searched parameter 'lss'; did you mean `loss`?"),
    (["dropout: {choice: [0.1], when: {loss: l1}}", "loss: {choice: [mse, huber]}"], "space.dropout.when.loss",
     "loss is never 'l1'; allowed: mse, huber"),
    (["dropout: {choice: [0.1], when: {encoder_depth: 9}}", "encoder_depth: {int: [1, 3]}"],
     "space.dropout.when.encoder_depth", "encoder_depth is never 9; allowed: 1, 2, 3"),
    (["dropout: {choice: [0.1], when: {encoder_depth: 0}}", "encoder_depth: {int: [1, 99]}"],
     "space.dropout.when.encoder_depth", "encoder_depth is never 0; allowed: 1 to 99"),
    (["dropout: {choice: [0.1], when: {lr: 0.1}}", "lr: {uniform: [0.1, 0.2]}"], "space.dropout.when.lr",
     "lr is drawn from a range of real numbers"),
    (["dropout: {choice: [0.1], when: {dropout: 0.1}}"], "space", "`when` conditions refer to each other in a circle:"),
    (["dropout: {choice: [0.1], when: {loss: mse}}", "loss: {choice: [mse], when: {dropout: 0.1}}"], "space",
     "`when` conditions refer to each other in a circle: dropout, loss"),
])
def test_impossible_conditions(refuse: Refuse, lines: list[str], key: str, message: str) -> None:
    (got,) = refuse(space(*lines))
    assert f" {key}: {message}" in got


def test_a_condition_on_a_condition(load: Load) -> None:
    spec = load(space(
        "dropout: {choice: [0.1, 0.2], when: {encoder_depth: [2, 3], arm: [mae, scratch]}}",
        "encoder_depth: {int: [1, 3], when: {loss: huber}}", "loss: {choice: [mse, huber]}",
        "mask_ratio: {uniform: [0.3, 0.6], when: {arm: mae, loss: mse}}",
    ))
    assert ordered(spec.space) == ["loss", "encoder_depth", "mask_ratio", "dropout"]
    schema = schema_of("forecasting")
    plan = arm_plan(spec, schema, "mae")
    assert list(combinations(plan.space, {"arm": "mae"})) == [
        {"loss": "mse", "mask_ratio": 0.3}, {"loss": "mse", "mask_ratio": 0.6}, {"loss": "huber", "encoder_depth": 1},
        *({"loss": "huber", "encoder_depth": d, "dropout": p} for d in (2, 3) for p in (0.1, 0.2)),
    ]
    assert list(arm_plan(spec, schema, "scratch").space) == ["loss", "encoder_depth", "dropout"]
    assert arm_plan(spec, schema, "persistence").space == {}
    assert len(list(combinations(plan.space, {"arm": "mae"}, limit=3))) == 3


# --- against the task


@pytest.mark.parametrize(("override", "key", "message"), [
    ("settings.epochs=3", "settings.epochs", "belongs under `training` (training.epochs=3)"),
    ("training.mask_ratio=0.5", "training.mask_ratio", "unknown key 'mask_ratio'"),
    ("settings.mask_ratio=1.5", "settings.mask_ratio", "input should be less than 1, got 1.5"),
    ("arms.mae.mask_ratio=1.5", "arms.mae.mask_ratio", "input should be less than 1, got 1.5"),
    ("arms.mae.lookback=25", "arms.mae.lookback", "lookback=25 must be a multiple of patch_size=6; try 24 or 30"),
    ("settings.patch_size=24", "settings.patch_size", "patch_size=24 leaves 1 token of lookback=24; masking needs at "),
    ("settings.encoder_dim=17", "settings.encoder_dim", "encoder_dim=17 must be a multiple of encoder_heads=2; try 16"),
    ("settings.protocol=own", "settings.protocol", "input should be 'report' or 'field', got 'own'"),
    ("arms.scratch.mask_ratio=0.5", "arms.scratch.mask_ratio", "the arm scratch has no mask_ratio; leave it out"),
    ("arms.persistence.epochs=5", "arms.persistence.epochs", "the arm persistence has no epochs; leave it out"),
    ("arms.scratch.lr=0.001", "arms.scratch.lr", "is also searched under space.lr; keep one of the two"),
    ("space.patch_size={choice: [6, 7, 12]}", "space.patch_size", None),
])
def test_against_the_task(refuse: Refuse, override: str, key: str, message: str | None) -> None:
    if message is None:
        (got,) = refuse(BASE, override)
        assert got == "f.yaml: settings.lookback: lookback=24 must be a multiple of patch_size=7; try 21 or 28"
    else:
        assert refuse(BASE, override)[0].startswith(f"--set: {key}: {message}")


@pytest.mark.parametrize(("override", "section"), [
    ("training.lr=1e-3", "training"), ("settings.dropout=0.3", "settings"),
])
def test_fixed_and_searched(refuse: Refuse, override: str, section: str) -> None:
    name = override.partition("=")[0].partition(".")[2]
    (got,) = refuse(space("lr: {loguniform: [1e-4, 1e-3]}", "dropout: {uniform: [0.1, 0.2]}"), override)
    assert f"space.{name}: is also fixed under {section}.{name}; keep one of the two" in got


def test_impossible_pairs_within_the_space(refuse: Refuse) -> None:
    lines = refuse(space("lookback: {choice: [24, 36]}", "patch_size: {choice: [6, 24]}"))
    assert [line.split(": ")[1] for line in lines] == ["space.lookback", "space.patch_size"]


def test_grid(refuse: Refuse, load: Load) -> None:
    (got,) = refuse(BASE, "search.algorithm=grid")
    assert got == "f.yaml:7: space.lr: a grid needs `choice` or `int`; list the values to try"
    assert load(space("lr: {choice: [1e-3, 2e-3]}"), "search.algorithm=grid").search.algorithm == "grid"
    lines = refuse(space("batch_size: {int: [1, 99999999999]}"), "search.algorithm=grid")
    assert lines[0].startswith("--set: search.algorithm: a grid of 99999999999 combinations for the arm mae")


def test_precedence(load: Load) -> None:
    """Default < size < training and settings < arm < space."""
    schema = schema_of("forecasting")

    def fixed(text: str, name: str, *overrides: str) -> Any:
        return arm_plan(load(text, *overrides), schema, "mae").fixed[name]

    assert fixed(BASE.replace("size: debug\n", ""), "epochs") == 10
    assert fixed(BASE, "epochs") == 2
    assert fixed(BASE, "epochs", "training.epochs=3") == 3
    assert fixed(BASE, "epochs", "training.epochs=3", "arms.mae.epochs=4") == 4
    assert fixed(BASE, "encoder_dim") == 16
    assert fixed(BASE, "encoder_dim", "settings.encoder_dim=32") == 32
    assert fixed(BASE, "encoder_dim", "settings.encoder_dim=32", "arms.mae.encoder_dim=64") == 64
    plan = arm_plan(load(), schema, "mae")
    assert plan.params({"lr": 0.5})["lr"] == 0.5
    assert plan.fixed["lr"] == 1e-3


def test_an_arm_has_only_what_applies(load: Load) -> None:
    spec, schema = load(), schema_of("forecasting")
    names = {arm: set(arm_plan(spec, schema, arm).fixed) for arm in spec.arms}
    assert "mask_ratio" in names["mae"]
    assert names["mae"] - names["scratch"] == {
        "mask_ratio", "mask_kind", "pretrain_channels", "pretrain_epochs", "pretrain_lr", "pretrain_patience",
        "norm_target", "freeze_epochs", "decoder_dim", "decoder_depth", "decoder_heads", "pretrain_batch_size",
        "pretrain_weight_decay", "pretrain_warmup_epochs", "pretrain_clip_norm", "pretrain_precision",
        "pretrain_eval_every", "pretrain_dropout", "pretrain_drop_path",
    }
    assert names["scratch"] < names["mae"]
    assert names["persistence"] == {"target", "date_column", "protocol", "horizon"}
    assert arm_plan(spec, schema, "mae").num_trials(7) == 7
    assert arm_plan(spec, schema, "persistence").num_trials(7) == 1


FOREST = """\
name: forest
task: imputation
data: {name: california-housing, if_unavailable: synthetic}
arms: {scratch: {}, missforest: {}, iterative: {}, mean: {}}
space:
  lr: {loguniform: [3e-4, 3e-3]}
  node_size: {choice: [1, 5]}
  max_rounds: {int: [2, 6], when: {arm: missforest}}
search: {num_trials: 2}
"""


def test_a_reference_searches_the_parameters_that_it_has(load: Load) -> None:
    spec, schema = load(FOREST), schema_of("imputation")
    plans = {arm: arm_plan(spec, schema, arm) for arm in spec.arms}
    assert {arm: list(plan.space) for arm, plan in plans.items()} == {
        "scratch": ["lr"], "missforest": ["node_size", "max_rounds"], "iterative": [], "mean": []}
    assert {arm: plan.num_trials(7) for arm, plan in plans.items()} == {
        "scratch": 7, "missforest": 7, "iterative": 1, "mean": 1}
    assert {arm: plan.arm.num_replicates(5) for arm, plan in plans.items()} == {
        "scratch": 5, "missforest": 5, "iterative": 1, "mean": 1}
    assert load(FOREST, "search.scheduler=pbt"), "what never changes while training hinders no population elsewhere"


def test_what_a_constraint_forbids_an_arm_is_not_among_its_choices(load: Load) -> None:
    text = space("lr: {loguniform: [3e-4, 3e-3]}", "lookback: {choice: [48, 96, 168]}")
    spec = load(text + "constraints: [\"lookback <= 96 or arm != 'scratch'\"]\n")
    choices = {name: arm_plan(spec, schema_of("forecasting"), name).space["lookback"] for name in ("mae", "scratch")}
    assert {name: found.values() for name, found in choices.items()} == {"mae": [48, 96, 168], "scratch": [48, 96]}


def test_one_and_one_point_zero_are_the_same_configuration(load: Load) -> None:
    schema = schema_of("forecasting")
    ids = set()
    for one in ("1", "1.0"):
        spec = load(space(f"weight_decay: {{choice: [{one}, 0.5]}}"), f"arms.mae.layer_decay={one}",
                    f"arms.mae.clip_norm={one}")
        plan = arm_plan(spec, schema, "mae")
        sampled = plan.space["weight_decay"].probes()[0]
        ids.add(trial_config(spec, plan, {"weight_decay": sampled}, seed=0, stage="search", source="real").config_id)
    assert len(ids) == 1


# --- trials


def config(**changes: Any) -> TrialConfig:
    data = {"name": "ETTh1", "source": "real", "path": None, "root": None, "if_unavailable": "error"}
    data = TrialData.from_json({**data, **changes.pop("data", {})})
    params = {"lr": 1e-3, "epochs": 2}
    return TrialConfig(**{"task": "forecasting", "arm": "mae", "params": params, "data": data, "seed": 0, **changes})


def test_config_id_is_pinned() -> None:
    """It names trials in stored results: it must not change between versions, processes or machines."""
    assert config().config_id == "2887a5e20049"


def test_a_configuration_of_before_keeps_its_meaning() -> None:
    params = schema_of("forecasting").params
    before = {"pretrain_epochs": 2, "batch_size": 64, "dropout": 0.3, "weight_decay": 0.2, "pretrain_weight_decay": 0.1}
    now = {**before, "pretrain_batch_size": 64, "pretrain_dropout": 0.3}
    assert untied(params, before) == untied(params, now) == now
    assert encoder_params(params, before) == {
        "pretrain_epochs": 2, "pretrain_batch_size": 64, "pretrain_dropout": 0.3, "pretrain_weight_decay": 0.1}
    alone = {"batch_size": 64, "dropout": 0.3}
    assert untied(params, alone) == alone, "of an arm that does not pretrain"
    assert "pretrain_drop_path" not in untied(schema_of("classification").params, {
        "pretrain_epochs": 2, "drop_path": 0.1}), "it never had stochastic depth while pretraining"


def test_a_sweep_file_says_what_each_phase_has(load: Load) -> None:
    spec = load(BASE + "training: {batch_size: 64, pretrain_epochs: 3, warmup_epochs: 0.1}\n", "size=small")
    fixed = arm_plan(spec, schema_of("forecasting"), "mae").fixed
    assert (fixed["batch_size"], fixed["pretrain_batch_size"], fixed["pretrain_warmup_epochs"]) == (64, 256, 1.0)
    assert (fixed["dropout"], fixed["pretrain_dropout"]) == (0.1, 0.0)
    assert "pretrain_batch_size" not in arm_plan(spec, schema_of("forecasting"), "scratch").fixed


def test_config_id_names_the_configuration_only() -> None:
    same = [config(seed=7), config(stage="replicate"), config(params={"epochs": 2, "lr": 1e-3})]
    same += [config(data={"path": "x"}), config(data={"root": "x"}), config(data={"if_unavailable": "synthetic"})]
    assert {item.config_id for item in same} == {config().config_id}
    other = [config(task="x"), config(arm="gru"), config(params={"lr": 2e-3, "epochs": 2}), config(params={"lr": 1e-3}),
             config(data={"name": "ETTh2"}), config(data={"source": "synthetic"})]
    assert len({item.config_id for item in other} | {config().config_id}) == len(other) + 1


def test_trial_config_is_frozen_and_plain() -> None:
    trial = config(seed=3, stage="replicate")
    with pytest.raises(dataclasses.FrozenInstanceError):
        trial.seed = 4  # type: ignore[misc]
    assert TrialConfig.from_json(json.loads(json.dumps(trial.to_json()))) == trial
    assert trial.to_json()["config_id"] == trial.config_id
    assert trial.to_json()["data"] == {
        "name": "ETTh1", "path": None, "root": None, "if_unavailable": "error", "source": "real"}, "as files hold it"


def test_trial_config_of_a_sweep(load: Load) -> None:
    spec = load()
    plan = arm_plan(spec, schema_of("forecasting"), "mae")
    trial = trial_config(spec, plan, {"lr": 0.002}, seed=5, stage="search", source="synthetic")
    assert (trial.task, trial.arm, trial.seed, trial.stage) == ("forecasting", "mae", 5, "search")
    assert trial.params == {**plan.fixed, "lr": 0.002}
    assert trial.data == TrialData(spec.data, "synthetic")
