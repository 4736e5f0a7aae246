"""The contract of tasks: rules that every task keeps, tried by `raymae task check` and by this project's own tests."""

from raymae.contract import attributes, networks, phases, predictions, splits, trials
from raymae.contract.subject import Check, Outcome, Subject, outcomes

CHECKS: tuple[Check, ...] = (*attributes.CHECKS, *splits.CHECKS, *networks.CHECKS, *trials.CHECKS,
                             *phases.CHECKS, *predictions.CHECKS)

__all__ = ["CHECKS", "Check", "Outcome", "Subject", "outcomes"]
