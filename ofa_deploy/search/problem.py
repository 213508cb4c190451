"""What is searched for: the objective and the constraints of a population, in one pass of array operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy.stats import norm

from ofa_deploy.errors import UsageError
from ofa_deploy.space import Population, PopulationCodec

BOUNDS = ("max_ms", "max_macs", "max_params", "max_memory_mb", "max_energy_mj")
Accuracy = Callable[[Population], np.ndarray]
Latency = Callable[[Population], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Constraints:
    """What a subnet must meet; None: no bound.

    Attributes:
        max_ms: bound on the latency in ms, held with probability ``confidence``.
        statistic: which latency is meant: ``p50``, ``p90`` or ``p99`` of a network's timings.
        max_macs, max_params: bounds on multiply-accumulates and parameters.
        max_memory_mb: bound on the peak memory in MB (1e6 bytes) as ``space.network_memory`` counts it.
        max_energy_mj: bound on the energy of an inference in mJ; refused, because no runtime here measures energy.
    """

    max_ms: float | None = None
    confidence: float = 0.95
    max_macs: float | None = None
    max_params: float | None = None
    statistic: str = "p50"
    max_memory_mb: float | None = None
    max_energy_mj: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.bounds.items():
            if not (isfinite(value) and value > 0):
                raise UsageError(f"{name.replace('_', '-')} must be a positive number, not {value}")
        if self.max_energy_mj is not None:
            raise UsageError(
                "max-energy-mj cannot be promised: no runtime here measures energy; bound the time with --max-ms or "
                "the work with --max-macs"
            )
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence must lie between 0 and 1, not {self.confidence}")

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that were asked for."""
        return {name: value for name in BOUNDS if (value := getattr(self, name)) is not None}

    @property
    def names(self) -> list[str]:
        """The bounds for a file's name: ``ms2``, ``macs2000000``."""
        return [f"{name.removeprefix('max_').replace('_', '')}{value:.12g}" for name, value in self.bounds.items()]

    @property
    def options(self) -> list[str]:
        """The words of a command that asks for the same."""
        given = {**self.bounds, "statistic": self.statistic, "confidence": self.confidence}
        texts = {name: value if isinstance(value, str) else f"{value:.12g}" for name, value in given.items()}
        return [word for name, text in texts.items() for word in (f"--{name.replace('_', '-')}", text)]


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
    """A space, what is maximised, and what must hold.

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
    ) -> None:
        if constraints.max_ms is not None and latency is None:
            raise UsageError("a latency bound needs a latency model: profile a target first")
        self.codec, self.constraints = codec, constraints
        self._accuracy, self._latency = accuracy, latency
        self._deviations = float(norm.ppf(constraints.confidence))
        self._counts: dict[str, Callable[[Population], np.ndarray]] = {
            "max_macs": codec.macs,
            "max_params": codec.params,
            "max_memory_mb": lambda population: codec.memory(population, batch, precision) / 1e6,
        }

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
        for name, count in self.counts(population).items():
            violation += np.maximum(count / bounds.bounds[name] - 1, 0)
        return latency, upper, np.nan_to_num(violation, nan=np.inf)

    def counts(self, population: Population) -> dict[str, np.ndarray]:
        """What every member has of what is bounded besides latency, by the bound's name."""
        return {name: count(population) for name, count in self._counts.items() if name in self.constraints.bounds}

    def upper(self, population: Population) -> np.ndarray:
        """Upper latency bound in ms of every member."""
        upper = self._bounds(population)[1]
        if upper is None:
            raise UsageError("this problem has no latency model")
        return upper
