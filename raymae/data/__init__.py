"""Data sets: where they are, how they are read, split and scaled. Imports neither torch nor ray.

`cache` finds and fetches what `registry` knows; both need only the standard library until used and are re-exported
here. The readers import numpy and more, so they are imported by module: `from raymae.data.series import read_series`.
"""

from raymae.data.find.locate import Located, fetch, listing, locate, verify
from raymae.data.find.registry import DATASETS, Dataset, File

__all__ = ["DATASETS", "Dataset", "File", "Located", "fetch", "listing", "locate", "verify"]
