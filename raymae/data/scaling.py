"""Scale channels by the range or the spread of their training rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from raymae.errors import unknown

ScalerKind = Literal["minmax", "standard"]


@dataclass(frozen=True, eq=False)
class Scaler:
    """An affine map per channel, (x - offset) / scale. C channels.

    Attributes:
        kind: `minmax` maps the training minimum and maximum to -1 and 1, `standard` the training mean and standard
            deviation (population) to 0 and 1.
        offset_C: float64 (C,), in the series' units.
        scale_C: float64 (C,), in the series' units, above 0; 1 for a channel that is constant in training.
    """

    kind: ScalerKind
    offset_C: np.ndarray
    scale_C: np.ndarray

    @classmethod
    def fit(cls, values_TC: np.ndarray, kind: ScalerKind) -> Scaler:
        """Learn the map. Pass the training rows only, or validation and test leak.

        Args:
            values_TC: (T, C), finite, or NaN where a cell is missing.
            kind: Which map.

        Raises:
            ValueError: Unknown kind, no cells, not two axes, or not finite.
        """
        if kind not in get_args(ScalerKind):
            raise ValueError(unknown("scaler", kind, get_args(ScalerKind)))
        values_TC = np.asarray(values_TC, dtype=np.float64)
        missing_TC = np.isnan(values_TC)
        if missing_TC.any() and values_TC.ndim == 2:
            apart = [cls.fit(values_T[~missing_T, None], kind)
                     for values_T, missing_T in zip(values_TC.T, missing_TC.T, strict=True)]
            return cls(kind, *(np.concatenate([getattr(of, part) for of in apart]) for part in ("offset_C", "scale_C")))
        if values_TC.ndim != 2 or not len(values_TC) or not np.isfinite(values_TC).all():
            raise ValueError(f"a scaler is fitted on finite values of shape (T, C), T >= 1; got {values_TC.shape}")
        low_C, high_C = values_TC.min(axis=0), values_TC.max(axis=0)
        if kind == "minmax":
            offset_C, scale_C = low_C / 2 + high_C / 2, high_C / 2 - low_C / 2
        else:
            offset_C, scale_C = values_TC.mean(axis=0), values_TC.std(axis=0)
        # The std of a repeated .1 is 1e-17, not 0, hence low == high.
        constant_C = (low_C == high_C) | (scale_C < np.finfo(np.float64).tiny)
        return cls(kind, offset_C, np.where(constant_C, 1.0, scale_C))

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Scale values of shape (..., C), in the series' units; returns float64.

        Raises:
            ValueError: The last axis is not C long.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.scale_C):
            raise ValueError(f"the last axis must be the {len(self.scale_C)} channels, got shape {values.shape}")
        return (values - self.offset_C) / self.scale_C
