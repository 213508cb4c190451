"""What is searched for: the objective and the constraints of a population, in one pass of array operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ofa_deploy.blocks.network_counts import VALUE_BYTES
from ofa_deploy.config import Constraints
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.search.gradient import Gradient
from ofa_deploy.space import Population, PopulationCodec

COUNTED = {  # what ``PopulationCodec.counts`` calls what is bounded; of the memory, it adds up the weights
    "macs": "macs",
    "params": "params",
    "memory_mb": "weights",
    "layers": "layers",
    "large_kernels": "large_kernels",
}
INFEASIBLE = -1e6  # fitness of what violates the constraints lies below it
Accuracy = Callable[[Population], np.ndarray]
Latency = Callable[[Population], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Device:
    """One more device that must meet a budget of its own: one subnet for all of them.

    Attributes:
        name: in messages and reasons.
        latency: its latency model.
        max_ms: bound on its latency in ms, held with probability ``confidence``.
    """

    name: str
    latency: Latency
    max_ms: float
    confidence: float = 0.95


@dataclass(frozen=True)
class Assessment:
    """A population against a problem; arrays of length N.

    Attributes:
        accuracy: predicted, a fraction; NaN where the accuracy model gave no number.
        latency, upper: predicted mean and upper bound in ms; None without a latency model.
        violation: how far the constraints are exceeded, as a fraction of the bounds, summed; 0 where all hold.
    """

    accuracy: np.ndarray
    latency: np.ndarray | None
    upper: np.ndarray | None
    violation: np.ndarray

    @property
    def fitness(self) -> np.ndarray:
        """Accuracy of feasible subnets; below all of them, the infeasible ones by how little they violate; below
        those, what has no accuracy."""
        ranked = np.where(self.violation > 0, INFEASIBLE - self.violation, self.accuracy)
        return np.where(np.isnan(self.accuracy), -np.inf, ranked)


class Problem:
    """A space, what is maximised, and what must hold.

    Attributes:
        names: of the constraints that were asked for, in the order of the columns of ``excess``; another device's
            latency bound is ``max_ms@NAME``.
        gradient: what the strategy ``differentiable`` learns from.

    ``batch`` and ``precision`` are those at which a network's memory counts.
    """

    def __init__(
        self,
        codec: PopulationCodec,
        accuracy: Accuracy,
        latency: Latency | None,
        constraints: Constraints,
        batch: int = 1,
        precision: str = "fp32",
        others: Sequence[Device] = (),
        gradient: Gradient | None = None,
    ) -> None:
        if constraints.max_ms is not None and latency is None:
            raise UsageError("a latency bound needs a latency model: profile a target first")
        self.codec, self.constraints, self.others = codec, constraints, tuple(others)
        self.gradient = gradient
        self.batch, self.value_bytes = batch, VALUE_BYTES[precision]
        self._accuracy, self.latency = accuracy, latency
        self.deviations = NormalDist().inv_cdf(constraints.confidence)
        self.counted = [name for name in constraints.bounds if name != "max_ms"]
        own = ["max_ms"] if constraints.max_ms is not None else []
        self.names = [*own, *(f"max_ms@{device.name}" for device in self.others), *self.counted]

    def assess(self, population: Population) -> Assessment:
        """Objective and constraints of every member.

        Raises:
            OfaDeployError: the accuracy model failed, or did not answer with one number for each subnet.
        """
        latency, upper, excess = self._bounds(population)
        return Assessment(self._predicted(population), latency, upper, _violation(excess))

    def _predicted(self, population: Population) -> np.ndarray:
        try:
            accuracy = np.asarray(self._accuracy(population), dtype=float)
        except OfaDeployError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise OfaDeployError(f"the accuracy model failed on {len(population)} subnets: {told}") from error
        if accuracy.shape != (len(population),):
            raise OfaDeployError(f"the accuracy model answered {len(population)} subnets with shape {accuracy.shape}")
        return np.where(np.isfinite(accuracy), accuracy, np.nan)

    def violation(self, population: Population) -> np.ndarray:
        """How far the constraints are exceeded, without asking for accuracies."""
        return _violation(self._bounds(population)[2])

    def excess(self, population: Population) -> np.ndarray:
        """By how much every constraint is exceeded, as a fraction of its bound; negative: room: ``float64[N, K]``."""
        return self._bounds(population)[2]

    @property
    def confident(self) -> bool:
        """Whether every latency bound is asked for with a confidence of at least one half: ``additive`` is a bound."""
        own = self.constraints.confidence if self.constraints.max_ms is not None else 1.0
        return min([own, *(device.confidence for device in self.others)]) >= 0.5

    def additive(self, population: Population) -> np.ndarray:
        """Lower bounds of ``excess`` that are sums over blocks, ``float64[N, K]``: of a latency its mean (where the
        confidence is at least one half), of the memory its weights."""
        columns = [_scaled("max_ms", mean, bound) for mean, _, bound, _ in self._latencies(population)]
        for name in self.counted:
            columns.append(_scaled(name, self._count(name, population, peak=False), self.constraints.bounds[name]))
        return _stacked(columns, len(population))

    def _bounds(self, population: Population) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        latency: np.ndarray | None = None
        upper: np.ndarray | None = None
        columns: list[np.ndarray] = []
        if self.latency is not None and self.constraints.max_ms is None:
            latency, std = self.latency(population)
            upper = latency + self.deviations * std
        for mean, std, bound, deviations in self._latencies(population):
            above = mean + deviations * std
            if not columns and self.constraints.max_ms is not None:
                latency, upper = mean, above
            columns.append(_scaled("max_ms", above, bound))
        for name, count in self.counts(population).items():
            columns.append(_scaled(name, count, self.constraints.bounds[name]))
        return latency, upper, _stacked(columns, len(population))

    def _latencies(self, population: Population) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
        """Mean, deviation, bound and confidence in deviations of every device with a bound."""
        found = []
        if self.latency is not None and self.constraints.max_ms is not None:
            found.append((*self.latency(population), self.constraints.max_ms, self.deviations))
        for device in self.others:
            found.append((*device.latency(population), device.max_ms, NormalDist().inv_cdf(device.confidence)))
        return found

    def counts(self, population: Population) -> dict[str, np.ndarray]:
        """What every member has of what is bounded besides latency, by the bound's name."""
        return {name: self._count(name, population) for name in self.counted}

    def _count(self, name: str, population: Population, peak: bool = True) -> np.ndarray:
        what = COUNTED[name.split("_", 1)[1]]
        total = self.codec.counts(what).take(self.codec.op_ids(population)).sum(axis=0)
        if what != COUNTED["memory_mb"]:
            return total
        most = self.codec.peak(population) if peak else 0.0
        return self.value_bytes * (total + self.batch * most) / 1e6

    def means(self, population: Population) -> np.ndarray:
        """Predicted mean latency in ms of every member."""
        if self.latency is None:
            raise UsageError("this problem has no latency model")
        return self.latency(population)[0]

    def upper(self, population: Population) -> np.ndarray:
        """Upper latency bound in ms of every member."""
        upper = self._bounds(population)[1]
        if upper is None:
            raise UsageError("this problem has no latency model")
        return upper


def _scaled(name: str, value: np.ndarray, bound: float) -> np.ndarray:
    above = (value - bound) / (bound or 1.0)  # a bound of 0 is exceeded by the count itself
    return -above if name.startswith("min_") else above


def _stacked(columns: list[np.ndarray], count: int) -> np.ndarray:
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def _violation(excess: np.ndarray) -> np.ndarray:
    return np.nan_to_num(np.maximum(excess, 0).sum(axis=1), nan=np.inf)
