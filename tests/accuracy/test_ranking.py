"""The ranking audit's statistics, on labels whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from ofa_deploy.accuracy.rank_agreement import agreement, ceiling, ranking_audit


def labels(noise, seeds=2, count=12):
    truth = np.linspace(0.90, 0.94, count)
    return truth, truth + np.random.default_rng(5).normal(0, noise, (seeds, count))


def test_equal_rankings_agree_entirely_and_opposite_ones_not_at_all():
    truth, exact = labels(0.0)
    assert agreement(3 * truth, exact)["tau"] == pytest.approx(1)
    assert agreement(-truth, exact) == pytest.approx({"tau": -1, "low": -1, "high": -1})
    assert ceiling(exact)["tau"] == pytest.approx(1)


def test_tau_is_scipys_with_ties_too():
    truth, noisy = labels(0.01, seeds=3)
    rounded = truth.round(2)
    expected = np.mean([kendalltau(rounded, label).statistic for label in noisy])
    assert agreement(rounded, noisy)["tau"] == pytest.approx(expected)


def test_noise_lowers_the_ceiling_and_a_perfect_score_is_not_far_below_it():
    truth, noisy = labels(0.01)
    top = ceiling(noisy)
    assert top["low"] < top["tau"] < 1
    assert top["low"] <= agreement(truth, noisy)["tau"] <= 1


def test_the_audit_states_every_score_and_the_gap():
    truth, noisy = labels(0.002)
    inherited = truth + 0.003
    networks = [
        {"alone": list(noisy[:, i]), "scores": {"inherited": inherited[i], "constant": 1.0}} for i in range(len(truth))
    ]
    found = ranking_audit(networks)
    assert (found["networks"], found["seeds"]) == (12, 2)
    assert found["scores"]["inherited"]["tau"] > 0.8
    assert np.isnan(found["scores"]["constant"]["tau"])
    assert found["gap"]["mean"] == pytest.approx(float((inherited - noisy.mean(0)).mean()))
    assert found["gap"]["least"] <= found["gap"]["mean"] <= found["gap"]["most"]


def test_one_seed_has_no_ceiling():
    truth, noisy = labels(0.002, seeds=1)
    networks = [{"alone": [noisy[0, i]], "scores": {"inherited": truth[i]}} for i in range(len(truth))]
    assert ranking_audit(networks)["ceiling"] is None


def test_the_ceiling_may_rest_on_fewer_networks():
    truth, noisy = labels(0.002)
    networks = [{"alone": list(noisy[: 1 + i % 2, i]), "scores": {"inherited": truth[i]}} for i in range(len(truth))]
    found = ranking_audit(networks)
    assert (found["networks"], found["seeds"], found["repeated"]) == (12, 1, 6)
    assert found["ceiling"] == ceiling(noisy[:, 1::2])
    assert found["scores"]["inherited"] == agreement(truth, noisy[:1])
