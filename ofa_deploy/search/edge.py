"""Random networks that use a budget, as a sample of what a space offers there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.search.feasible import explain_infeasible, nearest_feasible, repair
from ofa_deploy.search.problem import Problem
from ofa_deploy.space import Population

SAMPLED = 4096  # random networks of a space
NEAR = 0.85  # a network uses a budget if it needs at least this share of it
FEW = 64  # networks that a distribution needs; where fewer are near the budget, the nearest ones count
LARGEST = 0.1  # of the networks: those that count where the budget excludes none


@dataclass(frozen=True)
class Edge:
    """Networks of a space that use a latency budget.

    Attributes:
        sampled: networks that were drawn, every gene uniform.
        fit: how many of them meet the constraints.
        rows: different networks that meet them and need most of the budget, ``[N, G]``; where all meet it, those of the
            most multiply-accumulates among random ones and their crossings with the largest.
        upper: their upper latency bounds in ms, ``float64[N]``.
        binds: whether the constraints exclude any network that was looked at.
    """

    sampled: int
    fit: int
    rows: Population
    upper: np.ndarray
    binds: bool


def edge_of(problem: Problem, seed: int = 0, sampled: int = SAMPLED) -> Edge:
    """Sample the networks of a space that use a latency budget.

    MCUNet compares spaces by the networks that fit among random ones (TinyNAS, Lin et al., NeurIPS 2020, §3.1). Random
    networks seldom lie near a budget, so each one that is too slow takes genes of one that fits, in random order and no
    more than it needs to fit.

    Args:
        problem: with a bound on the latency; its accuracy is not asked for.

    Raises:
        InfeasibleBudget: no network meets the constraints; names the fastest one's latency.
    """
    codec, rng = problem.codec, np.random.default_rng(seed)
    largest = codec.encode([codec.space.largest])
    drawn = codec.sample(sampled, rng)
    fits = problem.violation(drawn) == 0
    if fits.all() and problem.violation(largest)[0] == 0:
        larger = codec.crossover(drawn, np.repeat(largest, sampled, axis=0), rng)
        rows = np.unique(np.concatenate([drawn, larger, largest]), axis=0)
        order = np.argsort(-codec.macs(rows), kind="stable")
        return _edge(problem, sampled, sampled, rows[order[: max(round(LARGEST * len(rows)), FEW)]], False)
    anchors = np.concatenate([nearest_feasible(problem), drawn[fits]])
    anchors = anchors[problem.violation(anchors) == 0]
    if not len(anchors):
        raise InfeasibleBudget(explain_infeasible(problem))
    slow = np.concatenate([drawn[~fits], largest]) if problem.violation(largest)[0] > 0 else drawn[~fits]
    slow = slow[rng.integers(0, len(slow), sampled)]
    reached = repair(codec, lambda rows: problem.violation(rows) == 0, slow, anchors, rng)
    rows = np.unique(np.concatenate([reached, drawn[fits]]), axis=0)
    upper = problem.upper(rows)
    near = int((upper >= NEAR * (problem.constraints.max_ms or np.inf)).sum())
    return _edge(problem, sampled, int(fits.sum()), rows[np.argsort(-upper, kind="stable")[: max(near, FEW)]], True)


def _edge(problem: Problem, sampled: int, fit: int, rows: Population, binds: bool) -> Edge:
    return Edge(sampled, fit, rows, problem.upper(rows), binds)
