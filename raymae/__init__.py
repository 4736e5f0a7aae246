"""RayMAE: does masked-autoencoder pretraining help here?

The public names are resolved on first use: `import raymae` imports neither torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "MAEImputer": "raymae.imputer",
    "RayMAEError": "raymae.errors",
    "Report": "raymae.train.trial",
    "Store": "raymae.results.store.store",
    "SweepSpec": "raymae.spec.sweep",
    "TrialConfig": "raymae.spec.trial",
    "load_model": "raymae.inference.load",
    "load_sweep": "raymae.spec.load",
    "make_plan": "raymae.search.plan",
    "query": "raymae.results.views.query",
    "run_sweep": "raymae.search.run",
    "run_trial": "raymae.train.trial",
    "schema_of": "raymae.tasks",
}

__all__ = [
    "MAEImputer", "RayMAEError", "Report", "Store", "SweepSpec", "TrialConfig", "load_model", "load_sweep", "make_plan",
    "query", "run_sweep", "run_trial", "schema_of",
]

if TYPE_CHECKING:
    from raymae.errors import RayMAEError
    from raymae.imputer import MAEImputer
    from raymae.inference.load import load_model
    from raymae.results.store.store import Store
    from raymae.results.views.query import query
    from raymae.search.plan import make_plan
    from raymae.search.run import run_sweep
    from raymae.spec.load import load_sweep
    from raymae.spec.sweep import SweepSpec
    from raymae.spec.trial import TrialConfig
    from raymae.tasks import schema_of
    from raymae.train.trial import Report, run_trial


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'raymae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
