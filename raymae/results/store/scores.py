"""The third dataset, `scores`: what each replicate's test score is made of, example by example.

One file per replicate, written whole by its worker before the test is reported, so that whoever sees the score can see
its parts. A plain reader sees one table, `scores/*.parquet`. A replicate's objective is the mean over parts of the
mean of `score` weighted by `weight` (for an rmse the square root of that).
"""

from __future__ import annotations

import io
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raymae.errors import ResultsError
from raymae.results.store.folder import Folder
from raymae.results.store.layout import SCORES, scores
from raymae.spec.trial import TrialConfig, UnitTable

SCORE_COLUMNS = {
    "trial_id": "string", "config_id": "string", "arm": "string", "seed": "int64", "unit": "string",
    "group": "string", "part": "string", "score": "double", "weight": "double",
}


def score_schema() -> Any:
    """The `pyarrow.Schema` of the dataset; texts that repeat are kept once."""
    import pyarrow as pa

    text, kinds = pa.dictionary(pa.int32(), pa.string()), {"int64": pa.int64(), "double": pa.float64()}
    return pa.schema([pa.field(name, kinds.get(kind, text)) for name, kind in SCORE_COLUMNS.items()])


def keep_scores(folder: Folder, trial_id: str, config: TrialConfig, units: UnitTable) -> None:
    """Write the scores of a replicate.

    Args:
        folder: The sweep's folder.
        trial_id: The replicate.
        config: Its configuration.
        units: Its scores; what has no weight is left out.

    Raises:
        OSError: The storage failed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    unit, part = units.weight.nonzero()
    count = len(unit)
    groups = [None] * count if units.groups is None else [units.groups[index] for index in unit]
    columns: dict[str, Any] = {
        "trial_id": [trial_id] * count, "config_id": [config.config_id] * count, "arm": [config.arm] * count,
        "seed": [config.seed] * count, "unit": [units.names[index] for index in unit], "group": groups,
        "part": [units.parts[index] for index in part], "score": units.score[unit, part],
        "weight": units.weight[unit, part],
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=score_schema()), sink, compression="zstd")
    folder.make(SCORES)
    folder.write(scores(trial_id), sink.getvalue())


def read_scores(folder: Folder, trials: Collection[str] | None = None) -> Any:
    """The dataset as a `pyarrow.Table`; empty where nothing was kept, as before version 0.2.

    Args:
        folder: The sweep's folder.
        trials: Only those of these replicates; all by default.

    Raises:
        ResultsError: A file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def read(name: str) -> Any:
        try:
            return pq.read_table(io.BytesIO(folder.read(f"{SCORES}/{name}"))).cast(score_schema())
        except (OSError, pa.ArrowException, ValueError) as error:
            raise ResultsError(f"{folder.uri(f'{SCORES}/{name}')}: cannot be read: {error}. Delete it: the verdict "
                               "then says that this replicate's examples are missing") from None

    try:
        present = folder.names(SCORES)
    except OSError as error:
        raise ResultsError(f"{folder.uri(SCORES)}: cannot list: {error}") from None
    names = [name for name in present if name.endswith(".parquet") and name[0] != "."
             and (trials is None or name.removesuffix(".parquet") in trials)]
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(read, names))
    return pa.concat_tables(tables).unify_dictionaries() if tables else score_schema().empty_table()
