"""The training loop. Imports torch, never Ray."""

from raymae.train.epoch import evaluate
from raymae.train.trial import Report, run_trial

__all__ = ["Report", "evaluate", "run_trial"]
