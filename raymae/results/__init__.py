"""Parquet in, answers out: a notebook reads a sweep without torch or ray."""

from raymae.results.store.store import Store
from raymae.results.verdict.headline import headline
from raymae.results.verdict.judge import verdict_now, verdict_of
from raymae.results.verdict.verdict import ArmResult, Pair, Verdict
from raymae.results.views.query import query
from raymae.results.views.show import render, summary

__all__ = [
    "ArmResult", "Pair", "Store", "Verdict", "headline", "query", "render", "summary", "verdict_now", "verdict_of",
]
