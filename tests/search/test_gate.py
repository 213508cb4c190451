from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.search import Constraints, Device, Gate, Problem
from ofa_deploy.search import gate as module
from ofa_deploy.space import Population, PopulationCodec, load_space

CODEC = PopulationCodec(load_space("small_28"))
RNG = np.random.default_rng(0)
TABLE = np.append(RNG.uniform(0.01, 0.05, len(CODEC.ops)), 0.0)
ROWS = CODEC.sample(20_000, RNG)


def latency(population: Population) -> tuple[np.ndarray, np.ndarray]:
    mean = TABLE[CODEC.op_ids(population)].sum(axis=0)
    return mean, mean * (0.02 + 0.03 * (population[:, 0] == 1))


def middle(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.6))


def both(feasible: np.ndarray) -> bool:
    """Whether both verdicts occur."""
    return bool(feasible.any() and not feasible.all())


def problem(**bounds) -> Problem:
    return Problem(CODEC, CODEC.macs, latency, Constraints(**bounds), batch=2)


BOUNDS = [
    {"max_ms": middle(latency(ROWS)[0])},
    {"max_ms": middle(latency(ROWS)[0]), "confidence": 0.5, "max_macs": middle(CODEC.macs(ROWS))},
    {"max_ms": middle(latency(ROWS)[0]), "confidence": 0.2, "min_params": middle(CODEC.params(ROWS)) / 2},
    {"max_memory_mb": middle(CODEC.memory(ROWS, 2)) / 1e6, "max_layers": 8},
    {"max_macs": middle(CODEC.macs(ROWS)), "min_macs": middle(CODEC.macs(ROWS)) / 2, "max_large_kernels": 1},
]


@pytest.mark.parametrize("bounds", BOUNDS, ids=lambda bounds: "-".join(bounds))
def test_the_verdicts_are_those_of_the_problem(bounds: dict[str, float]) -> None:
    asked = problem(**bounds)
    verdicts, excess = Gate(asked).check(ROWS), asked.excess(ROWS)
    assert (verdicts.feasible == (excess <= 0).all(axis=1)).all()
    assert 0 < verdicts.feasible.mean() < 1
    assert len(verdicts.again) < len(ROWS)
    assert np.allclose(verdicts.values["macs"], CODEC.macs(ROWS), rtol=1e-5)
    assert np.allclose(verdicts.values["params"], CODEC.params(ROWS), rtol=1e-5)
    assert np.allclose(verdicts.values["latency_ms"], latency(ROWS)[0], rtol=1e-5)
    assert bounds.get("confidence", 0.95) < 0.5 or (verdicts.excess <= excess + 1e-4).all()
    careful = Gate(asked).check(ROWS, deviations=True)
    assert (careful.feasible == verdicts.feasible).all()
    assert (careful.excess == excess).all()
    assert careful.counts == dict(zip(asked.names, (excess > 0).sum(axis=0).tolist(), strict=True))


def test_every_rejection_has_a_reason() -> None:
    asked = problem(max_ms=middle(latency(ROWS)[0]), max_macs=middle(CODEC.macs(ROWS)))
    verdicts = Gate(asked).check(ROWS)
    assert both(verdicts.feasible[:200])
    for i in range(200):
        reasons = verdicts.reasons(i)
        assert bool(reasons) != verdicts.feasible[i]
        assert all(excess > 0 for excess in reasons.values())


def test_rows_need_not_be_canonical_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 1000)
    asked = problem(max_ms=middle(latency(ROWS)[0]))
    raw = RNG.integers(0, CODEC.choices, (5000, len(CODEC.choices))).astype(np.int8)
    one, two = (Gate(asked, workers).check(raw) for workers in (1, 3))
    plain = Gate(asked).check(CODEC.canonicalise(raw))
    assert both(one.feasible)
    assert (one.feasible == two.feasible).all()
    assert (one.feasible == plain.feasible).all()
    assert (one.values["macs"] == plain.values["macs"]).all()


def test_small_tables_give_the_same_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problem(max_ms=middle(latency(ROWS)[0]), max_params=middle(CODEC.params(ROWS)))
    large = Gate(asked).check(ROWS)
    assert both(large.feasible)
    monkeypatch.setattr(module, "ENTRIES", 200)
    assert (Gate(asked).check(ROWS).feasible == large.feasible).all()


def test_at_the_bound_itself_a_subnet_is_feasible() -> None:
    for row in ROWS[:20]:
        macs = float(CODEC.macs(row[None])[0])
        assert Gate(problem(max_macs=macs)).check(row[None]).feasible[0]
        assert not Gate(problem(max_macs=macs - 1)).check(row[None]).feasible[0]


def test_a_latency_that_is_no_sum_over_blocks_is_looked_at_one_by_one() -> None:
    def curved(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean = latency(population)[0] ** 2
        return mean, 0 * mean

    bound = middle(curved(ROWS)[0])
    asked = Problem(CODEC, CODEC.macs, curved, Constraints(max_ms=bound, confidence=0.5))
    assert both(curved(ROWS)[0] <= bound)
    assert (Gate(asked).check(ROWS).feasible == (curved(ROWS)[0] <= bound)).all()


def test_several_devices() -> None:
    def slow(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean, std = latency(population)
        return 3 * mean, std

    bounds = Constraints(max_ms=middle(latency(ROWS)[0]))
    devices = [Device("slow", slow, 2.5 * bounds.max_ms), replace(Device("loose", slow, 1e9), confidence=0.5)]
    asked = Problem(CODEC, CODEC.macs, latency, bounds, others=devices)
    verdicts = Gate(asked).check(ROWS)
    excess = asked.excess(ROWS)
    assert (verdicts.feasible == (excess <= 0).all(axis=1)).all()
    assert both(verdicts.feasible)
    assert [bool((column > 0).any()) for column in excess.T] == [name != "max_ms@loose" for name in asked.names]
    assert ((excess > 0).sum(axis=1) == 1).any(), "a device may be the only one to refuse a subnet"
    assert set(verdicts.values) == {"latency_ms", "latency_ms@slow", "latency_ms@loose", "macs", "params"}
    assert verdicts.counts["max_ms@loose"] == 0


def test_an_empty_population() -> None:
    assert Gate(problem(max_ms=1)).check(ROWS[:0]).feasible.shape == (0,)
