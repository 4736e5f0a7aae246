"""Complete words in a shell: paths, arms, data sets, and the keys and values of `--set`.

An answer has to be there before the next key is pressed, and importing the models of sweep files takes half a second,
tasks several. So names are read off the source files that declare them, which are never run.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete, add_completion_class

PACKAGE = Path(__file__).parents[1]
MAX_FILE = 1_000_000  # bytes of a sweep file that is looked into while somebody waits
MAX_ENTRIES = 1_000  # of a folder
_SAFE = re.compile(r"[\w@%+.,/-]+")  # other names are left to the shell, which quotes them


def names(values: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    """Those values that begin with what was typed."""
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]


# --- paths


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Any folder; an argument that may be a URI too is no `click.Path`."""
    return [CompletionItem(incomplete, type="dir")]


def results_folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The sweeps' folders that begin so, here and in `results/`; where there is none, any folder."""
    found = _paths(incomplete, "results", lambda path: (path / "sweep.json").is_file())
    return found or folders(ctx, param, incomplete)


def sweep_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The YAML files that begin so, here and in `sweeps/`; where there is none, any file."""
    return _paths(incomplete, "sweeps", _is_yaml) or [CompletionItem(incomplete, type="file")]


def cluster_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The YAML files that begin so, here and in `cluster/`; where there is none, any file."""
    return _paths(incomplete, "cluster", _is_yaml) or [CompletionItem(incomplete, type="file")]


