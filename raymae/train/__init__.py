"""The training loop. Imports torch, never Ray."""

from raymae.train.loop import Report, evaluate, run_trial

__all__ = ["Report", "evaluate", "run_trial"]
