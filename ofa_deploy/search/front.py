"""The whole front of accuracy against latency, of one device or several, in one search.

Latency budgets between the fastest and the largest subnet are searched from the largest to the smallest, each from the
best of all that was seen before: what is near the optimum of one budget is near that of the next, so that each takes a
fraction of what a search by itself takes. With several devices every budget is a row of budgets, one for each device,
at the same place between its fastest and its largest subnet: such a row gives one point of each device's front, and
one of the joint front, a subnet that meets all of them. Every subnet seen counts for every front.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ofa_deploy.config import Constraints
from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.notices import Progress
from ofa_deploy.search.assessed import Memory
from ofa_deploy.search.engine import AskTell, Point, SearchResult
from ofa_deploy.search.feasible import fastest
from ofa_deploy.search.problem import Accuracy, Assessment, Device, Latency, Problem
from ofa_deploy.space import Arch, Population, PopulationCodec

POINTS = 12
FIRST = 20_000  # evaluations of the first budget
NEXT = 5_000  # of every other, which begins where the one before ended
WARM = 512  # of the best so far are what a budget begins with
ROOM = 1.001  # the smallest budget is so many times what the fastest subnet needs


@dataclass(frozen=True)
class FrontPoint:
    """A subnet of a front.

    Attributes:
        accuracy: predicted, a fraction.
        latency_ms, upper_ms: predicted mean and upper bound on every device, by name.
    """

    arch: Arch
    accuracy: float
    latency_ms: dict[str, float]
    upper_ms: dict[str, float]


@dataclass(frozen=True)
class Joint:
    """A row of budgets in ms, one for each device, and the most accurate subnet seen that meets all of them."""

    budgets_ms: dict[str, float]
    best: FrontPoint


@dataclass(frozen=True)
class Fronts:
    """What one search found.

    Attributes:
        fronts: of every device, by name: subnets that no other seen one beats in both accuracy and upper latency,
            fastest first.
        joint: the rows of budgets that were searched, rising, but for those that no subnet meets.
        evaluations: subnets that were assessed.
        seconds: wall time.
    """

    fronts: dict[str, list[FrontPoint]]
    joint: list[Joint]
    evaluations: int
    seconds: float


def find_fronts(
    codec: PopulationCodec,
    accuracy: Accuracy,
    latencies: Mapping[str, Latency],
    constraints: Constraints,
    points: int = POINTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fronts:
    """Search the fronts of one or several devices together.

    Args:
        latencies: latency models by device.
        constraints: what every subnet must meet besides; ``confidence`` is that of the upper latencies, and ``max_ms``
            is not looked at.
        points: how many budgets are searched for each device.

    Raises:
        InfeasibleBudget: no subnet meets the other constraints.
    """
    started, names = time.monotonic(), list(latencies)
    others = constraints.within(None)
    budgets = {name: _budgets(Problem(codec, accuracy, latencies[name], others), points) for name in names}
    seen = Memory(len(codec.choices))
    rows = [{name: budgets[name][i] for name in names} for i in reversed(range(points))]
    singles = [{name: row[name]} for row in rows for name in names] if len(names) > 1 else []
    asked = sorted([*rows, *singles], key=lambda row: -max(ms / budgets[name][-1] for name, ms in row.items()))
    for i, row in enumerate(asked):
        _search(seen, _problem(codec, accuracy, latencies, others, row), seed + i, FIRST if i == 0 else NEXT)
        if progress:
            progress({"done": i + 1, "total": len(asked), "subnets": len(seen)})
    if not len(seen):
        raise InfeasibleBudget(f"no subnet of {codec.space.name} meets the constraints; relax them")
    return _fronts(codec, seen, latencies, others, rows[::-1], time.monotonic() - started)


def _budgets(problem: Problem, points: int) -> list[float]:
    """Spread geometrically between the upper bounds of the fastest and the largest subnet."""
    low = ROOM * fastest(problem)[1]
    high = max(float(problem.upper(problem.codec.encode([problem.codec.space.largest]))[0]), low)
    return [float(ms) for ms in np.geomspace(low, high, points)] if points > 1 else [high]


def _problem(
    codec: PopulationCodec,
    accuracy: Accuracy,
    latencies: Mapping[str, Latency],
    constraints: Constraints,
    budgets: Mapping[str, float],
) -> Problem:
    first, *rest = budgets
    devices = [Device(name, latencies[name], budgets[name], constraints.confidence) for name in rest]
    return Problem(codec, accuracy, latencies[first], constraints.within(budgets[first]), others=devices)


def _search(seen: Memory, problem: Problem, seed: int, evaluations: int) -> None:
    """Search one row of budgets, from the best that was seen; other constraints may leave it empty."""
    try:
        asking = AskTell(problem, seed=seed, evaluations=evaluations)
    except InfeasibleBudget:
        return
    warm = _feasible(problem, seen)
    if len(warm):
        asking.tell(warm, problem.assess(warm))
    limit = evaluations + len(warm)
    while (left := limit - len(asking.memory)) > 0 and len(rows := asking.ask()[:left]):
        asking.tell(rows, problem.assess(rows))
    known = asking.memory
    values = known.values
    fits = np.flatnonzero((values[:, 4] == 0) & np.isfinite(values[:, 1]))
    seen.add(known.rows[fits], Assessment(values[fits, 1], None, None, np.zeros(len(fits))))


def _feasible(problem: Problem, seen: Memory) -> Population:
    """The best of what was seen that meets a problem's constraints."""
    order = np.argsort(-seen.values[:, 1], kind="stable")
    rows = seen.rows[order]
    return rows[problem.violation(rows) == 0][:WARM] if len(rows) else rows


