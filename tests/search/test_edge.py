"""Networks that use a budget: they fit, lie near it, and are found where random networks do not lie."""

import numpy as np
import pytest

from ofa_deploy.errors import InfeasibleBudget
from ofa_deploy.search import Constraints, Problem, edge_of
from ofa_deploy.search.edge import FEW, NEAR
from ofa_deploy.space import PopulationCodec, load_space

CODEC = PopulationCodec(load_space("tiny_16"))
NOISE = np.random.default_rng(0).uniform(0.5, 1.5, len(CODEC.ops) + 1)
TABLE = NOISE * (CODEC.counts("macs") / 1e7 + 0.01)  # more work takes longer, but not in proportion
TABLE[-1] = 0.0  # an absent block
ALL = CODEC.everything(100_000)


def latency(population):
    mean = TABLE[CODEC.op_ids(population)].sum(axis=0)
    return mean, 0.02 * mean


def problem(max_ms, **bounds):
    return Problem(CODEC, CODEC.macs, latency, Constraints(max_ms=max_ms, **bounds))


WHOLE = problem(1.0).upper(ALL)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_what_is_compared_fits_and_uses_the_budget(share):
    asked = problem(float(np.quantile(WHOLE, share)))
    edge = edge_of(asked)
    assert (asked.violation(edge.rows) == 0).all()
    assert np.array_equal(edge.upper, asked.upper(edge.rows))
    assert len(np.unique(edge.rows, axis=0)) == len(edge.rows) >= min(FEW, int(share * len(ALL)) // 2)
    assert edge.binds
    near = edge.upper >= NEAR * asked.constraints.max_ms
    assert near.all() or len(edge.rows) <= FEW


def test_networks_near_a_tight_budget_are_found_where_random_ones_do_not_fit():
    asked = problem(float(np.quantile(WHOLE, 0.001)))
    edge = edge_of(asked, sampled=60)
    assert len(edge.rows) > 10 > 3 > edge.fit


def test_the_count_of_those_that_fit_is_that_of_uniform_genes():
    asked = problem(float(np.quantile(WHOLE, 0.3)))
    edge = edge_of(asked, sampled=20_000)
    share = (asked.violation(CODEC.sample(20_000, np.random.default_rng(7))) == 0).mean()
    assert edge.sampled == 20_000
    assert edge.fit / edge.sampled == pytest.approx(share, abs=0.02)


def test_where_all_fits_the_largest_networks_are_compared():
    edge = edge_of(problem(2 * WHOLE.max()))
    assert edge.fit == edge.sampled
    assert not edge.binds
    drawn = CODEC.macs(CODEC.sample(4096, np.random.default_rng(7)))
    assert CODEC.macs(edge.rows).min() > np.quantile(drawn, 0.85)
    assert CODEC.macs(edge.rows).max() == CODEC.macs(ALL).max()


def test_other_bounds_hold_too():
    most = float(np.quantile(CODEC.macs(ALL), 0.5))
    edge = edge_of(problem(float(np.quantile(WHOLE, 0.7)), max_macs=most))
    assert CODEC.macs(edge.rows).max() <= most


def test_the_same_seed_gives_the_same_networks():
    asked = problem(float(np.quantile(WHOLE, 0.3)))
    assert np.array_equal(edge_of(asked, 3).rows, edge_of(asked, 3).rows)
    assert not np.array_equal(edge_of(asked, 3).rows, edge_of(asked, 4).rows)


def test_a_budget_that_nothing_meets_is_refused():
    with pytest.raises(InfeasibleBudget, match="the fastest needs"):
        edge_of(problem(float(WHOLE.min()) / 2))
