"""How far predictions can be trusted: statistics over networks that took no part in fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

RESAMPLES = 300
TRUSTED = 0.02  # mean error that is good on any machine
NOISY = 1.1  # times the repeatability of measurements: no prediction can be told from a better one below that

WORDS = {
    "trusted": "trust it: predictions are as good as measurements repeat themselves",
    "usable": "usable: predictions are within 10 %, and finalists are measured anyway",
}


def audit_statistics(
    predicted: np.ndarray, std: np.ndarray, measured: np.ndarray, confidence: float = 0.95
) -> dict[str, Any]:
    """Errors of predictions against measurements; all shares and errors are fractions.

    Args:
        predicted, std, measured: ms, ``[N]`` each.
        confidence: of the one-sided upper bound whose coverage is counted.

    Returns:
        ``mape``, ``bias`` (mean signed relative error), ``spearman``, ``kendall`` (None where nothing can be ranked:
        under 3 networks, or all alike), ``within_5``, ``within_10``, ``coverage_95`` (share of measurements under the
        bound).
    """
    from scipy import stats  # most of a second, which predictions do without

    error = (predicted - measured) / measured
    ranked = len(measured) > 2 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    upper = predicted + NormalDist().inv_cdf(confidence) * std
    return {
        "mape": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "spearman": float(stats.spearmanr(predicted, measured).statistic) if ranked else None,
        "kendall": float(stats.kendalltau(predicted, measured).statistic) if ranked else None,
        "within_5": float((np.abs(error) <= 0.05).mean()),
        "within_10": float((np.abs(error) <= 0.10).mean()),
        "coverage_95": float((measured <= upper).mean()),
    }


def repeatability(halves: Sequence[Sequence[float]]) -> float:
    """How well measurements repeat themselves: mean relative difference between two halves of each.

    Args:
        halves: per network, its latency in ms by the odd and by the even rounds.
    """
    return float(np.mean([abs(odd - even) / even for odd, even in halves]))


def audit_summary(networks: Sequence[Mapping[str, Any]], n_fit: int) -> dict[str, Any]:
    """Everything that an audit says, from the networks that it measured.

    Args:
        networks: each with ``predicted_ms`` and ``std_ms`` of the model, ``table_ms`` and ``table_std_ms`` of the sum
            of its blocks (None without a table), ``measured_ms``, and that by its odd and by its even rounds alone,
            ``halves_ms``.
        n_fit: how many other networks the model was fitted on.

    Returns:
        ``status`` (``trusted``, ``usable`` or ``not trusted``), ``n_fit``, ``n_heldout``, ``repeatability`` and the
        ``audit_statistics`` of the model; the same of the sum of blocks, which is fitted on no network, under
        ``table_only``; and the ``verdict`` in words.
    """
    common = {"n_heldout": len(networks), "repeatability": repeatability([one["halves_ms"] for one in networks])}
    model = {"n_fit": n_fit, **common, **_errors(networks, "predicted_ms", "std_ms")}
    covered = all(one["table_ms"] is not None for one in networks)
    table_only = {"n_fit": 0, **common, **_errors(networks, "table_ms", "table_std_ms")} if covered else None
    return {"status": _status(model), **model, "table_only": table_only, "verdict": _verdict(model)}


def _errors(networks: Sequence[Mapping[str, Any]], mean: str, std: str) -> dict[str, Any]:
    predicted, deviation, measured = (np.array([one[name] for one in networks]) for name in (mean, std, "measured_ms"))
    return audit_statistics(predicted, deviation, measured)


def _verdict(audit: Mapping[str, Any]) -> str:
    """The statistics of an audit in words."""
    mape, noise, covered = audit["mape"], audit["repeatability"], audit["coverage_95"]
    bound = "the 95 % bound holds" if covered >= 0.9 else f"the 95 % bound held for only {100 * covered:.0f} %"
    trust = WORDS.get(_status(audit)) or f"do not trust it: {_cure(audit)}"
    return f"{trust}; mean error {100 * mape:.1f} % (repeatability {100 * noise:.1f} %), {bound}"


def _status(audit: Mapping[str, Any]) -> str:
    good = max(TRUSTED, NOISY * audit["repeatability"])
    if audit["mape"] <= good and audit["within_5"] >= 0.95:
        return "trusted"
    return "usable" if audit["within_10"] >= 0.9 else "not trusted"


def _cure(audit: Mapping[str, Any]) -> str:
    """What to do about bad predictions, by what is wrong with them."""
    mape, bias, noise = audit["mape"], audit["bias"], audit["repeatability"]
    if noise >= mape / 2:
        return "measurements do not repeat themselves; measure on a quieter machine with `profile --refresh`"
    if abs(bias) >= 0.8 * mape:
        speed = "slower" if bias < 0 else "faster"
        return f"the device is {speed} than when it was profiled; measure it again with `profile --refresh`"
    return "give the model more whole networks to learn from with `profile --networks`"


def confidence_interval(
    timings: list[list[float]], statistic: str, session_std: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Between which latencies, in ms, another session's measurement of a network is expected.

    Args:
        timings: of the rounds that count, ms; bootstrapped round by round, since timings within one are alike.
        statistic: ``p50``, ``p90`` or ``p99``.
        session_std: by how much sessions differ, a fraction; see ``LatencyModel``.
    """
    values = np.array(timings)
    if statistic == "p50":
        values = np.median(values, axis=1, keepdims=True)
    share, rounds = float(statistic[1:]) / 100, len(values)
    drawn = values[np.random.default_rng(0).integers(0, rounds, (RESAMPLES, rounds))].reshape(RESAMPLES, -1)
    spread = np.std(np.log(np.quantile(drawn, share, axis=1)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * np.hypot(spread, session_std)
    value = np.quantile(values, share)
    return float(value * np.exp(-reach)), float(value * np.exp(reach))
