import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.search import Constraints, Problem, fastest, search
from ofa_deploy.space import Population, PopulationCodec, load_space

CODEC = PopulationCodec(load_space("tiny_16"))


def additive(seed: int, scale: float):
    """A random additive function of blocks: its optimum can be found by other means."""
    table = np.append(np.random.default_rng(seed).uniform(0.5, 1.5, len(CODEC.ops)) * scale, 0.0)
    return lambda population: table[CODEC.op_ids(population)].sum(axis=0)


def accuracy(population: Population) -> np.ndarray:
    return 1 - np.exp(-additive(1, 0.1)(population))


def latency(population: Population) -> tuple[np.ndarray, np.ndarray]:
    mean = CODEC.macs(population) / 1e6 + additive(2, 0.01)(population)
    return mean, 0.05 * mean


def everything(count: int = 200_000) -> Population:
    return np.unique(CODEC.sample(count, np.random.default_rng(5)), axis=0)


@pytest.mark.parametrize("budget", [0.3, 0.6, 1.2, 100.0])
def test_finds_what_sampling_most_of_the_space_finds(budget: float) -> None:
    problem = Problem(CODEC, accuracy, latency, Constraints(max_ms=budget))
    result = search(problem, seed=0)
    pool = problem.assess(everything())
    assert result.best.accuracy >= 0.998 * pool.fitness.max()
    assert result.best.upper_ms is not None
    assert result.best.upper_ms <= budget
    assert result.evaluations < 20_000


def test_same_seed_same_answer() -> None:
    problem = Problem(CODEC, accuracy, latency, Constraints(max_ms=0.5))
    first, second = search(problem, seed=3), search(problem, seed=3)
    assert [p.arch for p in first.finalists] == [p.arch for p in second.finalists]
    assert first.evaluations == second.evaluations


def test_confidence_tightens_the_bound() -> None:
    sure = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=0.25, confidence=0.99))).best
    even = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=0.25, confidence=0.5))).best
    assert sure.latency_ms < even.latency_ms <= 0.25
    assert even.upper_ms == pytest.approx(even.latency_ms)


def test_infeasible_names_the_fastest() -> None:
    problem = Problem(CODEC, accuracy, latency, Constraints(max_ms=0.0001))
    _, least = fastest(problem)
    assert least == pytest.approx(problem.upper(everything()).min(), rel=0.02)
    with pytest.raises(InfeasibleBudget, match=f"the fastest needs {least:.4g} ms"):
        search(problem)


def test_exactly_the_fastest_is_feasible() -> None:
    row, least = fastest(Problem(CODEC, accuracy, latency, Constraints()))
    result = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=least)))
    assert result.best.upper_ms == pytest.approx(least)
    assert result.best.arch == CODEC.decode(row[None])[0]


def test_macs_alone_need_no_latency_model() -> None:
    bound = 0.3e6
    best = search(Problem(CODEC, accuracy, None, Constraints(max_macs=bound))).best
    assert CODEC.macs(CODEC.encode([best.arch]))[0] <= bound
    assert best.latency_ms is None
    with pytest.raises(InfeasibleBudget, match="MACs"):
        search(Problem(CODEC, accuracy, None, Constraints(max_macs=10)))
    with pytest.raises(InfeasibleBudget, match="parameters"):
        search(Problem(CODEC, accuracy, None, Constraints(max_params=10)))


def test_memory_is_a_bound_like_any_other() -> None:
    sizes = CODEC.memory(everything(), 2) / 1e6
    bound = float(np.quantile(sizes, 0.3))
    best = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=100.0, max_memory_mb=bound), batch=2)).best
    assert CODEC.memory(CODEC.encode([best.arch]), 2)[0] / 1e6 <= bound
    pool = everything()[sizes <= bound]
    assert best.accuracy >= 0.998 * accuracy(pool).max()


def test_a_bound_below_the_smallest_names_what_it_needs() -> None:
    least = CODEC.memory(CODEC.encode([CODEC.space.smallest]))[0] / 1e6
    bounds = Constraints(max_memory_mb=0.9 * least, max_macs=1e9)
    with pytest.raises(InfeasibleBudget, match=f"{least:.4g} MB of memory .bound {0.9 * least:.4g}"):
        search(Problem(CODEC, accuracy, None, bounds))
    assert search(Problem(CODEC, accuracy, None, Constraints(max_memory_mb=least))).best.arch


def test_energy_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"no runtime here measures energy.*--max-ms"):
        Constraints(max_ms=1, max_energy_mj=5)
    with pytest.raises(UsageError, match="max-energy-mj must be a positive number"):
        Constraints(max_ms=1, max_energy_mj=float("nan"))


def test_constraints_as_the_words_of_a_command() -> None:
    bounds = Constraints(max_ms=0.125, max_macs=1_234_567, max_memory_mb=1.5, statistic="p90")
    words = "--max-ms 0.125 --max-macs 1234567 --max-memory-mb 1.5 --statistic p90 --confidence 0.95"
    assert " ".join(bounds.options) == words
    assert bounds.names == ["ms0.125", "macs1234567", "memorymb1.5"]


def test_nan_accuracies_never_win() -> None:
    def broken(population: Population) -> np.ndarray:
        return np.where(np.arange(len(population)) % 2, accuracy(population), np.nan)

    assert search(Problem(CODEC, broken, latency, Constraints(max_ms=1.0))).best.accuracy > 0


def test_the_front_rises() -> None:
    front = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=1.0))).front
    assert len(front) > 3
    assert all(a.latency_ms < b.latency_ms and a.accuracy < b.accuracy for a, b in pairwise(front))


def test_finalists_are_feasible_distinct_and_ordered() -> None:
    finalists = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=0.5)), finalists=6).finalists
    assert len({f.arch for f in finalists}) == 6
    assert [f.accuracy for f in finalists] == sorted((f.accuracy for f in finalists), reverse=True)
    assert all(f.upper_ms <= 0.5 for f in finalists)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_senseless_budgets(value: float) -> None:
    with pytest.raises(UsageError, match="max-ms must be a positive number"):
        Constraints(max_ms=value)
    with pytest.raises(UsageError, match="max-memory-mb must be a positive number"):
        Constraints(max_memory_mb=value)
    with pytest.raises(UsageError, match="confidence"):
        Constraints(max_ms=1, confidence=1.0)


def test_time_limit_still_answers() -> None:
    result = search(Problem(CODEC, accuracy, latency, Constraints(max_ms=0.5)), time_limit=0.0)
    assert result.best.upper_ms <= 0.5


def test_what_is_counted_of_a_space_goes_with_its_codec() -> None:
    codec = PopulationCodec(load_space("tiny_16"))
    counted = codec.counts("macs")
    assert codec.counts("macs") is counted
    assert codec.peaks is codec.peaks
    gone = weakref.ref(codec)
    del codec
    gc.collect()
    assert gone() is None
