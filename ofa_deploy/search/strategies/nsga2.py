"""NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 6, 2002): the whole front of accuracy against
latency at once, by non-dominated sorting and crowding distance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.search.setting import Setting
from ofa_deploy.space import Population

POPULATION = 96
RATE = 0.04


def nsga2(setting: Setting) -> Iterator[Population]:
    """Every feasible subnet that no other beats in both objectives; without a latency model MACs are the second."""
    codec, rng = setting.problem.codec, setting.rng
    size = setting.population or POPULATION
    alive = np.concatenate([setting.anchors, setting.random(size)])
    yield alive
    while True:
        rank, crowding = _ranks(_objectives(setting, alive))
        parents = _tournament(rank, crowding, 2 * size, rng)
        crossed = codec.crossover(alive[parents[:size]], alive[parents[size:]], rng)
        children = setting.repaired(codec.mutate(crossed, RATE, rng))
        yield children
        pool = np.unique(np.concatenate([alive, children]), axis=0)
        rank, crowding = _ranks(_objectives(setting, pool))
        alive = pool[np.lexsort((-crowding, rank))[:size]]


def _objectives(setting: Setting, population: Population) -> np.ndarray:
    """What is minimised, ``[N, 2]``; subnets without an accuracy are worst in both."""
    values = setting.memory.of(population)
    second = values[:, 2] if setting.problem.latency is not None else setting.problem.codec.macs(population)
    return np.nan_to_num(np.stack([-values[:, 0], second], axis=1), nan=np.inf)


def _ranks(objectives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every point the number of its front, 0 the best, and its crowding distance within it."""
    no_worse = np.all(objectives[:, None] <= objectives[None], axis=2)
    dominates: np.ndarray = no_worse & np.any(objectives[:, None] < objectives[None], axis=2)
    rank, crowding = np.full(len(objectives), -1), np.zeros(len(objectives))
    front = 0
    while (rank < 0).any():
        left = rank < 0
        best = np.flatnonzero(left & ~dominates[left].any(axis=0))
        rank[best], crowding[best] = front, _crowding(objectives[best])
        front += 1
    return rank, crowding


def _crowding(objectives: np.ndarray) -> np.ndarray:
    distance = np.zeros(len(objectives))
    for values in objectives.T:
        order = np.argsort(values, kind="stable")
        known = np.where(np.isfinite(values[order]), values[order], 0.0)
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (known[2:] - known[:-2]) / max(np.ptp(known), 1e-12)
    return distance


def _tournament(rank: np.ndarray, crowding: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    one, other = rng.integers(0, len(rank), (2, count))
    worse = (rank[other] < rank[one]) | ((rank[other] == rank[one]) & (crowding[other] > crowding[one]))
    return np.where(worse, other, one)
