"""The optimum with its proof, where the accuracy is a sum over blocks or the space is small enough to evaluate whole;
elsewhere the optimum of a sum that is fitted to what was evaluated, again and again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.search.branch_and_bound import Solution, solve
from ofa_deploy.search.separable import Separable, Sweep
from ofa_deploy.search.setting import Setting
from ofa_deploy.space import Population

KEPT = 64  # near-optimal subnets that are evaluated at a time
ASKED = 4  # a sweep may use at most a quarter of the evaluations
RATE = 0.05


def exact(setting: Setting) -> Iterator[Population]:
    """Enumeration under a Lagrangian bound."""
    yield from proved(setting)
    if setting.proof is None:
        yield from exhausted(setting)
    while setting.proof is None:
        rows = setting.solved(setting.surrogate(), KEPT).rows
        best = setting.memory.best(KEPT // 2)
        near = setting.problem.codec.mutate(best[setting.rng.integers(0, len(best), KEPT)], RATE, setting.rng)
        yield np.concatenate([rows, setting.repaired(near)])


def exhausted(setting: Setting) -> Iterator[Population]:
    """All subnets of a space that has no more than may be evaluated: the best of them is the optimum."""
    codec = setting.problem.codec
    rows = codec.everything(setting.evaluations)
    if rows is None:
        return
    yield rows
    best = setting.elites()[0][:KEPT]
    values = setting.memory.of(best)[:, 1]
    if len(best):
        setting.proof = Solution(best, values, float(values[0]), proven=True)


def proved(setting: Setting) -> Iterator[Population]:
    """Ask for what shows whether the accuracy is a sum over blocks, and where it is, for the optimum; where there are
    too few evaluations for that, ask for random subnets."""
    sweep = Sweep(setting.slots, samples=1024)
    if ASKED * len(sweep.population) > setting.evaluations:
        yield setting.random(max(setting.evaluations // 8, 16))
        return
    yield sweep.population
    score = sweep.read(setting.memory.of(sweep.population)[:, [1]])
    if score.holds[0] and _bounds_hold(setting, score):
        solution = solve(score, setting.cost, KEPT, setting.feasible)
        yield solution.rows
        if solution.proven:
            setting.proof = solution


def _bounds_hold(setting: Setting, score: Separable) -> bool:
    """Whether the constraints have lower bounds that are sums over blocks, and no accuracy is missing."""
    sums = setting.problem.confident and setting.cost.holds.all()
    return bool(sums and np.isfinite(score.constant).all() and np.isfinite(score.value).all())
