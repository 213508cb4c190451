"""What a strategy works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ofa_deploy.search.assessed import Memory
from ofa_deploy.search.branch_and_bound import Solution, solve
from ofa_deploy.search.feasible import repair
from ofa_deploy.search.gate import Gate
from ofa_deploy.search.problem import Problem
from ofa_deploy.search.separable import Separable, Slots, separate
from ofa_deploy.search.surrogate import ELITE, fit_surrogate
from ofa_deploy.space import Population


@dataclass
class Setting:
    """A problem, what was seen of it, and the means to go on.

    Attributes:
        anchors: feasible subnets, from which there is always a way on.
        evaluations: how many subnets may be assessed in all, as far as that is known beforehand.
        rng: the only source of chance.
        patient: whether to go on where nothing better was found for long.
        population: how many subnets a strategy keeps, or asks for at a time; None: as many as it likes.
        course, acted: what a search by gradient has to tell of its way; see ``gradient.Belief``.
        proof: where the accuracy is a sum over blocks: the optimum, and the bound that proves it.
    """

    problem: Problem
    anchors: Population
    evaluations: int
    rng: np.random.Generator
    patient: bool = False
    population: int | None = None
    memory: Memory = field(init=False)
    proof: Solution | None = None
    course: list[dict[str, Any]] = field(default_factory=list)
    acted: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = Memory(len(self.problem.codec.choices))

    @cached_property
    def slots(self) -> Slots:
        """The genes of the space."""
        return Slots(self.problem.codec)

    @cached_property
    def cost(self) -> Separable:
        """Lower bounds of the constraints' excess as sums over blocks."""
        return separate(self.slots, self.problem.additive)

    def repaired(self, population: Population) -> Population:
        """Feasible subnets near the given ones."""
        return repair(self.problem.codec, self.feasible, population, self.anchors, self.rng)

    def random(self, count: int) -> Population:
        """Random feasible subnets."""
        return self.repaired(self.problem.codec.sample(count, self.rng))

    @cached_property
    def gate(self) -> Gate:
        """The constraints as look-ups."""
        return Gate(self.problem, workers=1)

    def feasible(self, population: Population) -> np.ndarray:
        """Whether all constraints hold, ``bool[N]``."""
        return self.gate.check(population).feasible

    def elites(self) -> tuple[Population, np.ndarray]:
        """The fittest feasible subnets with a known accuracy, at most ``ELITE`` of them, and their accuracies."""
        values = self.memory.values
        order = np.argsort(-values[:, 0], kind="stable")[:ELITE]
        order = order[(values[order, 4] == 0) & np.isfinite(values[order, 0])]
        return self.memory.rows[order], values[order, 1]

    def known(self) -> tuple[Population, np.ndarray]:
        """All subnets with a known accuracy, feasible or not, and their accuracies."""
        accuracy = self.memory.values[:, 1]
        return self.memory.rows[np.isfinite(accuracy)], accuracy[np.isfinite(accuracy)]

    def surrogate(self, everywhere: bool = False) -> Separable:
        """A sum over blocks that is near the accuracy of the elites, or ``everywhere`` of all that is known."""
        return fit_surrogate(self.slots, *(self.known() if everywhere else self.elites()))

    def solved(self, score: Separable, keep: int) -> Solution:
        """The best feasible subnets by a sum over blocks."""
        return solve(score, self.tightened(), keep, self.feasible)

    def tightened(self) -> Separable:
        """The constraints with what they exceed their lower bounds by, so that enough of the solutions are feasible."""
        rows = self.memory.best(64)
        missing = self.problem.excess(rows) - self.problem.additive(rows)
        return self.cost.shifted(np.nan_to_num(np.median(missing, axis=0)))
