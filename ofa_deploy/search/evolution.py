"""Elitist evolution over populations (after Real et al., AAAI 2019, and Once-for-All §3.4), with local moves.

It starts from random subnets and from those that come nearest to feasibility, so that a tight budget is met from the
first generation on and an infeasible one is recognised before it. Every subnet is assessed once. The same seed gives
the same answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.search.problem import Problem
from ofa_deploy.space import Arch, Population

UNITS = {"max_macs": (1e6, "M MACs"), "max_params": (1e6, "M parameters"), "max_memory_mb": (1.0, "MB of memory")}


@dataclass(frozen=True)
class Point:
    """A subnet with its predictions: accuracy a fraction, latencies in ms."""

    arch: Arch
    accuracy: float
    latency_ms: float | None
    upper_ms: float | None


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the most accurate feasible subnet.
        finalists: the best and its nearest rivals, feasible, most accurate first.
        front: subnets that no other assessed one beats in both accuracy and latency, fastest first.
        evaluations: distinct subnets assessed.
        seconds: wall time.
    """

    best: Point
    finalists: list[Point]
    front: list[Point]
    evaluations: int
    seconds: float


@dataclass
class _Memory:
    """Every subnet that was assessed, in the order of assessment."""

    problem: Problem
    seen: set[bytes] = field(default_factory=set)
    rows: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)  # [N, 4]: fitness, accuracy, latency, upper

    def add(self, population: Population) -> None:
        """Assess the members that are new."""
        fresh = []
        for i, row in enumerate(population):
            if row.tobytes() not in self.seen:
                self.seen.add(row.tobytes())
                fresh.append(i)
        if not fresh:
            return
        rows = population[fresh]
        got = self.problem.assess(rows)
        nothing = np.full(len(rows), np.nan)
        latency, upper = (nothing if value is None else value for value in (got.latency, got.upper))
        self.rows.append(rows)
        self.values.append(np.stack([got.fitness, got.accuracy, latency, upper], axis=1))

    def all(self) -> tuple[Population, np.ndarray]:
        """All rows and their values."""
        self.rows, self.values = [np.concatenate(self.rows)], [np.concatenate(self.values)]
        return self.rows[0], self.values[0]


def search(
    problem: Problem,
    seed: int = 0,
    population: int = 128,
    generations: int = 60,
    finalists: int = 4,
    time_limit: float | None = None,
) -> SearchResult:
    """Find the most accurate subnet that meets the constraints.

    Args:
        problem: the space, the objective, the constraints.
        population, generations: size of the evolution.
        finalists: how many of the best to return.
        time_limit: seconds after which the best so far is returned.

    Raises:
        InfeasibleBudget: no subnet meets the constraints; names the fastest one's latency.
    """
    start = time.monotonic()
    rng, codec, memory = np.random.default_rng(seed), problem.codec, _Memory(problem)
    anchors = nearest_feasible(problem)
    if problem.violation(anchors).min() > 0:
        raise InfeasibleBudget(_infeasible(problem))
    memory.add(np.concatenate([anchors, codec.sample(population, rng)]))
    for _ in range(generations):
        if time_limit is not None and time.monotonic() - start > time_limit:
            break
        parents = _best(memory, population // 4)
        mother, father = (parents[rng.integers(0, len(parents), population)] for _ in range(2))
        crossed = codec.crossover(mother, father, rng)
        memory.add(np.concatenate([codec.mutate(mother, 0.1, rng), codec.mutate(crossed, 0.02, rng)]))
    _climb(memory, finalists)
    return _result(problem, memory, finalists, time.monotonic() - start)


def nearest_feasible(problem: Problem) -> Population:
    """For every resolution and width, the subnet that violates the constraints least: descent by single genes from
    the smallest one. Bounded, so that no budget can make it run for ever."""
    codec = problem.codec
    rows = np.zeros((codec.choices[0] * codec.choices[1], len(codec.choices)), dtype=np.int8)
    rows[:, 0], rows[:, 1] = np.divmod(np.arange(len(rows)), codec.choices[1])
    return np.array([_descend(problem, row) for row in rows])


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
    """The subnet with the least upper latency bound, and that bound in ms."""
    codec = problem.codec
    row, best = np.zeros(len(codec.choices), dtype=np.int8), np.inf
    while True:
        moves = codec.neighbours(row)
        upper = problem.upper(moves)
        if upper.min() >= best:
            return row, float(best)
        row, best = moves[upper.argmin()], float(upper.min())


def _infeasible(problem: Problem) -> str:
    bounds, codec = problem.constraints, problem.codec
    smallest = codec.encode([codec.space.smallest])
    if bounds.max_ms is not None:
        _, upper = fastest(problem)
        if upper > bounds.max_ms:
            return (
                f"no subnet of {codec.space.name} runs in {bounds.max_ms:g} ms: the fastest needs {upper:.4g} ms "
                f"(at confidence {bounds.confidence:g}); ask for --max-ms {upper * 1.005:.3g} or more"
            )
    least = []
    for name, (count,) in problem.counts(smallest).items():
        scale, unit = UNITS[name]
        least.append(f"{count / scale:.4g} {unit} (bound {bounds.bounds[name] / scale:.4g})")
    fast = f", the fastest {fastest(problem)[1]:.4g} ms" if bounds.max_ms is not None else ""
    return f"no subnet of {codec.space.name} meets all constraints: the smallest has {' and '.join(least)}{fast}"


def _best(memory: _Memory, count: int) -> Population:
    rows, values = memory.all()
    return rows[np.argsort(-values[:, 0], kind="stable")[:count]]


def _climb(memory: _Memory, count: int) -> None:
    """Move the best few to their best neighbours until none improves."""
    before = -np.inf
    while memory.all()[1][:, 0].max() > before:
        before = memory.all()[1][:, 0].max()
        for row in _best(memory, count):
            memory.add(memory.problem.codec.neighbours(row))


def _result(problem: Problem, memory: _Memory, finalists: int, seconds: float) -> SearchResult:
    rows, values = memory.all()
    order = np.argsort(-values[:, 0], kind="stable")

    def points(indices: np.ndarray) -> list[Point]:
        numbers = [[None if np.isnan(v) else float(v) for v in values[i, 1:]] for i in indices]
        archs = problem.codec.decode(rows[indices])
        return [Point(arch, a or 0.0, ms, upper) for arch, (a, ms, upper) in zip(archs, numbers, strict=True)]

    best = points(order[values[order, 0] >= 0][:finalists])
    return SearchResult(best[0], best, points(_front(values)), len(rows), seconds)


def _front(values: np.ndarray) -> np.ndarray:
    """Positions of the subnets that are the most accurate of all that are as fast; [] without latencies."""
    known = np.flatnonzero(~np.isnan(values[:, 2]))
    order = known[np.lexsort((-values[known, 1], values[known, 2]))]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values[order, 1]]))
    return order[values[order, 1] > best[:-1]]
