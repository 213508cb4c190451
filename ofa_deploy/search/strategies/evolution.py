"""The default: elitist evolution whose members climb (a memetic algorithm; Moscato, 1989; iterated local search,
Lourenço, Martin & Stützle, 2003).

It starts from the solutions of a sum over blocks that was fitted to random subnets. Each member then climbs by single
changes and by the pairs and triples of them that fit the budget together, until none helps. What is best of the peaks
are parents: children are made by crossover and mutation, brought back to feasibility, and climb in turn.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.search.moves import Around, Moves
from ofa_deploy.search.setting import Setting
from ofa_deploy.search.strategies.exact import proved
from ofa_deploy.space import GENE, Population

WARM = 256  # solutions of the surrogate that are evaluated
MEMBERS = 2  # that climb at the same time
EACH = 4000  # evaluations for which another one is worth it
PARENTS = 12
PATIENCE = 40  # peaks in a row that are no higher than the highest
DISTANCE = 4  # genes in which the first members differ at least
CROSSED = 0.5  # share of children with two parents
RATES = (0.02, 0.12)  # of mutation, with two parents and with one
UNKNOWN = -1e9  # gain of a change to a subnet without an accuracy


def evolution(setting: Setting) -> Iterator[Population]:
    """Warm start, climbing, restarts."""
    yield setting.anchors
    yield from proved(setting)
    if setting.proof is not None:
        return
    yield setting.random(min(WARM, max(setting.evaluations // 16, 8)))
    if setting.evaluations >= EACH and setting.cost.holds.all():
        for everywhere in (True, False):
            yield setting.solved(setting.surrogate(everywhere), WARM).rows
    yield from _climbs(setting)


def _climbs(setting: Setting) -> Iterator[Population]:
    moves, peaks = Moves(setting.slots), _Peaks(setting)
    members = peaks.first(int(np.clip(setting.evaluations // EACH, 1, MEMBERS)))
    while setting.patient or peaks.vain < PATIENCE:
        around = [moves.of(row) for row in members]
        yield np.concatenate(around)
        tried = combined(setting, members, around)
        yield np.concatenate(tried)
        for i, (row, near, far) in enumerate(zip(members, around, tried, strict=True)):
            candidates = np.concatenate([row[None], near, far])
            best = candidates[setting.memory.of(candidates)[:, 0].argmax()]
            if (best == row).all():
                peaks.add(row)
                best = peaks.child()
            members[i] = best
        yield members


def combined(setting: Setting, members: Population, around: list[Population]) -> list[Population]:
    """For every member the feasible ones of its promising combinations of changes."""
    memory, problem, found = setting.memory, setting.problem, []
    for row, near, excess in zip(members, around, problem.excess(members), strict=True):
        gain = memory.of(near)[:, 1] - memory.of(row[None])[0, 1]
        gain = np.where(np.isfinite(gain), gain, UNKNOWN)
        cost = setting.cost(near) - setting.cost(row[None])
        found.append(problem.codec.canonicalise(Around(row, near, gain, cost, -excess).combined()))
    fits = np.split(setting.feasible(np.concatenate(found)), np.cumsum([len(rows) for rows in found])[:-1])
    return [rows[fit] for rows, fit in zip(found, fits, strict=True)]


class _Peaks:
    """Subnets that no change improves, and the children of the best of them.

    Attributes:
        vain: how many came in a row that were no higher than the highest.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._rows = np.zeros((0, len(setting.problem.codec.choices)), dtype=GENE)
        self.vain, self._highest = 0, -np.inf

    def add(self, row: np.ndarray) -> None:
        """Keep a peak among the parents if it is good enough."""
        height = self._setting.memory.of(row[None])[0, 0]
        self.vain = 0 if height > self._highest else self.vain + 1
        self._highest = max(height, self._highest)
        rows = np.unique(np.concatenate([self._rows, row[None]]), axis=0)
        fitness = self._setting.memory.of(rows)[:, 0]
        self._rows = rows[np.argsort(-fitness, kind="stable")[: self._setting.population or PARENTS]]

    def first(self, count: int) -> Population:
        """The fittest so far that differ enough."""
        best = self._setting.elites()[0]
        best = best if len(best) else self._setting.anchors
        chosen = [best[0]]
        for row in best:
            if len(chosen) < count and min((row != other).sum() for other in chosen) >= DISTANCE:
                chosen.append(row)
        return np.array(chosen)

    def child(self) -> np.ndarray:
        """A feasible child of one or two peaks."""
        rng, codec = self._setting.rng, self._setting.problem.codec
        one, other = self._rows[rng.integers(0, len(self._rows), 2)][:, None]
        if rng.random() < CROSSED and (one != other).any():
            return self._setting.repaired(codec.mutate(codec.crossover(one, other, rng), RATES[0], rng))[0]
        return self._setting.repaired(codec.mutate(one, RATES[1], rng))[0]
