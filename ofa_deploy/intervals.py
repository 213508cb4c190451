"""How sure an accuracy is that was counted."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot, sqrt

Z95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share that was counted on n images (E. B. Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22, 1927)."""
    if n <= 0:
        return 0.0, 1.0
    square = Z95**2 / n
    middle = (share + square / 2) / (1 + square)
    half = sqrt(square * (share * (1 - share) + square / 4)) / (1 + square)
    low, high = middle - half, middle + half
    return 0.0 if share == 0 else max(low, 0.0), 1.0 if share == 1 else min(high, 1.0)


def level_error(bias_std: float, corrected: bool) -> float:
    """How far all predictions are off together on new images, from what a predictor's card says of its bias.

    A predictor is fitted on half of the validation images, and its bias is found on a quarter. With n images in the
    half, the variance behind ``bias_std`` grows with 1/n + 2/n. That of the predictions' own level grows with 1/n, or
    with 2/n where another quarter corrected it.
    """
    return bias_std * sqrt(2 / 3 if corrected else 1 / 3)


def difference_error(shares: Sequence[float], counts: Sequence[int]) -> float:
    """Half of the 95 % interval of the difference of two counted shares, from the Wilson intervals of both (Newcombe,
    "Interval estimation for the difference between independent proportions", Statistics in Medicine 17, 1998, method
    10), its longer side. The same images in both make it too long."""
    (one, other), (first, second) = shares, (wilson(share, n) for share, n in zip(shares, counts, strict=True))
    sides = hypot(one - first[0], second[1] - other), hypot(first[1] - one, other - second[0])
    return max(sides)
