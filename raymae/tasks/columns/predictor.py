"""Using a kept network over columns on tables that no sweep has seen: reading them as the network knows tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from raymae.data.filled import GivenTable, given_table
from raymae.data.inputs import files_of, is_table
from raymae.tasks.columns.cells import OwnScales
from raymae.tasks.predictor import Item, Predictor


class TablePredictor(Predictor):
    """A table in.

    Attributes:
        scales: Of the columns that the network knows.
    """

    scales: OwnScales

    def items(self, source: Path) -> Iterator[Item]:
        """A CSV or Parquet file, or those of a folder."""
        for name, path in files_of(source, is_table, "CSV or Parquet"):
            yield Item(name, partial(self.prepare, path))

    def prepare(self, inputs: Any, **options: bool) -> GivenTable:
        """Read a table with the columns and types of training.

        Args:
            inputs: A path, a pandas frame, or what this has made of them.
            **options: None are known.
        """
        if isinstance(inputs, GivenTable):
            return inputs
        return given_table(inputs, self.scales.columns, self.scales.categories, self.config.data.where.reading())
