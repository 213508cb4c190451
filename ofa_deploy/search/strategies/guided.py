"""Train a cheap predictor on what was evaluated, predict many, evaluate the most promising, repeat (after Wen et al.,
Neural Predictor for Neural Architecture Search, ECCV 2020, and Liu et al., PNAS, ECCV 2018)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.search.setting import Setting
from ofa_deploy.space import Population

POOL = 2048
BATCH = 64
SURPRISE = 8  # of a batch, random ones
PARENTS = 32
RATES = (0.03, 0.1)


def guided(setting: Setting) -> Iterator[Population]:
    """Predictor-guided search; the predictor is a sum over blocks."""
    codec, rng = setting.problem.codec, setting.rng
    yield setting.random(BATCH)
    while True:
        best = setting.elites()[0][: setting.population or PARENTS]
        near = [codec.mutate(best[rng.integers(0, len(best), POOL // 4)], rate, rng) for rate in RATES if len(best)]
        pool = setting.memory.fresh(setting.repaired(np.concatenate([*near, codec.sample(POOL // 2, rng)])))
        promise = setting.surrogate()(pool)[:, 0]
        top = pool[np.argsort(-promise, kind="stable")[: BATCH - SURPRISE]]
        yield np.concatenate([top, pool[rng.permutation(len(pool))[:SURPRISE]]])