def _is_yaml(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") and path.is_file()


def _paths(incomplete: str, usual: str, wanted: Callable[[Path], bool]) -> list[CompletionItem[str]]:
    """Paths that begin with what was typed: in the folder that it names, else here and in the usual folder."""
    typed, found = incomplete.rpartition("/")[0], []
    for folder in [typed] if "/" in incomplete else ["", usual]:
        try:
            entries = sorted(Path(folder or ("/" if incomplete.startswith("/") else ".")).iterdir())[:MAX_ENTRIES]
        except OSError:
            continue
        for path in entries:
            shown = f"{folder}/{path.name}" if folder or incomplete.startswith("/") else path.name
            if shown.startswith(incomplete) and not path.name.startswith(".") and wanted(path):
                found.append(shown)
    return [CompletionItem(path) for path in found] if all(map(_SAFE.fullmatch, found)) else []


# --- names


def data_sets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The data sets that are known."""
    return names(_known_data(), incomplete)


def arms(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The arms of the sweep file that was named before; without one, those of every task."""
    plain = _sweep(ctx)
    own = plain.get("arms")
    named = [str(arm) for arm in own] if isinstance(own, (list, dict)) else []
    return names(named or _arms_of(_tasks(plain)), incomplete)


def running_trials(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The trials that run in the sweep's folder that was named before, as its last sign of life says."""
    running = _state(ctx).get("running")
    return names((str(one["trial_id"]) for one in running if isinstance(one, dict) and "trial_id" in one),
                 incomplete) if isinstance(running, list) else []


def points(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The searched parameters of the sweep whose folder was named before, and after `arm=` or a choice its values."""
    plain = _sweep(ctx)
    space, own = plain.get("space"), plain.get("arms")
    space = space if isinstance(space, dict) else {}
    values = {"arm": list(own) if isinstance(own, list | dict) else [], **{
        name: one["choice"] for name, one in space.items() if isinstance(one, dict) and "choice" in one}}
    name, equals, _ = incomplete.partition("=")
    listed = values.get(name)
    if equals:
        return names((f"{name}={value}" for value in listed if isinstance(value, str | int | float)), incomplete) if (
            isinstance(listed, list)) else []
    return names((f"{one}=" for one in ("arm", *map(str, space))), incomplete)


def overrides(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """A key of a sweep file, section by section, and after `=` its value where there are only so many."""
    root = _keys(tuple(_tasks(_sweep(ctx))))
    *sections, last = incomplete.partition("=")[0].split(".")
    for name in sections:
        if (below := root.below.get(name) or root.below.get("*")) is None:
            return []
        root = below
    prefix = "".join(f"{name}." for name in sections)
    if "=" in incomplete:
        key = root.below.get(last)
        return names((f"{prefix}{last}={value}" for value in key.values), incomplete) if key else []
    items = []
    for name, key in root.below.items():
        if name.startswith(last) and name != "*":
            items += [CompletionItem(f"{prefix}{name}.", help=key.about)] if key.below else []
            items += [CompletionItem(f"{prefix}{name}=", help=key.about)] if not key.below or key.is_value else []
    return items


@dataclass
class Key:
    """A key of a sweep file.

    Attributes:
        about: What it is, in one line.
        values: All that it can be, if that is a short list.
        below: The keys of the section that it is; `*` stands for any name.
        is_value: Whether it can have a value of its own, also where it can be a section.
    """

    about: str | None = None
    values: tuple[str, ...] = ()
    below: dict[str, Key] = field(default_factory=dict)
    is_value: bool = True


def _keys(tasks: tuple[str, ...]) -> Key:
    """All keys of a sweep file of one of some tasks."""
    models = _Models(*(PACKAGE / "spec" / f"{name}.py" for name in ("sweep", "limits", "task", "record")))
    root = models.section("SweepSpec")
    params: dict[str, Key] = {}
    for task in tasks:
        file = _schema_file(task)
        own = _Models(PACKAGE / "spec" / "task.py", *_schemas_of(file), file)
        for name in own.classes:
            if own.derives(name, "TrainingParams"):
                params.update(own.section(name).below)
    root.below["task"].values = tuple(_registry())
    root.below["size"].values = tuple(dict.fromkeys(size for task in tasks for size in _keys_of(task, "sizes")))
    root.below["data"].below["name"].values = tuple(_known_data())
    training = root.below["training"].below
    own_params = {name: key for name, key in params.items() if name not in training}
    root.below["settings"].below, root.below["settings"].is_value = own_params, False
    root.below["space"].below, root.below["space"].is_value = {
        name: Key(key.about) for name, key in (training | params).items()}, False
    root.below["arms"].below = {arm: Key(None, (), training | params, False) for arm in _arms_of(tasks)}
    return root


def _tasks(plain: dict[str, object]) -> list[str]:
    """The task of a sweep, or every task where it names none that comes with the package."""
    task = plain.get("task")
    return [task] if isinstance(task, str) and task in _registry() else list(_registry())


def _sweep(ctx: click.Context) -> dict[str, object]:
    """What the sweep file, or the sweep's folder, that was named before holds; empty where it cannot be read."""
    import yaml

    given = _given(ctx)
    file, folder = given.get("file"), given.get("directory")
    path = Path(str(file)) if file else Path(str(folder)) / "sweep.json"
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE:
            return {}
        text = path.read_text(encoding="utf-8-sig")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # nested deep, a text takes the slow one for ever
        plain = yaml.load(text, loader) if file else json.loads(text)["spec"]
    except Exception:  # whatever is wrong with it, the command itself says
        return {}
    return plain if isinstance(plain, dict) else {}


def _state(ctx: click.Context) -> dict[str, object]:
    """The last sign of life in the sweep's folder that was named before; empty where it cannot be read."""
    path = Path(str(_given(ctx).get("directory"))) / "state.json"
    try:
        plain = json.loads(path.read_text()) if path.is_file() and path.stat().st_size <= MAX_FILE else {}
    except Exception:  # the command itself says
        return {}
    return plain if isinstance(plain, dict) else {}


def _given(ctx: click.Context) -> dict[str, object]:
    """What was typed so far: an option that lacks its value yet leaves the arguments before it unparsed."""
    arguments = (one.name for one in ctx.command.get_params(ctx) if isinstance(one, click.Argument))
    return {**ctx.params, **dict(zip(arguments, ctx.args, strict=False))}


# --- source files


class _Models:
    """The classes of some source files whose fields are keys of a sweep file."""

    def __init__(self, *paths: Path) -> None:
        self.classes: dict[str, ast.ClassDef] = {}
        self._aliases: dict[str, ast.expr] = {}
        for statement in (statement for path in paths for statement in _body(path)):
            if isinstance(statement, ast.ClassDef):
                self.classes[statement.name] = statement
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                self._aliases[statement.targets[0].id] = statement.value

    def derives(self, name: str, base: str) -> bool:
        """Whether a class has another among its bases, directly or not."""
        return any(parent == base or self.derives(parent, base) for parent in self._bases(name))

    def _bases(self, name: str) -> list[str]:
        return [base.id for base in self.classes[name].bases
                if isinstance(base, ast.Name) and base.id in self.classes] if name in self.classes else []

    def section(self, model: str) -> Key:
        """A class as a section with its fields, those of its bases first."""
        below: dict[str, Key] = {}
        for base in self._bases(model):
            below.update(self.section(base).below)
        for line in self.classes[model].body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id[0] != "_":
                words = line.value.keywords if isinstance(line.value, ast.Call) else []
                alias = [word.value for word in words if word.arg == "alias"]
                name = str(alias[0].value) if alias and isinstance(alias[0], ast.Constant) else line.target.id
                below[name] = self._key(line.annotation, line.value)
        return Key(below=below, is_value=False)

    def _key(self, annotation: ast.expr, value: ast.expr | None) -> Key:
        about, calls = None, [value] if isinstance(value, ast.Call) else []
        for call in calls:
            given = [word.value for word in call.keywords if word.arg == "description"] + call.args[1:2]
            texts = [text.value for text in given if isinstance(text, ast.Constant) and isinstance(text.value, str)]
            about = texts[0] if texts else None
        words, values = self._words(annotation), []
        for part in ast.walk(annotation):
            if isinstance(part, ast.Subscript) and isinstance(part.value, ast.Name) and part.value.id == "Literal":
                values += [str(one.value) for one in ast.walk(part.slice) if isinstance(one, ast.Constant)]
        if "bool" in words:
            values = ["true", "false"]
        is_list = isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name) and \
            annotation.value.id == "list"  # which is given whole
        section = next((self.section(word) for word in words if word in self.classes and not is_list), Key())
        simple = not section.below or bool({"int", "float", "str"} & set(words))
        return Key(about, tuple(values), section.below, simple)

    def _words(self, annotation: ast.expr) -> list[str]:
        """Every name in an annotation, aliases replaced by what they stand for."""
        found = []
        for part in ast.walk(annotation):
            if isinstance(part, ast.Name):
                found += self._words(self._aliases[part.id]) if part.id in self._aliases else [part.id]
        return found


@cache
def _body(path: Path) -> Sequence[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else ()


def _constants(path: Path, name: str) -> Iterator[tuple[str, ast.expr]]:
    """The keys of the dictionary that a module has under a name, or gives a call under it, with their values."""
    for statement in _body(path):
        for part in ast.walk(statement):
            if isinstance(part, (ast.Assign, ast.AnnAssign, ast.keyword)):
                target = part.arg if isinstance(part, ast.keyword) else \
                    part.targets[0] if isinstance(part, ast.Assign) else part.target
                if (target.id if isinstance(target, ast.Name) else target) == name and isinstance(part.value, ast.Dict):
                    for key, value in zip(part.value.keys, part.value.values, strict=True):
                        if isinstance(key, ast.Constant) and isinstance(key.value, str):
                            yield key.value, value


def _registry() -> dict[str, str]:
    """From task to where it lies, `raymae.tasks.x:Class`."""
    return {name: str(value.value) for name, value in _constants(PACKAGE / "tasks" / "__init__.py", "TASKS")
            if isinstance(value, ast.Constant)}


def _schema_file(task: str) -> Path:
    return PACKAGE.parent.joinpath(*_registry()[task].partition(":")[0].split("."), "schema.py")


def _schemas_of(path: Path) -> Iterator[Path]:
    """The other schemas that one imports, such as the parameters that several tasks share."""
    for statement in _body(path):
        if isinstance(statement, ast.ImportFrom) and statement.module and statement.module.endswith(".schema"):
            yield PACKAGE.parent.joinpath(*statement.module.split(".")).with_suffix(".py")


def _keys_of(task: str, name: str) -> list[str]:
    return [key for key, _ in _constants(_schema_file(task), name)]


def _arms_of(tasks: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(arm for task in tasks for arm in _keys_of(task, "ARMS")))


def _known_data() -> list[str]:
    return [name for name, _ in _constants(PACKAGE / "data" / "find" / "registry.py", "DATASETS")]


# --- shells


@add_completion_class
class _Bash(BashComplete):
    """Bash, which takes `a=b` for three words, and would put a space behind what is not all of a word yet."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", 'COMPREPLY+=("$value"); [[ $value == *[.=] ]] && compopt -o nospace')
    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Join what Bash has taken apart at `=`."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, incomplete]:
            if words and (word.startswith("=") or (words[-1].endswith("=") and word)):
                words[-1] += word
            else:
                words.append(word)
        # Bash replaces no more than what stands behind the last `=`
        *args, incomplete = words
        value = incomplete.partition("=")[2] if incomplete.startswith("--") else incomplete
        self._before = value[: value.rfind("=") + 1]
        return args, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Leave out what stands before the last `=` already."""
        return f"{item.type},{item.value.removeprefix(self._before)}"


@add_completion_class
class _Zsh(ZshComplete):
    """Zsh, which replaces all of `--option=value`, and would put a space behind what is not all of a word yet."""

    source_template = ZshComplete.source_template.replace(
        '    if [ -n "$completions_with', '    local -a glue\n    [[ "$key" == *[.=] ]] && glue=(-S "")\n'
        '    if [ -n "$completions_with', 1).replace("_descriptions -U", '_descriptions -U "${glue[@]}"').replace(
        "compadd -U", 'compadd "${glue[@]}" -U')
    _before = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Remember the option that stands before a value in the same word."""
        args, incomplete = super().get_completion_args()
        option, equals, _ = incomplete.partition("=")
        self._before = option + equals if option.startswith("-") and equals else ""
        return args, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Put the option back."""
        return super().format_completion(CompletionItem(self._before + item.value, item.type, item.help))
