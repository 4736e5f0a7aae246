from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from base_sweep import BASE, ROOT, Load, Refuse

from raymae.errors import SpecError
from raymae.spec import SweepSpec, arm_plan, json_schema, load_sweep, parse_sweep
from raymae.spec.arms import with_arms
from raymae.tasks import schema_of

SHIPPED = sorted((ROOT / "sweeps").rglob("*.yaml"))


def field(name: str, value: str) -> str:
    """BASE with one more line, number 9, or with one of its lines changed."""
    changed, count = re.subn(rf"^{name}:.*$", lambda _: f"{name}: {value}", BASE, flags=re.MULTILINE)
    return changed if count else f"{BASE}{name}: {value}\n"


# --- YAML 1.2


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1E3", 1000.0), ("2", 2.0), ("1.2.3", None)])
def test_floats(load: Load, refuse: Refuse, text: str, value: float | None) -> None:
    if value is None:
        refuse(field("training", f"{{weight_decay: {text}}}"))
    else:
        got = load(field("training", f"{{weight_decay: {text}}}")).training.weight_decay
        assert got == value
        assert type(got) is float


@pytest.mark.parametrize(("text", "value"), [("0o10", 8), ("010", 10), ("0x10", 16), ("+3", 3)])
def test_integers(load: Load, text: str, value: int) -> None:
    assert load(field("training", f"{{epochs: {text}}}")).training.epochs == value


@pytest.mark.parametrize("text", ["on", "off", "yes", "no", "y", "12:30", "0b1x", '"3"', "OT", "ölstand", "1.2.3"])
def test_text_stays_text(load: Load, text: str) -> None:
    assert load(field("settings", f"{{target: {text}}}")).settings["target"] == text.strip('"')


@pytest.mark.parametrize(("key", "value"), [
    ("epochs", '"5"'), ("epochs", "true"), ("epochs", "5.0"), ("epochs", "1e1"), ("epochs", "1:30"), ("epochs", "null"),
    ("warmup_epochs", '"1"'), ("warmup_epochs", "true"), ("weight_decay", ".inf"),
    ("weight_decay", ".nan"), ("weight_decay", "-.inf"), ("weight_decay", "1e999"), ("weight_decay", "[1]"),
    ("precision", "float16"), ("precision", "16"),
])
def test_no_silent_conversions(refuse: Refuse, key: str, value: str) -> None:
    lines = refuse(field("training", f"{{{key}: {value}}}"))
    assert lines[0].startswith(f"f.yaml:9: training.{key}: must be ")


@pytest.mark.parametrize(("setting", "value"), [
    ("lookback", '"24"'), ("lookback", "24.0"), ("lookback", "24.5"), ("lookback", "true"), ("norm_target", "1"),
    ("norm_target", "yes"), ("target", "3"), ("target", "null"), ("dropout", "null"), ("dropout", '"0.1"'),
])
def test_no_silent_conversions_in_settings(refuse: Refuse, setting: str, value: str) -> None:
    (line,) = refuse(field("settings", f"{{{setting}: {value}}}"))
    assert line.startswith(f"f.yaml:9: settings.{setting}: input should be a valid ")