def _fronts(
    codec: PopulationCodec,
    seen: Memory,
    latencies: Mapping[str, Latency],
    constraints: Constraints,
    rows: Sequence[dict[str, float]],
    seconds: float,
) -> Fronts:
    accuracy, means, uppers = seen.values[:, 1], dict[str, np.ndarray](), dict[str, np.ndarray]()
    for name, latency in latencies.items():
        means[name], std = latency(seen.rows)
        uppers[name] = means[name] + NormalDist().inv_cdf(constraints.confidence) * std

    def points(places: np.ndarray) -> list[FrontPoint]:
        archs = codec.decode(seen.rows[places])
        return [
            FrontPoint(arch, float(accuracy[i]), _at(means, i), _at(uppers, i))
            for arch, i in zip(archs, places, strict=True)
        ]

    fronts = {name: points(undominated(upper, accuracy)) for name, upper in uppers.items()}
    joint = []
    for row in rows:
        fits = np.all([uppers[name] <= ms for name, ms in row.items()], axis=0)
        if fits.any():
            best = np.where(fits, accuracy, -np.inf).argmax()
            joint.append(Joint(row, points(np.array([best]))[0]))
    return Fronts(fronts, joint, len(seen), seconds)


def _at(values: Mapping[str, np.ndarray], place: int) -> dict[str, float]:
    return {name: float(column[place]) for name, column in values.items()}


def pick(problem: Problem, archs: Sequence[Arch], finalists: int | None = 4) -> SearchResult:
    """The best of given subnets, such as a front's, that meet a problem's constraints; nothing is searched.

    Args:
        finalists: how many; None for all.

    Raises:
        InfeasibleBudget: none of them does.
    """
    started = time.monotonic()
    rows = problem.codec.encode(archs)
    found = problem.assess(rows)
    fits = np.flatnonzero(found.violation == 0)
    if not len(fits) or found.latency is None or found.upper is None:
        raise InfeasibleBudget(
            f"none of the {len(archs)} subnets of the front meets the constraints; search anew, without --front"
        )
    latency, upper = found.latency, found.upper
    points = [Point(archs[i], float(found.accuracy[i]), float(latency[i]), float(upper[i])) for i in range(len(archs))]
    best = [points[i] for i in fits[np.argsort(-found.accuracy[fits], kind="stable")]][:finalists]
    front = [points[i] for i in undominated(latency, found.accuracy)]
    seconds = time.monotonic() - started
    return SearchResult(best[0], best, front, len(archs), seconds, "front", np.inf, False, [])


def undominated(cost: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Positions of the points that are worth more than every other of no greater cost, by rising cost."""
    order = np.lexsort((-value, cost))
    best = np.maximum.accumulate(np.concatenate([[-np.inf], value[order]]))
    return order[value[order] > best[:-1]]
