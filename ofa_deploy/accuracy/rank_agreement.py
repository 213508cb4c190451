"""How far a ranking of subnets can be trusted: against the same networks, trained alone.

Inherited weights may order subnets otherwise than training each of them would (Yu et al., "Evaluating the search phase
of neural architecture search", ICLR 2020, §4). Training is noisy too: two seeds do not agree with each other entirely,
and no score can be asked to agree with one seed better than another seed does. That is the ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles


def agreement(scores: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Kendall's τ of one score with the labels of every seed, averaged, with a 95 % bootstrap interval over networks.

    Args:
        scores: ``float[N]``, of N networks.
        labels: ``float[S, N]``, their accuracies when trained alone, by seed.

    Returns:
        ``tau``, ``low``, ``high``; NaN where a ranking cannot be compared, such as one of equal scores.
    """
    return _interval(np.mean([_resampled(scores, label, seed) for label in labels], axis=0))


def ceiling(labels: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Kendall's τ between the labels of every two seeds, averaged; as ``agreement``.

    Args:
        labels: ``float[S, N]``, S at least 2.
    """
    pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
    return _interval(np.mean([_resampled(labels[i], labels[j], seed) for i, j in pairs], axis=0))


def ranking_audit(networks: Sequence[dict[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Every score against training alone.

    Args:
        networks: of each, ``alone``: accuracies by seed; ``scores``: by name, with ``inherited`` among them, the
            accuracy with the supernet's weights, a fraction. Where some have more seeds than others, scores are
            compared with the seeds that all have, and the ceiling is that of those that have the most.

    Returns:
        ``networks``: how many; ``seeds`` that all have; ``repeated``: how many the ceiling rests on; ``ceiling``;
        ``scores``: by name ``tau``, ``low``, ``high``; ``gap``: mean and extremes of inherited minus alone, fractions.
    """
    seeds = [len(network["alone"]) for network in networks]
    labels = np.array([network["alone"][: min(seeds)] for network in networks], dtype=float).T
    repeated = np.array([network["alone"] for network in networks if len(network["alone"]) == max(seeds)]).T
    columns = {name: np.array([n["scores"][name] for n in networks], dtype=float) for name in networks[0]["scores"]}
    gaps = columns["inherited"] - np.array([np.mean(network["alone"]) for network in networks])
    return {
        "networks": len(networks),
        "seeds": len(labels),
        "repeated": repeated.shape[1] if len(repeated) > 1 else 0,
        "ceiling": ceiling(repeated, seed) if len(repeated) > 1 else None,
        "scores": {name: agreement(column, labels, seed) for name, column in columns.items()},
        "gap": {"mean": float(gaps.mean()), "least": float(gaps.min()), "most": float(gaps.max())},
    }


def rise(before: np.ndarray, after: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """By how much Kendall's τ with the labels grows from one score to another, and that growth's standard error.

    Args:
        before, after: ``float[N]``, of the same networks.
        labels: ``float[N]``.
    """
    gains = _resampled(after, labels, seed) - _resampled(before, labels, seed)
    return float(gains[0]), float(np.nanstd(gains[1:])) if not np.isnan(gains).all() else np.nan


def _resampled(one: np.ndarray, other: np.ndarray, seed: int) -> np.ndarray:
    """Kendall's τ-b of two scores of N networks, and of as many networks drawn with replacement, ``RESAMPLES`` times:
    ``float[1 + RESAMPLES]``, the first over the networks themselves."""
    count, rng = len(one), np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
    times = np.concatenate([np.ones((1, count)), drawn])  # how often each network is in
    first, second = (np.sign(score[:, None] - score[None, :]) for score in (one, other))
    pairs = (((times @ signs) * times).sum(1) for signs in (first * second, first**2, second**2))
    agreeing, of_first, of_second = pairs
    with np.errstate(invalid="ignore"):  # NaN where all are equal
        return agreeing / np.sqrt(of_first * of_second)


def _interval(taus: np.ndarray) -> dict[str, float]:
    low, high = np.nanpercentile(taus, INTERVAL) if not np.isnan(taus).all() else (np.nan, np.nan)
    return {"tau": float(taus[0]), "low": float(low), "high": float(high)}
