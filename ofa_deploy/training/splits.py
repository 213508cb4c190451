"""Holding images out: which ones depends on the data alone, not on a recipe's seed or a file system's order."""

from __future__ import annotations

import numpy as np

_SEED = 20


def shuffled(count: int) -> np.ndarray:
    """A fixed order of ``count`` images."""
    return np.random.default_rng(_SEED).permutation(count)


def stratified(labels: np.ndarray) -> np.ndarray:
    """A fixed order of images whose every beginning has the classes in their shares.

    Within its class of n images the k-th of a shuffle stands at (k + ½) / n of the way.
    """
    order = shuffled(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    within = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    return by_class[np.argsort((within + 0.5) / np.repeat(counts, counts), kind="stable")]


def portion(part: float, total: int) -> int:
    """How many images a number, or a share below 1, of ``total`` is."""
    return round(part * total) if part < 1 else int(part)
