"""A task of one's own, outside the repository: written, checked, trained, and each broken rule found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from raymae.cli import main
from raymae.contract import CHECKS, Outcome, Subject, outcomes
from raymae.contract.new import source_of, sweep_of, write_task
from raymae.errors import SpecError

ROOT = Path(__file__).parents[1]
# as the entry point of a virtual environment: the current folder is not on the path
COMMAND = [sys.executable, "-c", "import sys; sys.path.pop(0); from raymae.cli import main; main()"]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, whose only path to this project is an environment variable."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAYMAE_CACHE": str(folder / "cache"), "RAYMAE_OFFLINE": "1"}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=900)


def test_new_then_check_then_train(tmp_path: Path) -> None:
    written = run(tmp_path, "task", "new", "my.module:Task")
    assert written.returncode == 0, written.stderr
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "my/__init__.py", "my/module.py", "my/module.yaml"]
    commands = [line.removeprefix("  raymae ") for line in written.stdout.splitlines() if line.startswith("  raymae ")]
    assert commands == ["task check my.module:Task", "sweep my/module.yaml --dry-run",
                        "train my/module.yaml --arm mae", "sweep my/module.yaml"]
    checked = run(tmp_path, *commands[0].split())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert [line.split()[0] for line in checked.stdout.splitlines()[1:-1]] == ["kept"] * len(CHECKS)
    tried = run(tmp_path, *commands[1].split())
    assert "mask [2, 8]" in tried.stdout, tried.stderr
    trained = run(tmp_path, *commands[2].split(), "--test")
    assert "test_mse" in trained.stdout, trained.stderr


@pytest.mark.slow
def test_workers_find_a_task_of_the_current_folder(tmp_path: Path) -> None:
    write_task("waves:Waves", tmp_path)
    swept = run(tmp_path, "sweep", "waves.yaml", "--json", "--set", "search.num_trials=1", "--set", "replicates=2")
    assert swept.returncode == 0, swept.stderr
    assert json.loads(swept.stdout)["verdict"]["complete"]


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("mine")
    result = CliRunner().invoke(main, ["task", "new", "own:Own"])
    assert result.exit_code == 2
    assert "own.yaml is there already, and not overwritten" in result.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("own.yaml", "mine")]


@pytest.mark.parametrize(("name", "said"), [
    ("own", "must be package.module:Class, got 'own'"), ("../own:Own", "must be package.module:Class"),
    ("class:Own", "'class' is a word of Python"), ("own:Tensor", "the file uses the name Tensor itself"),
    ("json:Own", "'json' is the name of another module"), ("torch.own:Own", "'torch' is the name of another module"),
])
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        write_task(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- the contract finds what is broken

BROKEN = {  # what is replaced in the example by what, the rules that see it, and what they say
    "nondeterministic forward": (
        "return model(GRID.patchify(batch[\"image\"]))[:, 0]",
        "return model(GRID.patchify(batch[\"image\"]))[:, 0] + __import__('random').random()",
        {"same_seed_same_result": "run again with the same seed, loss of finetune epoch 1 is ",
         "batch_size_changes_no_score": "predict() must not depend on other examples"}),
    "test split touched before the score": (
        "    def load(self, split: str) -> Split:\n",
        "    def load(self, split: str) -> Split:\n        if split == 'train':\n            self.load('test')\n",
        {"test_split_is_read_last": "the test split is read before the score: load() of "}),
    "missing unit scores": (
        "    def unit_scores(", "    def scores_of_units(",
        {"examples_make_up_the_test_score": "metrics().unit_scores() gives None"}),
    "unit scores of something else": (
        "base.UnitScores.plain((prediction.double() - batch[\"speed\"]).square())",
        "base.UnitScores.plain((prediction.double() - batch[\"speed\"]).abs())",
        {"examples_make_up_the_test_score": "unit_scores() make "}),
    "NaN loss": (
        ".square().mean(), len(batch[\"speed\"]))", ".sqrt().mean(), len(batch[\"speed\"]))",
        {"finetuning_loss_falls": "arm mae: task own_task:Own, arm mae: finetune_loss is nan",
         "trials_report_everything": "the finetune loss is nan in epoch 1"}),
    "group in two splits": (
        "range(192), \"train\": range(192), \"pretext\": range(192, 256), \"val\": range(192, 256)",
        "range(190), \"train\": range(190), \"pretext\": range(190, 256), \"val\": range(190, 256)",
        {"examples_are_in_one_split": "1 group, such as ['rec 47'], in pretrain or train and in val too"}),
    "not resumable": (
        "return base.Loss((self.predict(model, batch)",
        "self.steps = getattr(self, 'steps', 0) + 1\n        return base.Loss(self.steps * (self.predict(model, batch)",
        {"resuming_changes_nothing": "resumed after report 2, loss of finetune epoch 2 is "}),
    "not resumable inside an epoch": (
        "rows_B = self.rows_N[index_B]", "self.batches = getattr(self, 'batches', 0) + (generator is not None)\n"
        "        rows_B = self.rows_N.roll(self.batches)[index_B]",
        {"resuming_inside_an_epoch_changes_nothing": "resumed after a batch of pretrain epoch 2, loss of pretrain "}),
    "hidden tokens leak": (
        "return PatchPretraining(self.autoencoder, GRID, self.params.mask_ratio)",
        "leaky = PatchPretraining(self.autoencoder, GRID, self.params.mask_ratio)\n"
        "        leaky.encode_visible = lambda model, batch, mask: model.encoder(leaky.tokens(batch))\n"
        "        return leaky",
        {"hidden_tokens_cannot_leak": "encode_visible() changes with the values of hidden tokens"}),
    "averages of averages": (
        "self.totals += torch.stack([error_B.square().sum(), torch.tensor(len(error_B), dtype=torch.float64)])",
        "self.totals += torch.stack([error_B.square().mean(), torch.tensor(1, dtype=torch.float64)])",
        {"batch_size_changes_no_score": "metrics are sums and counts, divided at the end"}),
    "labels that are not a share": (
        "self.params.label_fraction, self.config.seed", "1.0, self.config.seed",
        {"labels_are_a_nested_share": "the fewer are not all among the more"}),
    "a head that is an encoder": (
        "    def metrics(self) -> SquaredError:",
        "    def is_head(self, name: str) -> bool:\n        return False\n\n    def metrics(self) -> SquaredError:",
        {"pretrained_weights_arrive": "weights arrive of "}),
    "a parameter without param()": (
        "    encoder_dim: int = param(32, \"width of the encoder\", kinds=(\"pretrained\", \"trained\"), ge=8, "
        "multiple_of=2)", "    encoder_dim: int = 32",
        {"parameters_are_declared": "declare encoder_dim with param()"}),
    "a parameter of pretraining that is said to be fine-tuning's": (
        "phase=\"pretrain\"", "phase=\"finetune\"",
        {"pretraining_reads_nothing_of_finetuning": "mask_ratio is declared with phase=\"finetune\", and with "}),
    "a size of unknown parameters": (
        "_batch_size\": 32}}", "_batch_size\": 32, \"depth\": 3}}",
        {"sizes_are_possible": "the size debug has unknown parameters: depth"}),
    "a mistake in a method": (
        "return base.Loss((self.predict(model, batch)", "return base.Loss((self.predict(model, batches)",
        {"finetuning_loss_falls": "arm mae: NameError: name 'batches' is not defined ("}),
}


def checked(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, *rules: str) -> dict[str, Outcome]:
    """What some rules say of a module's task."""
    (folder / "own_task.py").write_text(text)
    monkeypatch.delitem(sys.modules, "own_task", raising=False)
    monkeypatch.syspath_prepend(folder)
    checks = tuple(check for check in CHECKS if check.name in rules)
    return {outcome.check: outcome for outcome in outcomes(checks, Subject("own_task:Own", folder / "runs"))}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_rule_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    old, new, wanted = BROKEN[kind]
    text = source_of("own_task:Own")
    assert old in text
    found = checked(tmp_path, monkeypatch, text.replace(old, new), *wanted)
    for check, said in wanted.items():
        assert said in found[check].problem


