"""How far predictions can be trusted: statistics over networks that took no part in fitting."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 300


def audit_statistics(
    predicted: np.ndarray, std: np.ndarray, measured: np.ndarray, confidence: float = 0.95
) -> dict[str, Any]:
    """Errors of predictions against measurements; all shares and errors are fractions.

    Args:
        predicted, std, measured: ms, ``[N]`` each.
        confidence: of the one-sided upper bound whose coverage is counted.

    Returns:
        ``mape``, ``bias`` (mean signed relative error), ``spearman``, ``kendall`` (None under 3 networks),
        ``within_5``, ``within_10``, ``coverage_95`` (share of measurements under the bound).
    """
    error = (predicted - measured) / measured
    ranked = len(measured) > 2
    upper = predicted + stats.norm.ppf(confidence) * std
    return {
        "mape": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "spearman": float(stats.spearmanr(predicted, measured).statistic) if ranked else None,
        "kendall": float(stats.kendalltau(predicted, measured).statistic) if ranked else None,
        "within_5": float((np.abs(error) <= 0.05).mean()),
        "within_10": float((np.abs(error) <= 0.10).mean()),
        "coverage_95": float((measured <= upper).mean()),
    }


def repeatability(rounds: list[list[float]]) -> float:
    """How well measurements repeat themselves: mean relative difference between odd and even rounds' medians.

    Args:
        rounds: per network, the medians of its rounds in ms.
    """
    halves = [(np.median(one[::2]), np.median(one[1::2])) for one in rounds if len(one) > 1]
    return float(np.mean([abs(a - b) / b for a, b in halves])) if halves else float("nan")


def confidence_interval(
    timings: list[list[float]], statistic: str, session_std: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Between which latencies, in ms, another session's measurement of a network is expected.

    Args:
        timings: of the rounds that count, ms; bootstrapped round by round, since timings within one are alike.
        statistic: ``p50``, ``p90`` or ``p99``.
        session_std: by how much sessions differ, a fraction; see ``LatencyModel``.
    """
    rounds, draw = len(timings), np.random.default_rng(0)
    share = float(statistic[1:]) / 100

    def of(used: np.ndarray) -> float:
        chosen = [timings[i] for i in used]
        if statistic == "p50":
            return float(np.median([np.median(bursts) for bursts in chosen]))
        return float(np.quantile(np.concatenate(chosen), share))

    spread = np.std(np.log([of(draw.integers(0, rounds, rounds)) for _ in range(RESAMPLES)]))
    reach = stats.norm.ppf((1 + confidence) / 2) * np.hypot(spread, session_std)
    value = of(np.arange(rounds))
    return float(value * np.exp(-reach)), float(value * np.exp(reach))
