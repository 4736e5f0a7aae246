"""A generated stand-in for housing.csv, for machines without the data. Made from formulas, not from the real file.

Districts lie around two cities between a coast and a hinterland; place says what kind of district it is and how rich
its people are, households say how many rooms and people there are, and income and place say what a house costs.
"""

from __future__ import annotations

import numpy as np

from raymae.data.tables import Table
from raymae.errors import DataError

COLUMNS = ("longitude", "latitude", "housing_median_age", "total_rooms", "total_bedrooms", "population", "households",
           "median_income", "median_house_value", "ocean_proximity")
CATEGORIES = ("<1H OCEAN", "INLAND", "ISLAND", "NEAR BAY", "NEAR OCEAN")


def synthetic_table(*, num_rows: int = 2000, seed: int = 0) -> Table:
    """Districts in the form of housing.csv, the same on every machine for the same arguments.

    Args:
        num_rows: Districts, at least 2.
        seed: Draws them.

    Raises:
        DataError: Fewer than two rows.
    """
    if num_rows < 2:
        raise DataError(f"a synthetic table needs at least 2 rows, got {num_rows}")
    rng = np.random.default_rng(seed)
    south_R = rng.random(num_rows) < 0.6
    along_R = np.where(south_R, rng.normal(2.0, 0.9, num_rows), rng.normal(6.0, 1.0, num_rows))
    inland_R = rng.gamma(1.4, 0.5, num_rows)  # degrees from the coast
    longitude_R = -117.0 - 0.75 * along_R + 0.7 * inland_R
    latitude_R = 32.0 + 0.9 * along_R + 0.3 * inland_R
    old_R = np.clip(45 - 14 * inland_R + rng.normal(0, 9, num_rows), 1, 52)
    income_R = np.clip(np.exp(rng.normal(1.35 - 0.12 * inland_R, 0.4, num_rows)), 0.5, 15)
    households_R = np.maximum(np.exp(rng.normal(6.1 - 0.008 * old_R, 0.65, num_rows)), 2)
    population_R = np.maximum(households_R * np.exp(rng.normal(1.05, 0.22, num_rows)), 3)
    rooms_R = np.maximum(households_R * np.exp(rng.normal(1.45 + 0.06 * income_R, 0.15, num_rows)), 2)
    bedrooms_R = np.maximum(households_R * np.exp(rng.normal(0.06, 0.07, num_rows)), 1)
    value_R = 48_000 * income_R * np.exp(-0.35 * inland_R) + 60_000 + rng.normal(0, 30_000, num_rows)
    value_R = np.clip(value_R, 15_000, 500_001)
    kind_R = np.select([inland_R > 0.9, (along_R > 5.2) & (along_R < 6.8), inland_R < 0.25], [1, 3, 4], 0)
    kind_R[rng.random(num_rows) < 0.002] = 2

    # Few decimals, like the original; they also hide the last bits in which processors differ.
    values_RC = np.column_stack([
        np.round(longitude_R, 2), np.round(latitude_R, 2), np.round(old_R), np.round(rooms_R), np.round(bedrooms_R),
        np.round(population_R), np.round(households_R), np.round(income_R, 3), np.round(value_R, -2), kind_R,
    ])
    values_RC[rng.random(num_rows) < 0.01, COLUMNS.index("total_bedrooms")] = np.nan
    return Table(values_RC, COLUMNS, ((),) * 9 + (CATEGORIES,), "synthetic")


def table_content() -> bytes:
    """The default table, as bytes to be fingerprinted."""
    return synthetic_table().values_RC.astype("<f8").tobytes()