def test_without_names_examples_of_two_splits_are_found_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = source_of("own_task:Own").replace("    def units(", "    def names(")
    found = checked(tmp_path, monkeypatch, text.replace("\"test\": range(256, 320)", "\"test\": range(250, 320)"),
                    "examples_are_in_one_split")
    assert found["examples_are_in_one_split"].problem == "6 examples of val are in test too"


def test_what_a_failed_trial_leaves_open_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that fails is said once, not by every rule that needs it."""
    text = source_of("own_task:Own").replace("return {\"mse\":", "return {\"msq\":")
    found = checked(tmp_path, monkeypatch, text, "trials_report_everything", "best_weights_are_scored")
    assert "KeyError: 'val_mse'" in found["trials_report_everything"].problem
    assert found["best_weights_are_scored"].state == "left out"


def test_check_says_the_reason_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = source_of("own_cli_task:Own").replace("    def unit_scores(", "    def unit_score(")
    (tmp_path / "own_cli_task.py").write_text(text)
    broken = next(check for check in CHECKS if check.name == "examples_make_up_the_test_score")
    monkeypatch.setattr("raymae.contract.CHECKS", (CHECKS[0], broken))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(main, ["task", "check", "own_cli_task:Own", "--json"])
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert (said["task"], said["kept"]) == ("own_cli_task:Own", False)
    assert [one["check"] for one in said["checks"] if one["state"] == "BROKEN"] == ["examples_make_up_the_test_score"]
    assert "own_cli_task:Own breaks 1 of 2 rules: examples_make_up_the_test_score: arm mae: " in result.stderr


def test_check_of_a_task_that_there_is_not() -> None:
    result = CliRunner().invoke(main, ["task", "check", "forecastng"])
    assert result.exit_code == 2
    assert "unknown task 'forecastng'; did you mean `forecasting`?" in result.stderr


def test_check_reads_the_data_of_a_sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymae.contract.CHECKS", CHECKS[:8])
    write_task("own_swept_task:Own", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "own_swept_task.py").read_text()
    (tmp_path / "own_swept_task.py").write_text(text.replace('return "192 train', 'return data.name + "\\n192 train'))
    wrong = CliRunner().invoke(main, ["task", "check", "forecasting", "--sweep", "own_swept_task.yaml"])
    assert wrong.exit_code == 2
    assert "--sweep: task: is own_swept_task:Own, and forecasting is checked" in wrong.stderr
    result = CliRunner().invoke(main, ["task", "check", "own_swept_task:Own", "--sweep", "own_swept_task.yaml"])
    assert "validate() returns 'waves\\n192 train" in result.stdout
    assert sweep_of("own_swept_task:Own") == (tmp_path / "own_swept_task.yaml").read_text()
