"""Every subnet that a search has assessed, each once."""

from __future__ import annotations

import numpy as np

from ofa_deploy.search.problem import Assessment
from ofa_deploy.space import GENE, Population

FIELDS = ("fitness", "accuracy", "latency", "upper", "violation")


class Memory:
    """Assessed subnets in the order of assessment."""

    def __init__(self, genes: int) -> None:
        self._places: dict[bytes, int] = {}
        self._rows = np.zeros((1024, genes), dtype=GENE)
        self._values = np.zeros((1024, len(FIELDS)))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def rows(self) -> Population:
        """All subnets."""
        return self._rows[: len(self)]

    @property
    def values(self) -> np.ndarray:
        """What is known of them, ``float64[N, 5]`` in the order of ``FIELDS``; NaN where nothing is."""
        return self._values[: len(self)]

    @property
    def fitness(self) -> np.ndarray:
        """As ``Assessment.fitness``, of all subnets."""
        return self.values[:, 0]

    def fresh(self, population: Population) -> Population:
        """The members that were not assessed yet, each once."""
        new = {key: i for i, key in enumerate(map(bytes, population)) if key not in self._places}
        return population[list(new.values())]

    def add(self, population: Population, found: Assessment) -> None:
        """Remember what is new."""
        unknown = np.full(len(population), np.nan)
        latency, upper = (unknown if value is None else value for value in (found.latency, found.upper))
        values = np.stack([found.fitness, found.accuracy, latency, upper, found.violation], axis=1)
        new = {key: i for i, key in enumerate(map(bytes, population)) if key not in self._places}
        start, end, taken = len(self), len(self) + len(new), list(new.values())
        while end > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._values = np.concatenate([self._values, np.zeros_like(self._values)])
        self._rows[start:end], self._values[start:end] = population[taken], values[taken]
        self._places.update(zip(new, range(start, end), strict=True))

    def of(self, population: Population) -> np.ndarray:
        """What is known of assessed subnets, ``float64[N, 5]``; a subnet that was not assessed has fitness −inf."""
        places = np.array([self._places.get(bytes(row), -1) for row in population], dtype=int)
        values = self._values[places]
        values[places < 0] = [-np.inf, *[np.nan] * (len(FIELDS) - 1)]
        return values

    def best(self, count: int) -> Population:
        """The fittest, best first; of equals the one that was assessed first."""
        order = np.argsort(-self.fitness, kind="stable")
        return self.rows[order[:count]]