def test_byte_order_mark_and_line_ends(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert load_sweep(path, schema_of=schema_of) == load()


def test_anchors_and_merges(load: Load) -> None:
    text = BASE.replace("[mae, scratch, persistence]", "{mae: &a {clip_norm: 0.2}, scratch: {<<: *a}, gru: *a}")
    assert load(text).arms == {name: {"clip_norm": 0.2} for name in ("mae", "scratch", "gru")}
    assert load(BASE.replace("size: debug", "size: &x debug") + "results: &x r\n").results == "r"  # defined anew


NOT_A_SWEEP = {
    "empty": ("", None, "is a mapping of keys, got NoneType"),
    "comments": ("# a\n# b\n", None, "is a mapping of keys"),
    "list": ("- a\n", None, "is a mapping of keys, got list"),
    "text": ("hello", None, "is a mapping of keys, got str"),
    "two documents": (BASE + "---\na: 1\n", 9, "another document"),
    "key twice": (BASE + "name: x\n", 9, 'duplicate key "name"'),
    "key twice deep": (BASE.replace("{num_trials: 2}", "{num_trials: 2, num_trials: 3}"), 8, "duplicate key"),
    "tab": (BASE.replace("  lr", "\tlr"), 7, "'\\t'"),
    "unclosed": (BASE + "settings: [1\n", 10, "not valid YAML"),
    "zero byte": (BASE + "\0", 9, "#x0000"),
    "escaped zero byte": (field("results", r'"a\0b"'), 9, "results: text must not hold zero bytes"),
    "half a character": (field("size", r'"\ud800"'), 3, r"size: text must not hold"),
    "unknown alias": (BASE + "results: *nope\n", 9, "undefined alias 'nope'"),
    "python object": (field("size", "!!python/object:os.system x"), 3, "size: has the tag"),
    "python call": (field("settings", "!!python/object/apply:os.system [x]"), 9, "settings: has the tag"),
    "python call, mapping": (field("settings", "!!python/object/new:os.x {a: 1}"), 9, "settings: has the tag"),
    "own tag": (field("size", "!foo debug"), 3, "size: has the tag !foo"),
    "own tag, mapping": (field("settings", "!foo {target: OT}"), 9, "settings: has the tag !foo"),
    "set": (field("settings", "!!set {a, b}"), 9, "settings: "),
    "binary": (field("size", "!!binary aGVsbG8="), 3, "size: holds a bytes"),
    "date": (field("name", "2020-01-01"), 1, "name: holds a date"),
    "timestamp": (field("size", "2020-01-01 10:00:00"), 3, "size: holds a "),
    "number key": (field("settings", "{3: 3}"), 9, "settings: keys are text, got 3"),
    "null key": (field("settings", "{null: 3}"), 9, "settings: keys are text, got None"),
    "list key": (BASE + "? [a]\n: 3\n", None, "keys are text, got ('a',)"),
    "unprintable key": (field("settings", r'{"a\e[31m": 3}'), 9, "settings: keys are printable text"),
    "bad merge": (field("settings", "{<<: 3}"), 9, "merging"),
    "huge integer": (field("training", "{epochs: " + "9" * 400 + "}"), 9, "training.epochs: whole numbers go up to"),
    "huger integer": (field("training", "{epochs: " + "9" * 5000 + "}"), 9, "whole numbers go up to"),
    "beyond Parquet": (field("search", "{seed: 9223372036854775808}"), 8, "search.seed: whole numbers go up to"),
    "deep": (field("settings", "{target: " + "[" * 40 + "]" * 40 + "}"), 9, "settings.target: nested deeper than 32"),
    "deeper": (field("settings", "{target: " + "[" * 500 + "]" * 500 + "}"), 9, "nested deeper than 32 levels"),
    "YAML 1.1": ("%YAML 1.1\n---\n" + BASE, 1, "must be YAML 1.2, got '%YAML 1.1'"),
}


@pytest.mark.parametrize("case", NOT_A_SWEEP)
def test_not_a_sweep_file(refuse: Refuse, case: str) -> None:
    text, number, message = NOT_A_SWEEP[case]
    (line,) = refuse(text)
    assert line.startswith(f"f.yaml:{number}: " if number else "f.yaml: "), line
    assert message in line


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "&a [*a]", "&a {name: *a}", "x: &a [[*a], *a]"])
def test_anchors_that_refer_to_themselves(refuse: Refuse, text: str) -> None:
    assert refuse(text + "\n")[0].startswith("f.yaml")


def test_yaml_1_2_may_be_declared(load: Load) -> None:
    assert load("%YAML 1.2\n---\n" + BASE) == load()


def test_aliases_that_multiply(refuse: Refuse) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (line,) = refuse(bomb)
    assert re.match(r"f.yaml:\d+: a sweep file holds at most 5000 values", line)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4\n")
    (tmp_path / "utf16.yaml").write_bytes(BASE.encode("utf-16"))
    (tmp_path / "huge.yaml").write_bytes(b"#" * 100_001)
    for name, message in [
        ("missing.yaml", "no such file"), ("", "Is a directory"), ("latin.yaml", "must be UTF-8 text: "),
        ("utf16.yaml", "must be UTF-8 text"), ("huge.yaml", "at most 100000 bytes, this has more"),
        ("latin.yaml/x", "Not a directory"),
    ]:
        with pytest.raises(SpecError, match=f"^{re.escape(str(tmp_path / name))}: .*{message}"):
            load_sweep(tmp_path / name)


# --- messages


