"""Regularized evolution (Real et al., Regularized Evolution for Image Classifier Architecture Search, AAAI 2019): a
tournament chooses the parent, its mutated child joins, and the oldest dies, however good it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.search.setting import Setting
from ofa_deploy.space import Population

POPULATION = 64
TOURNAMENT = 16
BATCH = 8  # children at a time
RATE = 0.05


def regularized(setting: Setting) -> Iterator[Population]:
    """Tournament selection and ageing."""
    size = setting.population or POPULATION
    alive = setting.random(size)
    yield alive
    while True:
        fitness = setting.memory.of(alive)[:, 0]
        drawn = setting.rng.integers(0, len(alive), (BATCH, TOURNAMENT))
        parents = alive[drawn[np.arange(BATCH), fitness[drawn].argmax(axis=1)]]
        children = setting.repaired(setting.problem.codec.mutate(parents, RATE, setting.rng))
        yield children
        alive = np.concatenate([alive, children])[-size:]
