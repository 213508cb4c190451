"""How far predictions can be trusted: statistics over networks that took no part in fitting."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


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
