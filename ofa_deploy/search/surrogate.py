"""A sum over slots that comes close to an accuracy model near the subnets that matter: ridge regression."""

from __future__ import annotations

import numpy as np

from ofa_deploy.search.separable import Separable, Slots
from ofa_deploy.space import Population

RIDGE = 0.01  # prior observations for each block, against its having an effect
ELITE = 2000  # subnets that are fitted at most: the fittest


def fit_surrogate(slots: Slots, population: Population, accuracy: np.ndarray) -> Separable:
    """The sum over slots, with a constant for each resolution and width, that fits accuracies best.

    Its ``error`` is the root mean square of the residuals, its ``spread`` the range of the accuracies; without a
    sample it is zero throughout.
    """
    count, places = len(population), len(slots.all) * (slots.C + 1)
    known = np.zeros((count, places + slots.sizes), dtype=np.float32)
    rows = np.arange(count)
    known[rows[:, None], np.arange(len(slots.all)) * (slots.C + 1) + slots.picks(population)] = 1
    known[rows, places + slots.size(population)] = 1
    centre = float(accuracy.mean()) if count else 0.0
    gram = (known.T @ known).astype(float)
    gram[np.diag_indices(len(gram))] += RIDGE
    effects = np.linalg.solve(gram, known.T.astype(float) @ (accuracy - centre))
    value = effects[:places].reshape(len(slots.all), slots.C + 1)
    constant = centre + effects[places:, None] + value[:, -1].sum()
    shared = np.broadcast_to((value - value[:, -1:])[None, ..., None], (slots.sizes, *value.shape, 1))
    residual = accuracy - centre - known @ effects
    error = np.sqrt(np.mean(residual**2, keepdims=True)) if count else np.zeros(1)
    return Separable(slots, constant, shared, error, np.ptp(accuracy, keepdims=True) if count else np.zeros(1))
