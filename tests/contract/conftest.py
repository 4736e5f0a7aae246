"""Registered tasks under check, each made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from subjects import REAL_NAMES, SOURCES, MakeSubject

from raymae.contract import Subject
from raymae.contract.subject import GENERATED, Run
from raymae.spec.trial import TrialConfig, TrialData
from raymae.tasks.base import Task


@pytest.fixture(scope="session")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeSubject:
    """A task under check, the same one whenever it is asked for: it remembers the trials that it has run."""
    made: dict[tuple[str, str], Subject] = {}

    def make(name: str, source: str = "synthetic") -> Subject:
        if (name, source) not in made:
            data = GENERATED
            if source == "real":
                root = str(request.getfixturevalue("real_data"))
                data = TrialData.from_json({"name": REAL_NAMES[name], "source": "real", "root": root})
            made[name, source] = Subject(name, tmp_path_factory.mktemp("subject"), data=data)
        return made[name, source]

    return make


@pytest.fixture(params=SOURCES, ids="-".join)
def make_task(request: pytest.FixtureRequest, subject: MakeSubject) -> Callable[..., Task]:
    """A task of debug size under its first arm of a kind."""
    checked = subject(*request.param)

    def make(kind: str = "pretrained", **changes: Any) -> Task:
        return checked.make(next(arm for arm, about in checked.schema.arms.items() if about.kind == kind), **changes)

    return make


@pytest.fixture
def run(subject: MakeSubject) -> Callable[[TrialConfig], Run]:
    """Run a trial to its end, saving after every report."""
    return lambda config: subject(config.task).run_config(config)
