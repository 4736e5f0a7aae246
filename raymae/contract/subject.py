"""A task under check: what every check is made of, and what a check says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from raymae.errors import Problem, RayMAEError, SpecError
from raymae.spec.space import Scalar
from raymae.spec.sweep import DataSpec, SweepSpec
from raymae.spec.task import ArmKind, TaskSchema, applies
from raymae.spec.trial import Stage, TrialConfig, TrialData
from raymae.tasks import task_class
from raymae.tasks.base import Task
from raymae.tasks.mistakes import cause_of
from raymae.train.trial import Report, run_trial

# Everything that a trial carries from epoch to epoch.
RICH: dict[str, Any] = {"pretrain_epochs": 2, "epochs": 3, "freeze_epochs": 1, "ema_decay": 0.7, "patience": 9,
                           "label_fraction": 0.3}
GENERATED = TrialData(DataSpec(name="synthetic"), "synthetic")


class ViolationError(Exception):
    """A task breaks a rule; the message says how."""


class NoTrialError(Exception):
    """A trial that a check needs did not run to its end, which another check has said."""


def require(condition: object, message: str) -> None:
    """Hold a task to a rule.

    Raises:
        ViolationError: It does not keep it.
    """
    if not condition:
        raise ViolationError(message)


class Run(NamedTuple):
    """A finished trial, and the checkpoint written after each of its reports."""

    config: TrialConfig
    reports: list[Report]
    checkpoints: list[Path]


class Subject:
    """A task under check, on the CPU at the size `debug`.

    Args:
        name: A name in the registry, or `package.module:Class`.
        folder: For checkpoints.
        settings: Parameters laid over those of the size.
        data: What it reads; generated data by default.

    Raises:
        KeyError: There is no such task, see `raymae.tasks.task_class`.
    """

    def __init__(
        self, name: str, folder: Path, *, settings: Mapping[str, Scalar] | None = None, data: TrialData = GENERATED
    ) -> None:
        self.name, self.folder, self.settings, self.data = name, folder, dict(settings or {}), data
        self.cls: type[Task] = task_class(name)
        self.schema: TaskSchema = self.cls.schema
        self._runs: dict[str, Run] = {}
        self._failed: dict[str, Exception] = {}

    def take(self, spec: SweepSpec) -> None:
        """Read the data of a sweep file of the task, with its settings.

        Raises:
            SpecError: The file is of another task.
            DataError: Its data cannot be had.
        """
        if spec.task != self.name:
            raise SpecError([Problem("--sweep", "task", f"is {spec.task}, and {self.name} is checked")])
        self.data = TrialData(spec.data, self.cls.locate(spec.data).source)
        self.settings = dict(spec.settings)

    def main_arm(self) -> str:
        """The first arm that pretrains, or else that trains, or the first."""
        arms, kinds = self.schema.arms, get_args(ArmKind)
        return min(arms, key=lambda arm: kinds.index(arms[arm].kind))

    def config(self, arm: str, *, stage: Stage = "search", seed: int = 0, **changes: Any) -> TrialConfig:
        """A trial of an arm with some parameters changed; those that the arm does not have are left out."""
        schema = self.schema
        defaults = {name: field.get_default() for name, field in schema.params.model_fields.items()}
        merged = {**defaults, **schema.preset("debug", arm), **self.settings, **changes}
        params = {name: value for name, value in merged.items()
                  if applies(schema.params, name, arm, schema.arms[arm].kind)}
        return TrialConfig(self.name, arm, params, self.data, seed, stage)

    def make(self, arm: str | None = None, **changes: Any) -> Task:
        """The task under an arm, the main one by default."""
        torch.manual_seed(0)
        return self.cls(self.config(arm or self.main_arm(), **changes), torch.device("cpu"))

    def run(self, arm: str, **about: Any) -> Run:
        """Run a trial of an arm to its end, saving after every report; once, however often it is asked for.

        Raises:
            NoTrialError: One of this arm was tried before, and failed.
        """
        return self.run_config(self.config(arm, **{**RICH, **about}))

    def run_config(self, config: TrialConfig) -> Run:
        """Run a trial of a configuration, see `run`.

        Raises:
            NoTrialError: One of its arm was tried before, and failed.
        """
        arm = config.arm
        key = f"{config.stage} {json.dumps(config.to_json())}"
        if key not in self._runs:
            if arm in self._failed:
                raise NoTrialError from self._failed[arm]
            try:
                self._runs[key] = self._run(config)
            except Exception as error:  # whatever a task raises, for all checks that need the trial
                self._failed[arm] = error
                raise
        return self._runs[key]

    def _run(self, config: TrialConfig) -> Run:
        folder = self.folder / f"run-{len(self._runs)}"
        folder.mkdir(parents=True, exist_ok=True)
        reports, checkpoints = [], []
        for report in run_trial(config, device=torch.device("cpu")):
            checkpoints.append(folder / f"{report.step}.pt")
            report.save(checkpoints[-1])
            reports.append(report)
        return Run(config, reports, checkpoints)


@dataclass(frozen=True)
class Outcome:
    """What came of a check.

    Attributes:
        check: Its name.
        rule: The rule in a line, for people.
        problem: How it is broken; "" where it is kept.
        left_out: A trial that it needs does not run to its end.
    """

    check: str
    rule: str
    problem: str = ""
    left_out: bool = False

    @property
    def state(self) -> str:
        """`kept`, `BROKEN` or `left out`."""
        return "BROKEN" if self.problem else "left out" if self.left_out else "kept"


class Check:
    """A rule that a task keeps.

    Args:
        function: Takes the subject, and one of its arms where `kinds` says of which; raises `ViolationError`. Its
            docstring is the rule.
        kinds: It is tried with every arm of these kinds; empty: once for the task.
    """

    def __init__(self, function: Callable[..., None], *kinds: ArmKind) -> None:
        self.function, self.kinds = function, kinds
        self.name = function.__name__
        self.rule = (function.__doc__ or "").splitlines()[0].removesuffix(".")

    def arms(self, schema: TaskSchema) -> list[str | None]:
        """What it is tried with: arms of a task, or None for the task."""
        return [name for name, arm in schema.arms.items() if arm.kind in self.kinds] if self.kinds else [None]

    def hold(self, subject: Subject, arm: str | None) -> None:
        """Try it once.

        Raises:
            ViolationError: The rule is broken.
        """
        self.function(subject, *([] if arm is None else [arm]))

    def outcome(self, subject: Subject) -> Outcome:
        """Try it with everything that it concerns, up to what breaks it."""
        for arm in self.arms(subject.schema):
            where = "" if arm is None else f"arm {arm}: "
            try:
                self.hold(subject, arm)
            except NoTrialError:
                return Outcome(self.name, self.rule, left_out=True)
            except (ViolationError, RayMAEError) as error:
                return Outcome(self.name, self.rule, f"{where}{error}")
            except Exception as error:  # a mistake in the task, whatever its kind
                return Outcome(self.name, self.rule, where + cause_of(error, subject.cls.__module__))
        return Outcome(self.name, self.rule)


def outcomes(checks: tuple[Check, ...], subject: Subject) -> Iterator[Outcome]:
    """Try checks one after the other, on one thread: at this size more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for check in checks:
            yield check.outcome(subject)
    finally:
        torch.set_num_threads(threads)
