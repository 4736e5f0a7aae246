"""Every registered task keeps every rule of the contract, under every arm that a rule concerns."""

from __future__ import annotations

import pytest
from subjects import SOURCES, MakeSubject

from raymae.contract import CHECKS, Check, networks
from raymae.contract.splits import examples_are_in_one_split, labels_are_a_nested_share
from raymae.tasks import schema_of

ON_REAL_DATA = {*(check.name for check in networks.CHECKS), labels_are_a_nested_share.__name__}
ELSEWHERE = {examples_are_in_one_split.__name__}  # under the settings that promise it: test_task_groups
CASES = [
    pytest.param(name, source, check, arm, id="-".join(filter(None, (name, source, check.name, arm))))
    for name, source in SOURCES for check in CHECKS if check.name not in ELSEWHERE
    and (source == "synthetic" or check.name in ON_REAL_DATA) for arm in check.arms(schema_of(name))
]


@pytest.mark.parametrize(("name", "source", "check", "arm"), CASES)
def test_a_registered_task_keeps_the_contract(
    name: str, source: str, check: Check, arm: str | None, subject: MakeSubject
) -> None:
    check.hold(subject(name, source), arm)
