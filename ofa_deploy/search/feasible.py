"""Where the constraints can be met: the fastest subnet, the ones nearest to feasibility, and the way back to them.

Everything here is bounded, so that no budget can make a search run for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa_deploy.search.branch_and_bound import least
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.separable import Slots, separate
from ofa_deploy.space import GENE, Population, PopulationCodec

UNITS = {
    "macs": (1e6, "M MACs"),
    "params": (1e6, "M parameters"),
    "memory_mb": (1.0, "MB of memory"),
    "layers": (1.0, "layers"),
    "large_kernels": (1.0, "large kernels"),
}


def nearest_feasible(problem: Problem) -> Population:
    """For every resolution and widths, the subnet that violates the constraints least: descent by single genes, from
    the smallest and the largest one and from the ones that have least of each thing that is bounded."""
    codec = problem.codec
    slots = Slots(codec)
    sizes = slots.size_genes(np.arange(slots.sizes))
    starts = [np.zeros((len(sizes), len(codec.choices)), dtype=GENE)]
    starts.append(np.repeat((codec.choices - 1).astype(GENE)[None], len(sizes), axis=0))
    for start in starts:
        start[:, : slots.depth0] = sizes
    if problem.names:
        cost = separate(slots, problem.additive)
        starts += [least(cost.only(k))[0] for k in range(len(problem.names))]
    violations = np.stack([problem.violation(start) for start in starts])
    best = np.stack(starts)[violations.argmin(axis=0), np.arange(len(sizes))]
    return np.array([_descend(problem, row) for row in codec.canonicalise(best)])


def _descend(problem: Problem, row: np.ndarray) -> np.ndarray:
    for _ in range(len(row)):
        if problem.violation(row[None])[0] == 0:
            break
        moves = problem.codec.neighbours(row)
        better = moves[problem.violation(moves).argmin()]
        if (better == row).all():
            break
        row = better
    return row


def fastest(problem: Problem) -> tuple[np.ndarray, float]:
    """The subnet with the least upper latency bound, and that bound in ms: descent from the ones whose blocks add up
    to the least mean."""
    means = separate(Slots(problem.codec), lambda population: problem.means(population)[:, None])
    found = [_fastest(problem, row) for row in least(means)[0]]
    return min(found, key=lambda pair: pair[1])


def _fastest(problem: Problem, row: np.ndarray) -> tuple[np.ndarray, float]:
    best = np.inf
    while True:
        moves = problem.codec.neighbours(row)
        upper = problem.upper(moves)
        if not upper.min() < best:
            return row, float(best)
        row, best = moves[upper.argmin()], float(upper.min())


def repair(
    codec: PopulationCodec,
    feasible: Callable[[Population], np.ndarray],
    population: Population,
    anchors: Population,
    rng: np.random.Generator,
) -> Population:
    """Feasible subnets near the given ones: genes become those of a feasible anchor, in random order and no more than
    are needed, as far as bisection finds out.

    Args:
        feasible: which members meet the constraints, ``bool[N]``.
        anchors: feasible subnets; each member is led to a random one of them.
    """
    population = codec.canonicalise(population)
    bad = np.flatnonzero(~feasible(population))
    if not len(bad):
        return population
    rows, goal = population[bad], anchors[rng.integers(0, len(anchors), len(bad))]
    turn = rng.permuted(np.repeat(np.arange(rows.shape[1])[None], len(bad), axis=0), axis=1)
    low, high = np.zeros(len(bad), dtype=int), np.full(len(bad), rows.shape[1])  # how many genes are the anchor's
    found = goal.copy()
    for _ in range(rows.shape[1].bit_length()):
        middle = (low + high) // 2
        mixed = codec.canonicalise(np.where(turn < middle[:, None], goal, rows))
        fits = feasible(mixed)
        found[fits] = mixed[fits]
        low, high = np.where(fits, low, middle + 1), np.where(fits, middle, high)
    population[bad] = found
    return population


def explain_infeasible(problem: Problem) -> str:
    """One line that says why no subnet meets the constraints, and what could be asked for."""
    bounds, codec = problem.constraints, problem.codec
    smallest, fast = codec.encode([codec.space.smallest]), ""
    if bounds.max_ms is not None:
        _, upper = fastest(problem)
        if upper > bounds.max_ms:
            return (
                f"no subnet of {codec.space.name} runs in {bounds.max_ms:g} ms: the fastest needs {upper:.4g} ms "
                f"(at confidence {bounds.confidence:g}); ask for --max-ms {upper * 1.005:.3g} or more"
            )
        fast = f", the fastest {upper:.4g} ms"
    told = [
        f"{100 * e:+.0f} % of {n}" for n, e in zip(problem.names, problem.excess(smallest)[0], strict=True) if "@" in n
    ]
    told += [_told(problem, smallest, name) for name in problem.counted if name.startswith("max_")]
    least_told = f": the smallest has {' and '.join(told)}{fast}" if told or fast else ""
    largest = codec.encode([codec.space.largest])
    most = [_told(problem, largest, name) for name in problem.counted if name.startswith("min_")]
    most_told = f"{';' if least_told else ':'} the largest has {' and '.join(most)}" if most else ""
    return f"no subnet of {codec.space.name} meets all constraints{least_told}{most_told}"


def _told(problem: Problem, row: Population, name: str) -> str:
    scale, unit = UNITS[name.split("_", 1)[1]]
    value, bound = problem.counts(row)[name][0], problem.constraints.bounds[name]
    return f"{value / scale:.4g} {unit} (bound {bound / scale:.4g})"