@pytest.mark.parametrize(("text", "expected"), [
    (BASE + "serach: {}\n", "f.yaml:9: serach: unknown key 'serach'; did you mean `search`? allowed: arms, "),
    (field("data", "{name: x, pth: y}"), "f.yaml:4: data.pth: unknown key 'pth'; did you mean `path`? allowed: colum"),
    (field("search", "{num_trails: 2}"), "f.yaml:8: search.num_trails: unknown key 'num_trails'; did you mean `num_t"),
    (field("training", "{epoch: 2}"), "f.yaml:9: training.epoch: unknown key 'epoch'; did you mean `epochs`? allow"),
    (field("resources", "{worker: 2}"), "f.yaml:9: resources.worker: unknown key 'worker'; did you mean `workers`? "),
    (field("budget", "{wall_minute: 2}"), "f.yaml:9: budget.wall_minute: unknown key 'wall_minute'; did you mean `wa"),
    (field("settings", "{targt: x}"), "f.yaml:9: settings.targt: unknown setting 'targt'; did you mean `target`? al"),
    (field("arms", "{mae: {mask_rato: 0.5}}"), "f.yaml:5: arms.mae.mask_rato: unknown parameter 'mask_rato'; did you "),
    (field("arms", "[mae, scrtch]"), "f.yaml:5: arms.scrtch: unknown arm 'scrtch'; did you mean `scratch`? allowed"),
    (field("task", "forecastng"), "f.yaml:2: task: unknown task 'forecastng'; did you mean `forecasting`? allowed: "),
    (field("size", "smal"), "f.yaml:3: size: unknown size 'smal'; did you mean `small`? allowed: debug, laptop, "),
    (BASE.replace("  lr:", "  drop_ot: {int: [1, 2]}\n  lr:"), "f.yaml:7: space.drop_ot: unknown parameter 'drop_ot';"),
    (BASE.replace("3e-3]", "3e-3], wen: {}"), "f.yaml:7: space.lr.wen: unknown key 'wen'; did you mean `when`? allow"),
    (field("search", "{algorithm: bayes}"), "f.yaml:8: search.algorithm: must be 'tpe', 'gp', 'cmaes', "),
    (field("search", "{num_trials: 0}"), "f.yaml:8: search.num_trials: must be at least 1, got 0"),
    (field("search", "{reduction_factor: 1}"), "f.yaml:8: search.reduction_factor: must be above 1.0, got 1"),
    (field("training", "{layer_decay: 1.5}"), "f.yaml:9: training.layer_decay: must be at most 1.0, got 1.5"),
    (field("training", "{ema_decay: 1}"), "f.yaml:9: training.ema_decay: must be below 1.0, got 1"),
    (field("replicates", "-1"), "f.yaml:9: replicates: must be at least 0, got -1"),
    (field("replicates", "many"), "f.yaml:9: replicates: must be a whole number, without point or exponent, got 'many"),
    (field("resources", "{gpus_per_worker: 1.5}"), "f.yaml:9: resources.gpus_per_worker: must be a fraction below 1 o"),
    (field("resources", "{gpus_per_worker: .inf}"), "f.yaml:9: resources.gpus_per_worker: must be a finite number"),
    (field("resources", "{cpus_per_worker: .inf}"), "f.yaml:9: resources.cpus_per_worker: must be a finite number"),
    (field("budget", "{wall_minutes: .nan}"), "f.yaml:9: budget.wall_minutes: must be a finite number, got nan"),
    (field("results", '" "'), "f.yaml:9: results: must name a folder, such as `results`"),
    (field("results", "null"), "f.yaml:9: results: must be text, got None"),
    (field("search", "null"), "f.yaml:8: search: must be a mapping, got None"),
    (field("data", "ETTh1"), "f.yaml:4: data: must be a mapping, got 'ETTh1'"),
    (field("data", "{}"), "f.yaml:4: data.name: is required"),
    (field("task", "3"), "f.yaml:2: task: must be text, got 3"),
    (field("arms", "[]"), "f.yaml:5: arms: must not be empty, got {}"),
    (field("arms", "{}"), "f.yaml:5: arms: must not be empty, got {}"),
    (field("arms", "mae"), "f.yaml:5: arms: must be a mapping, got 'mae'"),
    (field("arms", "null"), "f.yaml:5: arms: must be a mapping, got None"),
    (field("arms", "[mae, 3]"), "f.yaml:5: arms: a list of arms holds names only, got ['mae', 3]"),
    (field("arms", "[mae, mae]"), "f.yaml:5: arms: an arm is named twice: ['mae', 'mae']"),
    (field("arms", "{mae: [1]}"), "f.yaml:5: arms.mae: must be a mapping, got [1]"),
    (field("settings", "{target: [3]}"), "f.yaml:9: settings.target: must be text, a finite number, true, false or n"),
    (field("settings", "{dropout: .nan}"), "f.yaml:9: settings.dropout: must be text, a finite number, true, false or"),
    (field("arms", "{mae: {dropout: {}}}"), "f.yaml:5: arms.mae.dropout: must be text, a finite number, true, false o"),
])
def test_one_problem(refuse: Refuse, text: str, expected: str) -> None:
    (line,) = refuse(text)
    assert line.startswith(expected)


