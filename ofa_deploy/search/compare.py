"""Strategies against each other on one problem, at equal evaluations or at equal time, over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ofa_deploy.errors import UsageError
from ofa_deploy.search.engine import Point, SearchResult, search
from ofa_deploy.search.problem import Problem

STEPS = 40  # points of a curve
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and between which bounds it lies with 95 % (Student's t)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Interval:
        """From one value a seed."""
        mean, count = float(values.mean()), len(values)
        if count < 2:
            return cls(mean, mean, mean)
        from scipy.special import stdtrit  # a third of a second, which a single search does without

        half = float(stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(count))
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Compared:
    """How one strategy did.

    Attributes:
        best: accuracy at the end.
        hypervolume: of the front that was found, as a share of the box between the worst and the best of all searches.
        gain: accuracy over ``random`` at the end, seed by seed; None where random was not among the strategies.
        evaluations, seconds: of a search, means.
        at: evaluations or seconds, the curve's positions; ``curve``: the best accuracy so far.
    """

    strategy: str
    best: Interval
    hypervolume: Interval | None
    gain: Interval | None
    evaluations: float
    seconds: float
    at: list[float]
    curve: list[Interval | None]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)

    @property
    def beats_random(self) -> bool:
        """Whether the gain over random search is positive beyond its interval."""
        return self.gain is not None and self.gain.low > 0


def compare(
    problem: Problem,
    strategies: Sequence[str],
    seeds: Sequence[int],
    evaluations: int | None = None,
    seconds: float | None = None,
) -> list[Compared]:
    """Run every strategy with every seed.

    Args:
        evaluations, seconds: what each search gets; exactly one of them.

    Raises:
        UsageError: not exactly one limit, no strategy or seed, or an unknown strategy.
        InfeasibleBudget: no subnet meets the constraints.
    """
    if (evaluations is None) == (seconds is None):
        raise UsageError("compare strategies at equal evaluations or at equal seconds: give exactly one of them")
    if not strategies or not seeds:
        raise UsageError("a comparison needs at least one strategy and one seed")
    results = {
        name: [search(problem, seed, name, evaluations, time_limit=seconds) for seed in seeds]
        for name in dict.fromkeys(strategies)
    }
    corner = _corner([result.front for runs in results.values() for result in runs])
    baseline = results.get("random")
    axis = np.linspace(0, evaluations or seconds or 0.0, STEPS + 1)[1:]
    return [_compared(name, runs, baseline, corner, axis, seconds is not None) for name, runs in results.items()]


def _compared(
    name: str,
    runs: list[SearchResult],
    baseline: list[SearchResult] | None,
    corner: tuple[np.ndarray, np.ndarray] | None,
    axis: np.ndarray,
    timed: bool,
) -> Compared:
    best = np.array([run.best.accuracy for run in runs])
    curves = np.array([_so_far(run, axis, timed) for run in runs])
    gain = None
    if baseline is not None and name != "random":
        gain = Interval.of(best - np.array([run.best.accuracy for run in baseline]))
    return Compared(
        strategy=name,
        best=Interval.of(best),
        hypervolume=Interval.of(np.array([_volume(run.front, *corner) for run in runs])) if corner else None,
        gain=gain,
        evaluations=float(np.mean([run.evaluations for run in runs])),
        seconds=float(np.mean([run.seconds for run in runs])),
        at=axis.tolist(),
        curve=[Interval.of(column) if np.isfinite(column).all() else None for column in curves.T],
    )


def _so_far(run: SearchResult, axis: np.ndarray, timed: bool) -> np.ndarray:
    """The best accuracy at every position; NaN before the first."""
    places = np.array([step.seconds if timed else step.evaluations for step in run.trace])
    accuracies = np.array([np.nan, *(step.accuracy for step in run.trace)])
    return accuracies[np.searchsorted(places, axis, side="right")]


def _corner(fronts: list[list[Point]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Worst and best (latency, accuracy) of all fronts; None without latencies."""
    points = np.array([_pair(point) for front in fronts for point in front])
    if not len(points):
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return np.array([high[0], low[1]]), np.array([low[0], high[1]])


def _pair(point: Point) -> tuple[float, float]:
    return point.latency_ms or 0.0, point.accuracy


def _volume(front: list[Point], worst: np.ndarray, best: np.ndarray) -> float:
    """What a front dominates of the box; the front rises in both."""
    area, right = 0.0, worst[0]
    for latency, accuracy in map(_pair, reversed(front)):
        area += max(right - latency, 0.0) * max(accuracy - worst[1], 0.0)
        right = min(right, latency)
    return float(area / max((worst[0] - best[0]) * (best[1] - worst[1]), 1e-12))
