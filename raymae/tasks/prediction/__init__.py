"""Prediction of one column of a table from the others."""

from raymae.tasks.prediction.task import Prediction

__all__ = ["Prediction"]
