"""Forecasting of time series."""

from raymae.tasks.forecasting.task import Forecasting

__all__ = ["Forecasting"]
