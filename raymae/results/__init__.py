"""Parquet in, answers out: a notebook reads a sweep without torch or ray."""

from raymae.results.store.store import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.verdict import verdict, verdict_of
from raymae.results.views.query import query
from raymae.results.views.show import render, summary

__all__ = ["Store", "headline", "query", "render", "summary", "verdict", "verdict_of"]
