"""Image classification."""

from raymae.tasks.classification.task import Classification

__all__ = ["Classification"]
