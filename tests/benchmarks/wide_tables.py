"""Does `MAEImputer` cost more a column where there are many? Seconds per epoch at 20 and 200 columns, and before.

Before: an evaluation hid every column alone, a pass over the rows for each; now columns of a wide table are hidden
together (`raymae.tasks.imputation.adjust.hidden_together`). Seconds are this process's own on one thread, which other
work on the machine hardly changes; an epoch is one of pretraining, one of fine-tuning and the evaluation after it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from unittest.mock import patch

import numpy as np
import torch

from raymae import MAEImputer
from raymae.imputer import NoBetterThanMeanWarning

WIDTHS = (20, 200)


def table(rows: int, columns: int) -> np.ndarray:
    """Columns that six hidden ones tell, and a fifth of the cells missing."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, 6)) @ rng.normal(size=(6, columns)) + 0.5 * rng.normal(size=(rows, columns))
    return np.where(rng.random(values.shape) < 0.2, np.nan, values)


def seconds(rows: int, columns: int) -> float:
    """What fitting for one epoch of each phase takes."""
    values, started = table(rows, columns), time.process_time()
    MAEImputer({"pretrain_epochs": 1, "epochs": 1}).fit(values)
    return time.process_time() - started


def one_by_one(columns: int) -> list[np.ndarray]:
    """Every column hidden alone, as it was."""
    return list(np.arange(columns)[:, None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200)
    rows = parser.parse_args().rows
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", NoBetterThanMeanWarning)
    seconds(rows, WIDTHS[0])  # what is imported and compiled once
    now = {columns: seconds(rows, columns) for columns in WIDTHS}
    with patch("raymae.tasks.imputation.adjust.hidden_together", one_by_one):
        before = {columns: seconds(rows, columns) for columns in WIDTHS}
    few, many = WIDTHS
    print(f"{rows} rows | {few} columns | {many} columns | ratio\n"
          f"before | {before[few]:.2f} s | {before[many]:.2f} s | {before[many] / before[few]:.1f}\n"
          f"now | {now[few]:.2f} s | {now[many]:.2f} s | {now[many] / now[few]:.1f}")
    print(json.dumps({"rows": rows, "columns": WIDTHS, "now_s": now, "before_s": before,
                      "ratio": now[many] / now[few], "speedup": before[many] / now[many]}))


if __name__ == "__main__":
    main()
