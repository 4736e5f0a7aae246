"""What shells complete, read off source files: as the models have it, in time, and in a real Bash."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from raymae.cli import main
from raymae.cli.completion import Key, _keys
from raymae.data import DATASETS
from raymae.spec.load import json_schema
from raymae.tasks import TASKS, schema_of

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "ray", "optuna", "pandas", "numpy", "pydantic", "pyarrow")
ASK = f"""
import sys
from raymae.cli import main
try:
    main(prog_name="raymae")
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complete(*words: str, kinds: bool = False) -> list[str]:
    found = ShellComplete(main, {}, "raymae", "_RAYMAE_COMPLETE").get_completions([*words[:-1]], words[-1])
    return [item.type if item.type != "plain" or kinds else item.value for item in found]


def keys_of(schema: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """The keys of a JSON Schema's object and of those in it."""
    found = {}
    for name, one in schema.get("properties", {}).items():
        options = [one, *one.get("anyOf", ()), *one.get("oneOf", ())]
        sections = [top["$defs"][option["$ref"].rpartition("/")[2]] for option in options if "$ref" in option]
        found[name] = keys_of(sections[0], top) if sections else {}
    return found


def tree(key: Key) -> dict[str, Any]:
    return {name: tree(below) for name, below in key.below.items()}


@pytest.mark.parametrize("task", TASKS)
def test_keys_are_those_of_the_models(task: str) -> None:
    found, schema = tree(_keys((task,))), schema_of(task)
    params = set(schema.params.model_fields)
    assert set(found.pop("space")) == params
    assert {arm: set(own) for arm, own in found.pop("arms").items()} == dict.fromkeys(schema.arms, params)
    expected = keys_of(json_schema(), json_schema())
    assert set(found.pop("settings")) | set(found["training"]) == params
    assert found == {name: below for name, below in expected.items() if name not in ("space", "arms", "settings")}
    assert _keys((task,)).below["size"].values == tuple(schema.sizes)


def test_a_key_is_completed_section_by_section_and_then_its_value() -> None:
    first = complete("sweep", "f", "--set", "")
    assert {"search.", "task=", "arms.", "arms=", "replicates=", "replicates."} <= set(first)
    assert complete("sweep", "f", "--set", "search.al") == ["search.algorithm="]
    assert complete("sweep", "f", "--set", "search.algorithm=g") == ["search.algorithm=gp", "search.algorithm=grid"]
    assert complete("sweep", "f", "--set", "task=") == [f"task={name}" for name in TASKS]
    assert complete("sweep", "f", "--set", "data.name=E") == ["data.name=ETTh1"]
    assert complete("train", "f", "--arm", "mae", "--set", "training.prec") == ["training.precision="]
    assert complete("fork", "d", "new", "--set", "budget.w") == ["budget.wall_minutes="]
    assert complete("submit", "f", "--set", "arms.mae.mask_r") == ["arms.mae.mask_ratio="]
    assert complete("sweep", "f", "--set", "settings.norm_target=") == [
        "settings.norm_target=true", "settings.norm_target=false"]
    for nothing in ("nope.", "search.algorithm.x", "search.seed=", "nope=", "a.b.c.d"):
        assert complete("sweep", "f", "--set", nothing) == []


def test_a_sweep_file_says_which_keys_and_arms(here: Path) -> None:
    (here / "own.yaml").write_text("task: forecasting\narms: {linear: {}, mae: {lr: 1e-3}}\n")
    assert complete("train", "own.yaml", "--arm", "") == ["linear", "mae"]
    assert complete("sweep", "own.yaml", "--set", "settings.ho") == ["settings.horizon="]
    assert complete("sweep", "own.yaml", "--set", "settings.num_cl") == []
    (here / "done").mkdir()
    (here / "done" / "sweep.json").write_text(json.dumps({"spec": {"task": "imputation", "arms": {"knn": {}}}}))
    assert complete("fork", "done", "new", "--set", "settings.num_d") == ["settings.num_donors="]


@pytest.mark.parametrize("text", [
    "{", "- 1", "arms: 3", "task: [x]", "", "&a [*a]", "[" * 3000, "\0", "arms: [[1], {}]",
])
def test_a_broken_sweep_file_is_no_obstacle(text: str, here: Path) -> None:
    (here / "own.yaml").write_text(text)
    assert "search.seed=" in complete("sweep", "own.yaml", "--set", "search.se")
    assert complete("train", "own.yaml", "--arm", "persis") in (["persistence"], [])


def test_sweep_files_come_first_here_and_in_the_usual_folder(here: Path) -> None:
    for name in ("sweeps/a.yaml", "sweeps/notes.txt", "b.yml", "sub/c.yaml", "sub/.hidden.yaml"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text("")
    assert complete("sweep", "") == ["b.yml", "sweeps/a.yaml"]
    assert complete("sweep", "sw") == complete("train", "sweeps/") == ["sweeps/a.yaml"]
    assert complete("submit", "sub/") == ["sub/c.yaml"]
    assert complete("sweep", f"{here}/sub/") == [f"{here}/sub/c.yaml"]
    assert complete("sweep", "nothing/") == complete("sweep", "su") == ["file"]
    (here / "sub" / "odd name\n.yaml").write_text("")
    assert complete("sweep", "sub/") == ["file"], "the shell knows how to quote"


def test_folders_of_sweeps_come_first(here: Path) -> None:
    for name in ("results/first", "results/second", "results/none", "elsewhere/third"):
        (here / name).mkdir(parents=True)
        if name != "results/none":
            (here / name / "sweep.json").write_text("{}")
    assert complete("results", "") == complete("watch", "res") == ["results/first", "results/second"]
    assert complete("compare", "results/first", "results/s") == ["results/second"]
    assert complete("extend", "elsewhere/") == ["elsewhere/third"]
    assert complete("retry", "else") == complete("report", "d", "--to", "x") == ["dir"]


def test_data_sets_arms_and_cluster_files(here: Path) -> None:
    assert complete("data", "fetch", "") == complete("data", "verify", "") == list(DATASETS)
    assert complete("train", "f", "--arm", "persis") == ["persistence"]
    (here / "cluster").mkdir()
    (here / "cluster" / "aws.yaml").write_text("")
    assert complete("cluster", "check", "cl") == ["cluster/aws.yaml"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `raymae` to put on the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    file = folder / "raymae"
    file.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n{ASK}")
    file.chmod(0o755)
    return folder


def in_bash(program: Path, *words: str) -> list[str]:
    """What Bash would offer, its words already taken apart as it does."""
    script = f"""
eval "$(_RAYMAE_COMPLETE=bash_source raymae 2> /dev/null)"
COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}
_raymae_completion raymae 2> /dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PATH": f"{program}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_words_apart_at_the_equals_sign(program: Path, here: Path) -> None:
    assert in_bash(program, "raymae", "sweep", "f", "--set", "search.alg") == ["search.algorithm="]
    assert in_bash(program, "raymae", "sweep", "f", "--set", "search.algorithm", "=", "g") == ["gp", "grid"]
    assert in_bash(program, "raymae", "sweep", "f", "--set", "search.scheduler", "=") == [
        "asha", "hyperband", "median", "pbt", "none"]
    assert in_bash(program, "raymae", "train", "f", "--set", "size", "=", "debug", "--arm", "persis") == ["persistence"]
    assert in_bash(program, "raymae", "train", "f", "--arm", "=", "persis") == ["persistence"]


def test_zsh_keeps_the_option_before_a_value(program: Path) -> None:
    done = subprocess.run([program / "raymae"], capture_output=True, text=True, timeout=60, env={
        **os.environ, "_RAYMAE_COMPLETE": "zsh_complete", "COMP_WORDS": "raymae train f --arm=persis",
        "COMP_CWORD": "3"})
    assert done.stdout.splitlines() == ["plain", "--arm=persistence", "_"]


@pytest.mark.parametrize("words", [
    "raymae sweep sweeps/debug.yaml --set settings.", "raymae data fetch ", "raymae sweep ",
], ids=["keys", "data", "files"])
def test_an_answer_imports_nothing_heavy_and_comes_at_once(words: str, program: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    took = []
    for _ in range(3):  # processor time, of which the machine's other work takes none
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([program / "raymae"], capture_output=True, text=True, timeout=60, env={
            **os.environ, "_RAYMAE_COMPLETE": "bash_complete", "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" "))})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert "plain," in done.stdout
        assert done.stderr.strip() == "[]", "imported by completion"
    assert min(took) < 0.4
