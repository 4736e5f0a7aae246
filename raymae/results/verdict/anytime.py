"""Intervals that hold at every look: for replicates that are added until the comparison is decided.

The Bayes factor of a t statistic with a normal prior on the standardised effect is a test martingale under the null
(Goenen et al. 2005, doi:10.1198/000313005X55233, for the formula; Wang and Ramdas 2024, doi:10.1214/24-EJS2275, and
Lai 1976, doi:10.1214/aos/1176343406, for what it is worth in sequence), so by Ville's inequality the values that it
does not reject form a confidence sequence: over all looks together it misses the truth in 5 % of sweeps at most.
"""

from __future__ import annotations

import math

PRIOR = 1.0  # variance of the effect in units of the differences' deviation


def half_width(n: int, variance: float, alpha: float) -> float:
    """Half the length of the confidence sequence for the mean of n normal values.

    Args:
        n: Values so far, at least 2.
        variance: Their unbiased variance.
        alpha: Chance of ever missing the mean, over all n.

    Returns:
        Infinity while there are too few.
    """
    spread = 1 + n * PRIOR
    bound = math.exp(2 / n * (0.5 * math.log(spread) - math.log(alpha)))  # of (1 + a) / (1 + a / spread)
    if bound >= spread:
        return math.inf
    ratio = (bound - 1) / (1 - bound / spread)  # of t squared to n - 1
    return math.sqrt(ratio * (n - 1) * variance / n)


def p_value(n: int, mean: float, variance: float) -> float:
    """The anytime-valid p-value of a mean of 0: the inverse of the Bayes factor, at most 1."""
    if variance == 0:
        return 1.0 if mean == 0 else 0.0
    spread, ratio = 1 + n * PRIOR, n * mean**2 / variance / (n - 1)
    log_factor = -0.5 * math.log(spread) + n / 2 * (math.log1p(ratio) - math.log1p(ratio / spread))
    return min(1.0, math.exp(-log_factor))