@pytest.mark.parametrize("key", ["name", "task", "data", "arms"])
def test_required(refuse: Refuse, key: str) -> None:
    assert refuse(re.sub(rf"^{key}:.*\n", "", BASE, flags=re.MULTILINE)) == [f"f.yaml: {key}: is required"]


@pytest.mark.parametrize("name", [
    "../x", "/x", "''", "a b", "..", ".hidden", "-x", "a/b", "a\\b", "~x", "ä", "x" * 101, '"a\\n"', "3", "a:b",
])
def test_names_that_could_leave_the_folder(refuse: Refuse, name: str) -> None:
    (line,) = refuse(field("name", name))
    assert line.startswith("f.yaml:1: name: must ")


def test_longest_name(load: Load) -> None:
    assert load(field("name", "x" * 100)).name == "x" * 100


def test_every_problem_at_once(refuse: Refuse) -> None:
    """Errors of form and, in the same go, errors against the task, by line."""
    text = field("training", "{epochs: 0, lrr: 1}") + "settings: {targt: x, epochs: 3}\nreplicates: -1\nfoo: 1\n"
    text = text.replace("size: debug", "size: smal").replace("[mae, scratch", "[mae, scrtch")
    where = [line.split(": ")[:2] for line in refuse(text)]
    assert where == [
        ["f.yaml:3", "size"], ["f.yaml:5", "arms.scrtch"], ["f.yaml:9", "training.epochs"],
        ["f.yaml:9", "training.lrr"], ["f.yaml:10", "settings.targt"], ["f.yaml:10", "settings.epochs"],
        ["f.yaml:11", "replicates"],
        ["f.yaml:12", "foo"],
    ]


def test_long_values_are_shortened(refuse: Refuse) -> None:
    (line,) = refuse(field("replicates", "x" * 5000))
    assert len(line) < 200


# --- --set


def test_set_lays_values_over_the_file(load: Load) -> None:
    spec = load(
        BASE, "search.num_trials=7", " search.seed = 3", "training.lr=1e-4", "budget.wall_minutes=5", "space.lr=null",
        "space.dropout={uniform: [0.1, 0.2], when: {arm: mae}}", "arms.mae.mask_ratio=0.3", "results=a=b",
        "settings.horizon=24",
    )
    assert (spec.search.num_trials, spec.search.seed, spec.training.lr, spec.results) == (7, 3, 1e-4, "a=b")
    assert spec.budget.wall_minutes == 5
    assert list(spec.space) == ["dropout"]
    assert spec.arms == {"mae": {"mask_ratio": 0.3}, "scratch": {}, "persistence": {}}
    assert spec.settings == {"horizon": 24}
    assert load(BASE, "arms=[mae, gru]").arms == {"mae": {}, "gru": {}}
    assert load(BASE, "search.seed=1", "search.seed=2").search.seed == 2
    assert load(BASE, "search.max_concurrent=").search.max_concurrent is None
    assert load(BASE, "arms.gru.rnn_dim=4").arms["gru"] == {"rnn_dim": 4}


