"""How sure a counted share is."""

from __future__ import annotations

from math import sqrt

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
