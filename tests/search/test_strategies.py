"""What every strategy promises: one suite over all of them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleBudget, OfaDeployError, UsageError
from ofa_deploy.search import STRATEGIES, AskTell, Belief, Constraints, Device, Problem, compare, fastest, search
from ofa_deploy.search.separable import Separable, separate
from ofa_deploy.space import Population, PopulationCodec, load_space

CODEC = PopulationCodec(load_space("tiny_16"))
TABLE = np.append(np.random.default_rng(1).uniform(0.01, 0.05, len(CODEC.ops)), 0.0)
BUDGET = 0.5
everyone = pytest.mark.parametrize("strategy", STRATEGIES)


def additive(population: Population) -> np.ndarray:
    return TABLE[CODEC.op_ids(population)].sum(axis=0)


def accuracy(population: Population) -> np.ndarray:
    sums = additive(population)
    return 1 - np.exp(-sums) + 0.02 * np.sin(40 * sums)


def latency(population: Population) -> tuple[np.ndarray, np.ndarray]:
    mean = CODEC.macs(population) / 1e6
    return mean, 0.05 * mean


def gradient(cost: Separable, seed: int) -> Iterator[Belief]:
    """Beliefs as if they had been learned; what really learns has tests of its own in tests/differentiable."""
    rng = np.random.default_rng(seed)
    for step in (1, 2):
        worth = replace(separate(cost.slots, lambda rows: additive(rows)[:, None]), spread=np.ones(1))
        rows = CODEC.sample(9, rng)
        figures = {"step": step, "loss": 1.0, "entropy": 0.5, "skipped": 0.5, "excess": [0.0] * cost.constant.shape[1]}
        yield Belief(worth, rows[:1], rows[1:], figures, [])


def problem(score=accuracy, **bounds) -> Problem:
    return Problem(CODEC, score, latency, Constraints(**{"max_ms": BUDGET, **bounds}), gradient=gradient)


@everyone
def test_same_seed_same_answer_within_the_budget(strategy: str) -> None:
    one, two = (search(problem(), 3, strategy, evaluations=600) for _ in range(2))
    assert [p.arch for p in one.finalists] == [p.arch for p in two.finalists]
    assert (one.evaluations, one.strategy) == (two.evaluations, strategy)
    assert one.evaluations <= 600
    assert one.finalists
    assert all(p.upper_ms <= BUDGET for p in one.finalists)
    assert [s.accuracy for s in one.trace] == sorted(s.accuracy for s in one.trace)
    assert one.trace[-1].accuracy == one.best.accuracy


@everyone
def test_asks_for_new_subnets_and_takes_what_is_told(strategy: str) -> None:
    asking, seen = AskTell(problem(), strategy, seed=1, evaluations=400), set()
    for _ in range(6):
        rows = asking.ask()
        keys = {bytes(row) for row in rows}
        assert len(keys) == len(rows)
        assert not keys & seen
        assert (rows == CODEC.canonicalise(rows)).all()
        seen |= keys
        asking.tell(np.concatenate([rows, rows]), problem().assess(np.concatenate([rows, rows])))
    assert len(asking.memory) == len(seen) > 0


@everyone
def test_nan_is_never_chosen(strategy: str) -> None:
    def broken(population: Population) -> np.ndarray:
        odd = population.sum(axis=1) % 2 == 1
        return np.where(odd, accuracy(population), np.nan)

    best = search(problem(broken), 0, strategy, evaluations=500).best
    assert CODEC.encode([best.arch]).sum() % 2 == 1
    assert np.isfinite(best.accuracy)


@everyone
def test_a_predictor_that_knows_nothing_is_an_error(strategy: str) -> None:
    with pytest.raises(OfaDeployError, match="no number for any of"):
        search(problem(lambda rows: np.full(len(rows), np.nan)), 0, strategy, evaluations=300)


@everyone
def test_a_predictor_that_raises_is_one_clear_error(strategy: str) -> None:
    def raising(population: Population) -> np.ndarray:
        raise RuntimeError("no such layer")

    with pytest.raises(OfaDeployError, match=r"the accuracy model failed on \d+ subnets: RuntimeError: no such layer"):
        search(problem(raising), 0, strategy, evaluations=300)


@everyone
def test_infeasible_is_an_error_and_the_fastest_alone_is_an_answer(strategy: str) -> None:
    row, least = fastest(problem())
    with pytest.raises(InfeasibleBudget, match="the fastest needs"):
        search(problem(max_ms=0.999 * least), 0, strategy)
    best = search(problem(max_ms=least), 0, strategy, evaluations=400).best
    assert best.arch == CODEC.decode(row[None])[0]


@everyone
def test_trivially_feasible(strategy: str) -> None:
    result = search(problem(max_ms=1e9), 0, strategy, evaluations=800)
    assert result.best.accuracy > np.quantile(accuracy(CODEC.sample(2000, np.random.default_rng(2))), 0.95)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "random"])
def test_learns_more_than_chance(strategy: str) -> None:
    smooth = problem(lambda rows: 1 - np.exp(-additive(rows)))
    mine, random = (
        np.mean([search(smooth, seed, name, evaluations=1000).best.accuracy for seed in range(3)])
        for name in (strategy, "random")
    )
    assert mine >= random


@pytest.mark.parametrize("budget", [0.25, 0.5, 1.0])
def test_exact_proves_the_optimum_and_evolution_reaches_it(budget: float) -> None:
    exact = search(problem(additive, max_ms=budget), 0, "exact", evaluations=20_000)
    assert exact.proven
    assert exact.regret == pytest.approx(0, abs=1e-12)
    pool = np.unique(CODEC.sample(100_000, np.random.default_rng(4)), axis=0)
    fits = problem(additive, max_ms=budget).violation(pool) == 0
    assert exact.best.accuracy >= additive(pool[fits]).max() - 1e-12
    assert exact.best.upper_ms <= budget
    found = search(problem(additive, max_ms=budget), 1, "evolution", evaluations=3000)
    assert found.best.accuracy >= 0.999 * exact.best.accuracy


def test_bounds_in_both_directions_and_several_devices() -> None:
    def other(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean = CODEC.params(population) / 1e4
        return mean, 0.02 * mean

    bounds = Constraints(max_ms=0.6, min_macs=0.2e6, max_layers=7, max_large_kernels=0)
    both = Problem(CODEC, accuracy, latency, bounds, others=[Device("phone", other, 1.6)])
    best = CODEC.encode([search(both, 0, evaluations=2000).best.arch])
    assert both.names == ["max_ms", "max_ms@phone", "max_layers", "max_large_kernels", "min_macs"]
    assert (both.excess(best) <= 0).all()
    assert CODEC.macs(best)[0] >= 0.2e6
    with pytest.raises(InfeasibleBudget, match="max_ms@phone"):
        search(Problem(CODEC, accuracy, latency, bounds, others=[Device("phone", other, 1e-3)]))
    with pytest.raises(InfeasibleBudget, match=r"the largest has .* M MACs \(bound 1e\+06\)"):
        search(Problem(CODEC, accuracy, None, Constraints(min_macs=1e12)))


def test_compare_at_equal_evaluations() -> None:
    found = compare(problem(), ["random", "evolution"], seeds=range(3), evaluations=400)
    random, evolution = found
    assert random.gain is None
    assert evolution.gain is not None
    assert evolution.evaluations == random.evaluations == 400
    assert evolution.best.low <= evolution.best.mean <= evolution.best.high
    assert 0 < evolution.hypervolume.mean <= 1
    means = [step.mean for step in evolution.curve if step]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(evolution.best.mean)
    with pytest.raises(UsageError, match="exactly one"):
        compare(problem(), ["random"], [0], 10, 1.0)


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(UsageError, match="no strategy 'annealing'; there are evolution, exact"):
        search(problem(), strategy="annealing")
