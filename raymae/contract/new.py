"""A task of one's own to start from: the example and a sweep file of it, written into the current folder."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

from raymae.contract import example
from raymae.errors import Problem, SpecError

PATTERN = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
SWEEP = """\
# What pretraining is worth on generated waves. `raymae sweep {file} --dry-run` checks everything.
name: {sweep}
task: {name}
size: debug
data: {{name: waves}}
arms: [mae, scratch, mean]
space:
  lr: {{loguniform: [1.0e-3, 1.0e-2]}}
  mask_ratio: {{choice: [0.25, 0.5, 0.75], when: {{arm: mae}}}}
search: {{num_trials: 4}}
replicates: 3
"""


def source_of(name: str) -> str:
    """The text of a task's module: the example under another name.

    Args:
        name: `package.module:Class`.
    """
    text = Path(example.__file__).read_text(encoding="utf-8")
    text = text.replace(f"{example.Example.schema.name}", name)
    return re.sub(rf"\b{example.Example.__name__}\b", name.partition(":")[2], text)


def sweep_of(name: str) -> str:
    """The text of a sweep file for a task of `source_of`."""
    module = name.partition(":")[0]
    return SWEEP.format(name=name, sweep=module.rpartition(".")[2], file=f"{module.replace('.', '/')}.yaml")


def write_task(name: str, folder: Path) -> list[Path]:
    """Write a task and its sweep file, and return their paths, relative to the folder.

    Args:
        name: `package.module:Class`.
        folder: The current folder.

    Raises:
        SpecError: The name cannot be one of a module and its class, or a file of that name is there already.
    """
    problem = _unusable(name)
    if problem:
        raise SpecError([Problem("NAME", "", problem)])
    module = name.partition(":")[0]
    path = Path(*module.split(".")).with_suffix(".py")
    texts = {path: source_of(name), path.with_suffix(".yaml"): sweep_of(name)}
    taken = [str(file) for file in texts if (folder / file).exists()]
    if not taken and find_spec(module.partition(".")[0]) and not (folder / path.parts[0]).exists():
        raise SpecError([Problem("NAME", "", f"{module.partition('.')[0]!r} is the name of another module on the path; "
                                             "choose another")])
    if taken:
        raise SpecError([Problem("NAME", "", f"{' and '.join(taken)} {'is' if len(taken) == 1 else 'are'} there "
                                             "already, and not overwritten; choose another name, or move it away")])
    for parent in reversed(path.parents[:-1]):
        if not (folder / parent).is_dir():
            (folder / parent).mkdir()
            (folder / parent / "__init__.py").touch()
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [*texts]


def _unusable(name: str) -> str:
    """Why a task cannot be called so; "" where it can."""
    found = PATTERN.fullmatch(name)
    if found is None:
        return f"must be package.module:Class, got {name!r}; `raymae task new waves:Waves` writes waves.py"
    words = [word for word in re.split(r"[.:]", name) if keyword.iskeyword(word)]
    if words:
        return f"{words[0]!r} is a word of Python, in {name!r}; choose another"
    if found[2] in vars(example):
        return f"the file uses the name {found[2]} itself; choose another for the class"
    return ""
