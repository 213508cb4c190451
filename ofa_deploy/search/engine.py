"""Searching: a strategy asks, the problem answers, and the result says how good it can be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ofa_deploy.config import Plan
from ofa_deploy.errors import InfeasibleBudget, OfaDeployError
from ofa_deploy.search.assessed import Memory
from ofa_deploy.search.feasible import explain_infeasible, nearest_feasible
from ofa_deploy.search.problem import Assessment, Problem
from ofa_deploy.search.setting import Setting
from ofa_deploy.search.strategies import find_strategy
from ofa_deploy.space import Arch, Population
from ofa_deploy.threads import one_thread

EVALUATIONS = 20_000
MOST = 5_000_000  # where time is the limit: what is remembered must fit in memory
IDLE = 50  # questions in a row that were all answered before: nothing new comes of it
BATCH = 4096  # subnets assessed at once, so that a time limit is kept
DOUBT = 2.0  # standard errors of the surrogate that an estimated bound lies above its optimum


@dataclass(frozen=True)
class Point:
    """A subnet with its predictions: accuracy a fraction, latencies in ms."""

    arch: Arch
    accuracy: float
    latency_ms: float | None
    upper_ms: float | None


@dataclass(frozen=True)
class Step:
    """When a search had which best accuracy."""

    evaluations: int
    seconds: float
    accuracy: float


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: the most accurate feasible subnet.
        finalists: the best and its nearest rivals, feasible, most accurate first.
        front: subnets that no other assessed one beats in both accuracy and latency, fastest first.
        evaluations: distinct subnets assessed.
        seconds: wall time.
        strategy: what searched.
        bound: what no feasible subnet exceeds, if ``proven``; else an estimate of the most that one could reach: the
            optimum of the sum over blocks that fits the best subnets, and twice its standard error.
        proven: whether the bound is proven: the predicted accuracy is a sum over blocks.
        trace: every improvement.
        course, acted: of a search by gradient, its figures step by step and what its guards did; see ``Belief``.
    """

    best: Point
    finalists: list[Point]
    front: list[Point]
    evaluations: int
    seconds: float
    strategy: str
    bound: float
    proven: bool
    trace: list[Step]
    course: list[dict[str, Any]] = field(default_factory=list)
    acted: list[dict[str, Any]] = field(default_factory=list)

    @property
    def regret(self) -> float:
        """By how much the best may fall short of the best possible."""
        return max(self.bound - self.best.accuracy, 0.0)