@pytest.mark.parametrize(("override", "expected"), [
    ("x", "--set: x: must have the form key.path=value"), ("=3", "--set: =3: must have the form"),
    ("a..b=3", "--set: a..b=3: must have the form"), ("", "--set: must have the form"),
    ("search.num_trials=abc", "--set: search.num_trials: must be a whole number"),
    ("search.num_trials=[", "--set: search.num_trials: not valid YAML"),
    ("search.num_trials=!!python/object:os.system x", "--set: search.num_trials: has the tag"),
    ("search={num_trials: !x 1}", "--set: search.num_trials: has the tag"),
    ("search.num_trials=&a [*a]", "--set: search.num_trials: nested deeper"),
    ("search.num_trails=3", "--set: search.num_trails: unknown key 'num_trails'; did you mean `num_trials`?"),
    ("settings.targt=1", "--set: settings.targt: unknown setting 'targt'; did you mean `target`?"),
    ("arms.mae.mask_ratio=1.5", "--set: arms.mae.mask_ratio: input should be less than 1, got 1.5"),
    ("settings.lookback=25", "--set: settings.lookback: lookback=25 must be a multiple of patch_size=6; try 24 or 30"),
    ("space.lr.when.arm=foo", "--set: space.lr.when.arm: unknown arm 'foo'"),
    ("name.x.y=3", "--set: name: must be text"), ("data=ETTh1", "--set: data: must be a mapping, got 'ETTh1'"),
    ("task=foo", "--set: task: unknown task 'foo'"), ("name=../x", "--set: name: must match"),
])
def test_set_takes_the_blame(refuse: Refuse, override: str, expected: str) -> None:
    assert refuse(BASE, override)[0].startswith(expected)


def test_the_file_keeps_its_blame(refuse: Refuse) -> None:
    lines = refuse(field("search", "{num_trials: 0}"), "search.seed=-1")
    assert lines == ["--set: search.seed: must be at least 0, got -1",
                     "f.yaml:8: search.num_trials: must be at least 1, got 0"]


@pytest.mark.parametrize("arms", ["[[a], {b: 1}]", "[mae, mae]", "[mae, 3]"])
def test_set_into_a_malformed_list_of_arms(refuse: Refuse, arms: str) -> None:
    (line,) = refuse(field("arms", arms), "arms.mae.mask_ratio=0.3")
    assert line.startswith("--set: arms.mae.mask_ratio: goes into a list of distinct names of arms")


# --- paths, JSON, JSON Schema


def test_data_path_is_taken_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "s.yaml"
    path.parent.mkdir()
    path.write_text(field("data", "{name: mine, path: ../mine.csv}"))
    assert load_sweep(path).data.path == str(tmp_path / "mine.csv")
    path.write_text(field("data", "{name: mine, path: ~no-such-user-here/x}"))
    with pytest.raises(SpecError, match=r"data\.path: is not a path on this machine"):
        load_sweep(path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shipped_sweeps(path: Path) -> None:
    spec = load_sweep(path, schema_of=schema_of)
    again = SweepSpec.model_validate(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec
    assert again.training.model_fields_set == spec.training.model_fields_set
    schema = with_arms(spec, schema_of(spec.task))
    for arm in spec.arms:
        assert arm_plan(again, schema, arm) == arm_plan(spec, schema, arm)
    jsonschema.Draft202012Validator(json_schema()).validate(_tree(path.read_text()))
    jsonschema.Draft202012Validator(json_schema()).validate(spec.to_json())


def test_json_holds_every_kind_of_value(load: Load) -> None:
    spec = load(
        BASE, "space.dropout={uniform: [0, 1e-1], when: {arm: [mae]}}", "training.epochs=3", "budget.wall_minutes=1",
        "space.patch_size={choice: [6, 12], when: {arm: mae}}", "space.encoder_depth={int: [1, 5], step: 2}",
        "arms.scratch.patch_size=6",
    )
    plain = json.loads(json.dumps(spec.to_json()))
    assert plain["training"] == {"epochs": 3}
    assert plain["space"]["encoder_depth"] == {"int": [1, 5], "step": 2, "when": {}}
    assert SweepSpec.model_validate(plain) == spec


def _tree(text: str) -> Any:
    import io

    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(io.StringIO(text))


@pytest.mark.parametrize("change", [
    {"foo": 1}, {"name": "../x"}, {"arms": []}, {"arms": "mae"}, {"arms": [3]}, {"space": {"lr": {"uniform": [1]}}},
    {"space": {"lr": 3}}, {"search": {"num_trials": 0}}, {"search": {"algorithm": "x"}}, {"data": {}},
    {"training": {"epochs": 0}}, {"settings": {"target": []}}, {"replicates": -1},
])
def test_json_schema_refuses_what_the_loader_refuses(change: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(validator.schema)
    tree = {**_tree(BASE), **change}
    assert not validator.is_valid(tree)
    with pytest.raises(SpecError):
        parse_sweep(json.dumps(tree), "f.yaml")


def test_json_schema_describes_every_field() -> None:
    described = json_schema()["properties"]
    missing = [name for name, value in described.items() if "description" not in value and "$ref" not in value]
    assert not missing
    assert set(described) == {field.alias or name for name, field in SweepSpec.model_fields.items()}
