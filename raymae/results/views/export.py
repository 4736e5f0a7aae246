"""A sweep's trials for tools that read neither Parquet nor SQL."""

from __future__ import annotations

from pathlib import Path

from raymae.errors import ResultsError
from raymae.results.store.store import Store


def write_csv(store: Store, path: Path) -> int:
    """Write the trials as CSV: UTF-8, a header, one line per ended trial, nothing where a value is missing.

    Args:
        store: The sweep.
        path: A file that is not there yet.

    Returns:
        How many trials.

    Raises:
        ResultsError: The file exists, or cannot be written.
    """
    trials = store.trials()
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            trials.to_csv(file, index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S.%f%z")
    except FileExistsError:
        raise ResultsError(f"{path}: exists already; choose another name or delete it") from None
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written: {error.strerror or error}") from None
    return len(trials)