class AskTell:
    """A search in the caller's hands: ``ask`` for subnets, assess them, ``tell`` what came out.

    Raises:
        InfeasibleBudget: no subnet meets the constraints; names the fastest one's latency.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: str = "evolution",
        seed: int = 0,
        evaluations: int = EVALUATIONS,
        patient: bool = False,
        population: int | None = None,
    ) -> None:
        """Start a strategy.

        Args:
            evaluations: how many subnets the caller means to assess in all.
            patient: whether to go on where nothing better was found for long.
            population: how many subnets the strategy keeps, or asks for at a time; as many as it likes by default.
        """
        run = find_strategy(strategy)
        anchors = nearest_feasible(problem)
        anchors = anchors[problem.violation(anchors) == 0]
        if not len(anchors):
            raise InfeasibleBudget(explain_infeasible(problem))
        self.setting = Setting(problem, anchors, evaluations, np.random.default_rng(seed), patient, population)
        self._questions: Iterator[Population] = run(self.setting)
        self._waiting = self.setting.memory.fresh(anchors)

    @property
    def memory(self) -> Memory:
        """Everything that was told."""
        return self.setting.memory

    def ask(self) -> Population:
        """Subnets that are not known yet; none when the strategy has nothing more to ask."""
        for _ in range(IDLE):
            if len(self._waiting):
                break
            asked = next(self._questions, None)
            if asked is None:
                break
            self._waiting = self.memory.fresh(self.setting.problem.codec.canonicalise(asked))
        return self._waiting[:BATCH]

    def tell(self, population: Population, found: Assessment) -> None:
        """What came out for subnets that were asked for."""
        self.memory.add(population, found)
        self._waiting = self.memory.fresh(self._waiting)


def search(
    problem: Problem,
    seed: int = 0,
    strategy: str = "evolution",
    evaluations: int | None = None,
    finalists: int = 4,
    time_limit: float | None = None,
    population: int | None = None,
) -> SearchResult:
    """Find the most accurate subnet that meets the constraints. The same seed gives the same answer, unless time is
    the limit.

    Args:
        problem: the space, the objective, the constraints.
        strategy: one of ``STRATEGIES``.
        evaluations: how many subnets to assess at most; 20 000 by default where there is no time limit.
        finalists: how many of the best to return.
        time_limit: seconds after which the best so far is returned.
        population: see ``AskTell``.

    Raises:
        InfeasibleBudget: no subnet meets the constraints; names the fastest one's latency.
        UsageError: there is no such strategy.
        OfaDeployError: the accuracy model failed, or has no number for any feasible subnet.
    """
    clock = _Clock(time_limit)
    limit = evaluations or (EVALUATIONS if time_limit is None else MOST)
    with one_thread():
        asking = AskTell(problem, strategy, seed, limit, time_limit is not None, population)
        while (left := limit - len(asking.memory)) > 0 and len(rows := asking.ask()[:left]):
            asking.tell(rows, problem.assess(rows))
            clock.note(asking.memory)
            if clock.over:
                break
        return _result(asking.setting, strategy, finalists, clock)


def planned(problem: Problem, plan: Plan, seed: int = 0) -> SearchResult:
    """Search as a plan says; see ``search``."""
    return search(
        problem, seed, plan.strategy, plan.evaluations, time_limit=plan.time_limit, population=plan.population
    )


@dataclass
class _Clock:
    limit: float | None
    start: float = field(default_factory=time.monotonic)
    trace: list[Step] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def over(self) -> bool:
        return self.limit is not None and self.seconds >= self.limit

    def note(self, memory: Memory) -> None:
        """Write down an improvement."""
        best = float(memory.fitness.max())
        if not self.trace or best > self.trace[-1].accuracy:
            self.trace.append(Step(len(memory), self.seconds, best))


def _result(setting: Setting, strategy: str, finalists: int, clock: _Clock) -> SearchResult:
    memory, problem = setting.memory, setting.problem
    values = memory.values
    order = np.argsort(-values[:, 0], kind="stable")
    order = order[(values[order, 4] == 0) & np.isfinite(values[order, 0])]
    if not len(order):
        raise OfaDeployError(f"the accuracy model gave no number for any of {len(memory)} subnets of {_name(problem)}")

    def points(indices: np.ndarray) -> list[Point]:
        numbers = [[None if np.isnan(v) else float(v) for v in values[i, 1:4]] for i in indices]
        archs = problem.codec.decode(memory.rows[indices])
        return [Point(arch, a or 0.0, ms, upper) for arch, (a, ms, upper) in zip(archs, numbers, strict=True)]

    best = points(order[:finalists])
    bound, proven = _bound(setting, best[0].accuracy)
    trace = [step for step in clock.trace if np.isfinite(step.accuracy)]
    told = (strategy, bound, proven, trace, setting.course, setting.acted)
    return SearchResult(best[0], best, points(_front(values)), len(memory), clock.seconds, *told)


def _name(problem: Problem) -> str:
    return problem.codec.space.name


def _bound(setting: Setting, best: float) -> tuple[float, bool]:
    if setting.proof is not None:
        return max(setting.proof.bound, best), True
    surrogate = setting.surrogate()
    estimate = setting.solved(surrogate, 1).bound + DOUBT * float(surrogate.error[0])
    return max(best, float(estimate)), False


def _front(values: np.ndarray) -> np.ndarray:
    """Positions of the subnets that are the most accurate of all that are as fast; [] without latencies."""
    known = np.flatnonzero(~np.isnan(values[:, 2]) & ~np.isnan(values[:, 1]))
    order = known[np.lexsort((-values[known, 1], values[known, 2]))]
    best = np.maximum.accumulate(np.concatenate([[-np.inf], values[order, 1]]))
    return order[values[order, 1] > best[:-1]]
