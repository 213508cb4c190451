"""A controller that learns by REINFORCE which choices pay (Zoph & Le, ICLR 2017; Williams, Machine Learning 8, 1992).

It draws the genes one after another, each from a softmax whose logits depend on the gene before: an autoregressive
policy without hidden state, small enough for numpy. The reward is the accuracy against a moving baseline.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.search.setting import Setting
from ofa_deploy.space import GENE, Population

BATCH = 64
RATE = 0.3
DECAY = 0.9  # of the baseline
ENTROPY = 0.01  # keeps the policy from making up its mind too early


def reinforce(setting: Setting) -> Iterator[Population]:
    """Policy gradient over the genes."""
    choices, rng = setting.problem.codec.choices, setting.rng
    most = int(choices.max())
    logits = np.zeros((len(choices), most, most))
    for gene, count in enumerate(choices):
        logits[gene, :, count:] = -np.inf
    baseline: float | None = None
    while True:
        drawn = _draw(logits, setting.population or BATCH, rng)
        rows = setting.repaired(drawn)
        yield rows
        reward = setting.memory.of(rows)[:, 1]
        known = np.isfinite(reward)
        if not known.any():
            continue
        mean = float(reward[known].mean())
        baseline = mean if baseline is None else DECAY * baseline + (1 - DECAY) * mean
        advantage = np.where(known, reward - baseline, 0.0) / (reward[known].std() + 1e-9)
        _learn(logits, rows, advantage)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _draw(logits: np.ndarray, count: int, rng: np.random.Generator) -> Population:
    rows, before = np.zeros((count, len(logits)), dtype=GENE), np.zeros(count, dtype=int)
    for gene, table in enumerate(logits):
        sums = np.cumsum(_probabilities(table)[before], axis=1)
        before = (rng.random(count)[:, None] * sums[:, -1:] > sums).sum(axis=1)
        rows[:, gene] = before
    return rows


def _learn(logits: np.ndarray, rows: Population, advantage: np.ndarray) -> None:
    """One step along the gradient of the expected reward and of the policy's entropy, in place."""
    before = np.zeros(len(rows), dtype=int)
    for gene, table in enumerate(logits):
        p = _probabilities(table)[before]
        chosen = np.zeros_like(p)
        chosen[np.arange(len(rows)), rows[:, gene]] = 1
        surprise = -np.log(np.maximum(p, 1e-12))
        steps = advantage[:, None] * (chosen - p) + ENTROPY * p * (surprise - (p * surprise).sum(axis=1, keepdims=True))
        np.add.at(table, before, RATE * np.where(np.isfinite(table[before]), steps, 0.0) / len(rows) * 10)
        before = rows[:, gene].astype(int)
