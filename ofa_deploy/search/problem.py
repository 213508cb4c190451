"""What is searched for: the objective and the constraints of a population, in one pass of array operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy.stats import norm

from ofa_deploy.errors import UsageError
from ofa_deploy.space import Population, PopulationCodec

Accuracy = Callable[[Population], np.ndarray]
Latency = Callable[[Population], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Constraints:
    """What a subnet must meet; None: no bound.

    Attributes:
        max_ms: bound on the latency in ms, held with probability ``confidence``.
        statistic: which latency is meant: ``p50``, ``p90`` or ``p99`` of a network's timings.
        max_macs, max_params: bounds on multiply-accumulates and parameters.
    """

    max_ms: float | None = None
    confidence: float = 0.95
    max_macs: float | None = None
    max_params: float | None = None
    statistic: str = "p50"

    def __post_init__(self) -> None:
        for name in ("max_ms", "max_macs", "max_params"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise UsageError(f"{name.replace('_', '-')} must be a positive number, not {value}")
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence must lie between 0 and 1, not {self.confidence}")


@dataclass(frozen=True)
class Assessment:
    """A population against a problem; arrays of length N.

    Attributes:
        accuracy: predicted, a fraction.
        latency, upper: predicted mean and upper bound in ms; None without a latency model.
        violation: how far the constraints are exceeded, as a fraction of the bounds, summed; 0 where all hold.
    """

    accuracy: np.ndarray
    latency: np.ndarray | None
    upper: np.ndarray | None
    violation: np.ndarray

    @property
    def fitness(self) -> np.ndarray:
        """Accuracy of feasible subnets; below all of them, the infeasible ones by how little they violate."""
        return np.where(self.violation > 0, -1.0 - self.violation, self.accuracy)


class Problem:
    """A space, what is maximised, and what must hold."""

    def __init__(
        self, codec: PopulationCodec, accuracy: Accuracy, latency: Latency | None, constraints: Constraints
    ) -> None:
        if constraints.max_ms is not None and latency is None:
            raise UsageError("a latency bound needs a latency model: profile a target first")
        self.codec, self.constraints = codec, constraints
        self._accuracy, self._latency = accuracy, latency
        self._deviations = float(norm.ppf(constraints.confidence))

    def assess(self, population: Population) -> Assessment:
        """Objective and constraints of every member."""
        accuracy = np.nan_to_num(np.asarray(self._accuracy(population), dtype=float), nan=0.0)
        latency, upper, violation = self._bounds(population)
        return Assessment(accuracy, latency, upper, violation)

    def violation(self, population: Population) -> np.ndarray:
        """How far the constraints are exceeded, without asking for accuracies."""
        return self._bounds(population)[2]

    def _bounds(self, population: Population) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
        bounds, latency, upper = self.constraints, None, None
        violation = np.zeros(len(population))
        if self._latency is not None:
            latency, std = self._latency(population)
            upper = latency + self._deviations * std
            if bounds.max_ms is not None:
                violation += np.maximum(upper / bounds.max_ms - 1, 0)
        if bounds.max_macs is not None:
            violation += np.maximum(self.codec.macs(population) / bounds.max_macs - 1, 0)
        if bounds.max_params is not None:
            violation += np.maximum(self.codec.params(population) / bounds.max_params - 1, 0)
        return latency, upper, np.nan_to_num(violation, nan=np.inf)

    def upper(self, population: Population) -> np.ndarray:
        """Upper latency bound in ms of every member."""
        upper = self._bounds(population)[1]
        if upper is None:
            raise UsageError("this problem has no latency model")
        return upper
