"""Data sets that come with an installed library: written as files once, so that every reader and worker finds them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from raymae.errors import DataError

TARGETS = {"load_diabetes": "progression", "load_breast_cancer": "diagnosis", "load_wine": "cultivar"}
"""scikit-learn's loaders that are known, and what the column is called that each of them calls `target`."""


def write_bundled(loader: str, to: Path) -> None:
    """Write one of scikit-learn's tables as CSV: numbers in their own units, categories by their names.

    The file gets its name only when whole, so several processes may do it at once.

    Args:
        loader: A function of `sklearn.datasets`.
        to: The file; its folder is made.

    Raises:
        DataError: It cannot be written.
    """
    from sklearn import datasets

    found: Any = getattr(datasets, loader)(as_frame=True, **({"scaled": False} if loader == "load_diabetes" else {}))
    frame = found.frame.copy()
    if "target_names" in found:
        frame["target"] = [str(found.target_names[code]) for code in frame["target"]]
    frame = frame.rename(columns={"target": TARGETS[loader]})
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=to.parent) as folder:
            part = Path(folder) / to.name
            frame.to_csv(part, index=False)
            os.replace(part, to)
    except OSError as error:
        raise DataError(f"{to}: cannot be written: {error.strerror or error}") from None
