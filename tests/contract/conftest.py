"""Registered tasks under check, each made once."""

from __future__ import annotations

import pytest
from subjects import REAL_NAMES, MakeSubject

from raymae.contract import Subject
from raymae.contract.subject import GENERATED
from raymae.spec.trial import TrialData


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
