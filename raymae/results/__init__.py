"""Parquet in, answers out: a notebook reads a sweep without torch or ray."""

from raymae.results.compare import verdict, verdict_of
from raymae.results.query import query
from raymae.results.show import render, summary
from raymae.results.store import Store
from raymae.results.words import headline

__all__ = ["Store", "headline", "query", "render", "summary", "verdict", "verdict_of"]
