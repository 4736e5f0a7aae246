"""Imputation of missing table cells."""

from raymae.tasks.imputation.task import Imputation

__all__ = ["Imputation"]
