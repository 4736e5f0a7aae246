"""A models folder from somebody else: refused with a reason, nothing in it is run, and little of it is read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import sys

import pytest
import safetensors.torch
import torch

import raymae
from raymae.errors import ModelError
from raymae.inference.load import filled, task_of
from raymae.inference.shelf import MAX_HEADER


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def best(folder):
    return sorted((folder / "models").glob("*.safetensors"))[0]


def load(folder):
    """The best model of a folder with its weights, as `score` fills it, without reading the data's splits."""
    model = raymae.load_model(folder, "mae", ensemble=True, device="cpu")
    for member in model.members:
        kind = task_of(member.card, member.shelf)
        filled(member.shelf, member.card, kind(member.config, member.device).build, member.device)


def rewrite(weights, data, **changes):
    """Put other bytes in place of weights, with a card that calls them whole."""
    weights.write_bytes(data)
    card = weights.with_suffix(".json")
    plain = json.loads(card.read_text())
    card.write_text(json.dumps({**plain, "sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data),
                                **changes}))


def change(weights, **changes):
    card = weights.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


@pytest.fixture(autouse=True)
def generated(monkeypatch):
    monkeypatch.delenv("RAYMAE_DATA", raising=False)
    monkeypatch.setenv("RAYMAE_OFFLINE", "1")
    monkeypatch.setenv("RAYMAE_CACHE", "/nowhere")


def test_a_whole_one_loads(copied):
    load(copied)


@pytest.mark.parametrize("trick", ["pickle", "torch", "truncated", "flipped", "empty", "huge header", "negative",
                                   "no header", "shapes", "missing tensor", "one more", "link", "sparse", "gone"])
def test_weights(copied, tmp_path, trick):
    weights, bomb = best(copied), tmp_path / "exploded"
    data, expected = weights.read_bytes(), "not a whole safetensors file"
    tensors = safetensors.torch.load(data)
    save = safetensors.torch.save
    name = next(iter(tensors))
    if trick == "pickle":
        rewrite(weights, pickle.dumps(Bomb(bomb)))
    elif trick == "torch":
        torch.save({"a": Bomb(bomb)}, weights)
        rewrite(weights, weights.read_bytes())
    elif trick == "truncated":
        weights.write_bytes(data[:-10])
        expected = "damaged"
    elif trick == "flipped":
        weights.write_bytes(data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])
        expected = "damaged"
    elif trick == "empty":
        rewrite(weights, b"")
    elif trick == "huge header":
        rewrite(weights, struct.pack("<Q", MAX_HEADER + 1) + data[8:])
    elif trick == "negative":
        rewrite(weights, struct.pack("<q", -1) + data[8:])
    elif trick == "no header":
        rewrite(weights, struct.pack("<Q", 20) + b"[" * 20 + data[8:])
        expected = "its header is not that of a safetensors file"
    elif trick == "shapes":
        rewrite(weights, save({**tensors, name: torch.zeros(3, 5)}))
        expected = "must have the shape"
    elif trick == "missing tensor":
        rewrite(weights, save({key: value for key, value in tensors.items() if key != name}))
        expected = "is not in it"
    elif trick == "one more":
        rewrite(weights, save({**tensors, "more": torch.zeros(2)}))
        expected = "which the network does not have"
    elif trick == "link":
        (tmp_path / "outside").write_bytes(data)
        weights.unlink()
        weights.symlink_to(tmp_path / "outside")
        expected = "no such file in the folder itself"
    elif trick == "sparse":  # a terabyte behind an honest header is not read
        with weights.open("r+b") as file:
            file.truncate(10**12)
        change(weights, num_bytes=10**12)
        expected = "more than its tensors take"
    else:
        weights.unlink()
        expected = "no such file"
    with pytest.raises(ModelError, match=expected) as caught:
        load(copied)
    assert str(weights) in str(caught.value)
    assert not bomb.exists()


@pytest.mark.parametrize(("changes", "expected"), [
    ({"num_parameters": int("9" * 30)}, "at most 64 bits"),
    ({"scores": {"val_mse": int("9" * 30)}}, "at most 64 bits"),
    ({"scores": {"val_mse": float("inf")}}, "finite"),
    ({"trial_id": "../../elsewhere"}, "trial_id: must be"),
    ({"surprise": 1}, "unexpected keyword"),
    ({"direction": "up"}, "direction"),
    ({"format": 9}, "format"),
    ({"state": []}, "state"),
])
def test_cards(copied, changes, expected):
    for weights in (copied / "models").glob("*.safetensors"):
        change(weights, **changes)
    with pytest.raises(ModelError, match=expected):
        raymae.load_model(copied)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": 1, "a": ' + "9" * 5000 + "}"])
def test_cards_that_are_none(copied, text):
    for card in (copied / "models").glob("*.json"):
        card.write_text(text)
    with pytest.raises(ModelError, match=r"\.json"):
        raymae.load_model(copied)


@pytest.mark.parametrize(("params", "expected"), [
    ({"encoder_dim": 2**40}, ""), ({"encoder_depth": 10**9}, "encoder_depth"), ({"encoder_heads": 0}, ""),
    ({"encoder_dim": "wide"}, ""), ({"patch_size": -1}, ""),
])
def test_configurations(copied, params, expected):
    for weights in (copied / "models").glob("*.safetensors"):
        config = json.loads(weights.with_suffix(".json").read_text())["config"]
        change(weights, config={**config, "params": {**config["params"], **params}})
    with pytest.raises(ModelError, match=expected or r"\.json|\.safetensors"):
        raymae.load_model(copied, device="cpu").score()


def test_a_task_in_the_results_folder_is_not_imported(copied, tmp_path, monkeypatch):
    (copied / "evil_task.py").write_text(f"import os; os.mkdir({str(tmp_path / 'exploded')!r})")
    for weights in (copied / "models").glob("*.safetensors"):
        config = json.loads(weights.with_suffix(".json").read_text())["config"]
        change(weights, task="evil_task:Evil", config={**config, "task": "evil_task:Evil"})
    monkeypatch.chdir(copied)
    monkeypatch.setattr(sys, "path", [str(copied), *sys.path])
    model = raymae.load_model(copied, device="cpu")
    with pytest.raises(ModelError, match="from where no code is run"):
        model.score()
    assert not (tmp_path / "exploded").exists()
    monkeypatch.setattr(sys, "path", sys.path[1:])
    with pytest.raises(ModelError, match="from where no code is run"):
        model.score()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no module evil_task"):
        model.score()


def test_where_there_is_none(copied):
    for path in (copied / "models").iterdir():
        path.unlink()
    with pytest.raises(ModelError, match="raymae extend"):
        raymae.load_model(copied)
