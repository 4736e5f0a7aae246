"""What a network over columns keeps of the table it learned from: names, categories and scales, as plain values.

Shape suffixes: C columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymae.spec.read import Tree
from raymae.tasks.columns.cells import OwnScales, ScalerKind, new_scaler

FITTED: dict[ScalerKind, tuple[str, ...]] = {  # what scikit-learn's scalers learn
    "minmax": ("scale_", "min_"), "standard": ("scale_", "mean_"), "quantile": ("quantiles_", "references_"),
}


def plain(values: Any) -> Any:
    """Numbers as nested lists, None for NaN; None as it is."""
    if values is None:
        return None
    found = np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    listed = found.astype(object)
    listed[np.isnan(found)] = None
    return listed.tolist()


def array(values: Any) -> np.ndarray:
    """The inverse of `plain`: float64, NaN for None."""
    return np.array(values, dtype=np.float64)


def plain_names(names: Any) -> list[Any]:
    """Categories as a file can hold them."""
    return [value.item() if isinstance(value, np.generic) else value for value in names]


def scales_state(scales: OwnScales, kind: ScalerKind) -> Tree:
    """The scales of a table, and one of its scalers.

    Args:
        scales: They.
        kind: Of the scaler.
    """
    scaler = scales.scaler(kind)
    return {
        "columns": list(scales.columns),
        "categories": [plain_names(names) for names in scales.categories],
        "low": plain(scales.own_low_C), "range": plain(scales.own_range_C), "deviation": plain(scales.deviation_C),
        "scaler": {name: plain(getattr(scaler, name)) for name in FITTED[kind]},
    }


def scales_of(state: Tree, kind: ScalerKind, device: torch.device) -> OwnScales:
    """The inverse of `scales_state`."""
    scales = OwnScales(tuple(map(str, state["columns"])), state["categories"], device)
    scales.own_low_C, scales.own_range_C = array(state["low"]), array(state["range"])
    scales.deviation_C = torch.tensor(array(state["deviation"]), dtype=torch.float32, device=device)
    scaler = new_scaler(kind, len(state["scaler"]["references_"]) if kind == "quantile" else 1)
    for name in FITTED[kind]:
        setattr(scaler, name, array(state["scaler"][name]))
    scaler.n_features_in_ = len(scales.columns)
    scales.scalers[kind] = scaler
    return scales
