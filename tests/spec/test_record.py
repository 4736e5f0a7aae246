"""The key `record`: lists and mappings, what is refused, and that no secret can stand in it."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from raymae.errors import SpecError
from raymae.spec import SweepSpec, json_schema, parse_sweep

TEXT = """
name: recorded
task: forecasting
data: {name: ETTh1}
arms: [mae, scratch]
"""


def load(more: str) -> SweepSpec:
    return parse_sweep(TEXT + more, "f.yaml")


@pytest.mark.parametrize(("written", "used"), [
    ("", {}), ("record: []", {}), ("record: {}", {}),
    ("record: [mlflow]", {"mlflow": {"uri": None, "experiment": None}}),
    ("record: {mlflow: }", {"mlflow": {"uri": None, "experiment": None}}),
    ("record: {mlflow: {uri: 'http://h:1', experiment: e}}", {"mlflow": {"uri": "http://h:1", "experiment": "e"}}),
    ("record: {mlflow: {uri: '${MY_URI}'}}", {"mlflow": {"uri": "${MY_URI}", "experiment": None}}),
    ("record: [wandb]", {"wandb": {"project": None, "entity": None, "mode": None}}),
    ("record: {wandb: {mode: offline}}", {"wandb": {"project": None, "entity": None, "mode": "offline"}}),
])
def test_what_is_written_is_what_is_used_and_loads_back(written: str, used: dict[str, Any]) -> None:
    spec = load(written)
    plain = spec.to_json()
    assert plain["record"] == used
    assert SweepSpec.model_validate(plain) == spec
    jsonschema.Draft202012Validator(json_schema()).validate(plain)


@pytest.mark.parametrize("written", [[], ["mlflow", "wandb"], {"mlflow": None}, {"wandb": {"mode": "offline"}}])
def test_editors_take_every_form(written: Any) -> None:
    tree = {"name": "a", "task": "t", "data": {"name": "d"}, "arms": ["mae"], "record": written}
    jsonschema.Draft202012Validator(json_schema()).validate(tree)


@pytest.mark.parametrize(("written", "said"), [
    ("record: [mlflwo]", "f.yaml:6: record: unknown recorder 'mlflwo'; did you mean `mlflow`?"),
    ("record: mlflow", "record: must be a list such as [mlflow] or a mapping"),
    ("record: [{mlflow: x}]", "record: unknown recorder"),
    ("record: {mlflow: http}", "record.mlflow: must be a mapping, got 'http'"),
    ("record: {mlflow: {url: x}}", "record.mlflow.url: unknown key 'url'; did you mean `uri`?"),
    ("record: {mlflow: {uri: 'http://[bad'}}", "record.mlflow.uri: must be an address such as http://host:5000"),
    ("record: {wandb: {mode: on}}", "record.wandb.mode: must be 'online' or 'offline', got 'on'"),
    ("record: {wandb: {project: a/b}}", "record.wandb.project: must be without /"),
    ("record: {wandb: {key: abc}}", "record.wandb.key: unknown key 'key'"),
])
def test_mistakes_are_named(written: str, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        load(written)
    assert said in str(refused.value)


@pytest.mark.parametrize("uri", [
    "http://me:secret@host:5000", "https://secret@host", "mysql+pymysql://me:secret@db/runs", "me:secret@host:5000",
])
def test_a_password_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(SpecError) as refused:
        load(f"record: {{mlflow: {{uri: '{uri}'}}}}")
    assert "MLFLOW_TRACKING_PASSWORD" in str(refused.value)
    assert "secret" not in str(refused.value)
