"""Whole fronts: no worse than a search for each budget, for one device and for several."""

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.search import Constraints, Problem, find_fronts, pick, search
from ofa_deploy.search.front import undominated
from ofa_deploy.search.problem import Device
from ofa_deploy.space import Population, PopulationCodec, load_space

CODEC = PopulationCodec(load_space("tiny_16"))
EVEN = Constraints(confidence=0.5)


def additive(seed: int, scale: float):
    table = np.append(np.random.default_rng(seed).uniform(0.5, 1.5, len(CODEC.ops)) * scale, 0.0)
    return lambda population: table[CODEC.op_ids(population)].sum(axis=0)


def accuracy(population: Population) -> np.ndarray:
    return 0.3 + CODEC.macs(population) / 1e8 + additive(1, 0.01)(population)


def curved(population: Population) -> np.ndarray:
    return 1 - np.exp(-additive(1, 0.1)(population))


def latency(seed: int, noise: float = 0.05):
    blocks = additive(seed, 0.01)

    def predict(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean = CODEC.macs(population) / 1e6 + blocks(population)
        return mean, noise * mean

    return predict


PHONE, PI = latency(2), latency(3)


def best_within(front, name, budget):
    return max(p.accuracy for p in front if p.upper_ms[name] <= budget)


def test_the_front_of_a_sum_over_blocks_is_optimal_at_every_budget() -> None:
    found = find_fronts(CODEC, accuracy, {"phone": PHONE}, EVEN, points=5)
    assert len(found.joint) == 5
    for row in found.joint:
        budget = row.budgets_ms["phone"]
        proven = search(Problem(CODEC, accuracy, PHONE, EVEN.within(budget)), strategy="exact")
        assert proven.proven
        assert row.best.accuracy == pytest.approx(proven.bound, abs=1e-9)
        assert best_within(found.fronts["phone"], "phone", budget) == row.best.accuracy


def test_no_worse_than_separate_searches_where_nothing_adds_up() -> None:
    sure = Constraints(confidence=0.95, max_macs=1.5e6)
    found = find_fronts(CODEC, curved, {"phone": PHONE}, sure, points=4, seed=1)
    assert len(found.joint) == 4
    for row in found.joint:
        alone = search(Problem(CODEC, curved, PHONE, sure.within(row.budgets_ms["phone"])), seed=1)
        assert row.best.accuracy >= alone.best.accuracy - 1e-4
        assert CODEC.macs(CODEC.encode([row.best.arch]))[0] <= 1.5e6


def test_a_front_rises_in_both_and_keeps_its_numbers() -> None:
    front = find_fronts(CODEC, curved, {"phone": PHONE}, Constraints(), points=3).fronts["phone"]
    assert len(front) >= 10
    uppers, accuracies = [p.upper_ms["phone"] for p in front], [p.accuracy for p in front]
    assert uppers == sorted(uppers)
    assert (np.diff(accuracies) > 0).all()
    problem = Problem(CODEC, curved, PHONE, Constraints())
    again = problem.assess(CODEC.encode([p.arch for p in front]))
    assert uppers == pytest.approx(again.upper)
    assert [p.latency_ms["phone"] for p in front] == pytest.approx(again.latency)


def test_several_devices_in_one_search() -> None:
    found = find_fronts(CODEC, accuracy, {"phone": PHONE, "pi": PI}, EVEN, points=3)
    assert set(found.fronts) == {"phone", "pi"}
    assert len(found.joint) == 3
    for row in found.joint:
        mine, other = row.budgets_ms["phone"], row.budgets_ms["pi"]
        both = Problem(CODEC, accuracy, PHONE, EVEN.within(mine), others=[Device("pi", PI, other, 0.5)])
        assert row.best.accuracy == pytest.approx(search(both, strategy="exact").bound, abs=1e-9)
        assert row.best.upper_ms["pi"] <= other
        for name, model in (("phone", PHONE), ("pi", PI)):
            budget = row.budgets_ms[name]
            alone = search(Problem(CODEC, accuracy, model, EVEN.within(budget)), strategy="exact")
            assert best_within(found.fronts[name], name, budget) == pytest.approx(alone.bound, abs=1e-9)


def test_same_seed_same_front() -> None:
    one, two = (find_fronts(CODEC, curved, {"phone": PHONE}, Constraints(), points=3, seed=4) for _ in range(2))
    assert one.fronts == two.fronts
    assert len(one.fronts["phone"]) >= 10


def test_constraints_that_nothing_meets() -> None:
    with pytest.raises(InfeasibleBudget):
        find_fronts(CODEC, accuracy, {"phone": PHONE}, Constraints(max_params=1.0), points=3)


def test_one_budget_is_the_largest_subnets() -> None:
    found = find_fronts(CODEC, CODEC.macs, {"phone": latency(2, noise=0.0)}, EVEN, points=1)
    assert found.joint[0].best.accuracy == CODEC.macs(CODEC.encode([CODEC.space.largest]))[0]


def test_pick_takes_the_best_that_fit_and_searches_nothing() -> None:
    archs = [p.arch for p in find_fronts(CODEC, curved, {"phone": PHONE}, Constraints(), points=3).fronts["phone"]]
    problem = Problem(CODEC, curved, PHONE, Constraints(max_ms=0.5))
    found = pick(problem, archs)
    fits = problem.violation(CODEC.encode(archs)) == 0
    assert 0 < fits.sum() < len(archs)
    assert found.best.accuracy == curved(CODEC.encode(archs))[fits].max()
    assert found.evaluations == len(archs)
    with pytest.raises(InfeasibleBudget, match="--front"):
        pick(Problem(CODEC, curved, PHONE, Constraints(max_ms=1e-6)), archs)


def test_undominated_keeps_the_cheapest_of_equals() -> None:
    cost, value = np.array([3.0, 1.0, 2.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0, 2.0, 4.0])
    assert undominated(cost, value).tolist() == [3, 4, 0]
