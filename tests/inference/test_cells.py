"""Models of a sweep with factors: chosen by cell, never averaged over cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import raymae
from raymae.cli import main
from raymae.errors import ModelError
from raymae.results.store.store import Store
from tests.inference.finished import finished, text_of

FACTORS = "factors: {label_fraction: [0.5, 1.0]}\n"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return finished(tmp_path_factory.mktemp("matrix"), text_of("forecasting", arms="[mae, scratch]") + FACTORS)


@pytest.mark.parametrize("arm", ["mae", "scratch"])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_an_ensemble_is_of_one_cell(matrix: Store, arm: str, fraction: float) -> None:
    model = raymae.load_model(matrix.root, arm, ensemble=True, cell={"label_fraction": fraction})
    assert len(model.cards) == 2
    assert {card.config["params"]["label_fraction"] for card in model.cards} == {fraction}


def test_by_default_it_is_the_cell_of_what_is_best_on_validation(matrix: Store) -> None:
    best = raymae.load_model(matrix.root, "mae")
    together = raymae.load_model(matrix.root, "mae", ensemble=True)
    assert together.card.trial_id == best.card.trial_id
    assert {card.config["params"]["label_fraction"] for card in together.cards} == {
        best.card.config["params"]["label_fraction"]}


@pytest.mark.parametrize(("cell", "said"), [
    ({"label_fraction": 0.3}, "no model with label_fraction 0.3; there are those with label_fraction "),
    ({"label_fractoin": 0.5}, "did you mean `label_fraction`"),
])
def test_a_cell_that_is_not_there_is_said(matrix: Store, cell: dict[str, float], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        raymae.load_model(matrix.root, "mae", cell=cell)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["label_fraction", "=0.5", "label_fraction=[1", "label_fraction={a: 1}"])
def test_the_command_says_how_a_cell_is_written(matrix: Store, tmp_path: Path, text: str) -> None:
    done = CliRunner().invoke(main, ["predict", matrix.root, "x.csv", "--to", str(tmp_path / "y.csv"), "--cell", text])
    assert done.exit_code == 2
    assert "say FACTOR=VALUE, such as label_fraction=0.1" in " ".join(done.stderr.split())


def test_keep_best_leaves_one_model_of_each_arm_in_each_cell(tmp_path: Path) -> None:
    store = finished(tmp_path, text_of("forecasting") + FACTORS + "keep: best\n")
    kept = sorted(path.stem for path in (Path(store.root) / "models").glob("*.safetensors"))
    assert len(kept) == 2
    assert {name.rpartition("-")[0].rpartition("-")[0] for name in kept} == {"mae-lf0.5", "mae-lf1.0"}
