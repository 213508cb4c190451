"""How far predictions can be trusted: statistics over networks that took no part in fitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from ofa_deploy.json_types import JSON

RESAMPLES = 300
PREDICTED = ("predicted_ms", "std_ms", "table_ms", "table_std_ms")
TRUSTED = 0.02  # mean error that is good on any machine
NOISY = 1.1  # times the repeatability of measurements: no prediction can be told from a better one below that

WORDS = {
    "trusted": "trust it: predictions are as good as measurements repeat themselves",
    "usable": "usable: predictions are within 10 %, and finalists are measured anyway",
}


@dataclass(frozen=True)
class AuditStatistics:
    """Errors of predictions against measurements; all shares and errors are fractions.

    Attributes:
        mape, bias: mean absolute and mean signed relative error.
        spearman, kendall: rank correlations; None where nothing can be ranked: under 3 networks, or all alike.
        within_5, within_10: shares of predictions within ±5 % and ±10 %.
        coverage_95: share of measurements under the 95 % bound.
    """

    mape: float
    bias: float
    spearman: float | None
    kendall: float | None
    within_5: float
    within_10: float
    coverage_95: float


@dataclass(frozen=True)
class AuditedNetwork:
    """A network that was predicted, and then measured; ms.

    Attributes:
        predicted_ms, std_ms: of the model.
        table_ms, table_std_ms: of the sum of its blocks; None where no table has them all.
        halves_ms: the measurement by its odd and by its even rounds alone.
        as_profiled_ms: predicted at the level of the profile, where the prediction is at another.
    """

    key: str
    predicted_ms: float
    std_ms: float
    table_ms: float | None
    table_std_ms: float | None
    measured_ms: float
    halves_ms: list[float]
    flags: list[str] = field(default_factory=list)
    as_profiled_ms: float | None = None
    role: str = "audit"

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        last = {"as_profiled_ms"} if self.as_profiled_ms is not None else set()
        order = ("key", "role", *PREDICTED, "measured_ms", "halves_ms", "flags", *last)
        return {name: getattr(self, name) for name in order}


@dataclass(frozen=True)
class AuditErrors:
    """The errors of one way to predict.

    Attributes:
        n_fit: how many networks it was fitted on.
        n_heldout: how many it was tried on, which took no part in fitting.
        repeatability: mean relative difference between two halves of the measurements.
    """

    n_fit: int
    n_heldout: int
    repeatability: float
    errors: AuditStatistics

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        about = {"n_fit": self.n_fit, "n_heldout": self.n_heldout, "repeatability": self.repeatability}
        return {**about, **vars(self.errors)}


@dataclass(frozen=True)
class AuditSummary:
    """Everything that an audit says.

    Attributes:
        status: ``trusted``, ``usable`` or ``not trusted``.
        model: the errors of the model.
        table_only: those of the sum of blocks, which is fitted on no network; None where no table covers all networks.
        verdict: in words.
    """

    status: str
    model: AuditErrors
    table_only: AuditErrors | None
    verdict: str

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        alone = None if self.table_only is None else self.table_only.to_json()
        return {"status": self.status, **self.model.to_json(), "table_only": alone, "verdict": self.verdict}


def audit_statistics(
    predicted: np.ndarray, std: np.ndarray, measured: np.ndarray, confidence: float = 0.95
) -> AuditStatistics:
    """Errors of predictions against measurements.

    Args:
        predicted, std, measured: ms, ``[N]`` each.
        confidence: of the one-sided upper bound whose coverage is counted.
    """
    from scipy import stats  # most of a second, which predictions do without

    error = (predicted - measured) / measured
    ranked = len(measured) > 2 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    upper = predicted + NormalDist().inv_cdf(confidence) * std
    return AuditStatistics(
        mape=float(np.abs(error).mean()),
        bias=float(error.mean()),
        spearman=float(stats.spearmanr(predicted, measured).statistic) if ranked else None,
        kendall=float(stats.kendalltau(predicted, measured).statistic) if ranked else None,
        within_5=float((np.abs(error) <= 0.05).mean()),
        within_10=float((np.abs(error) <= 0.10).mean()),
        coverage_95=float((measured <= upper).mean()),
    )


def repeatability(halves: Sequence[Sequence[float]]) -> float:
    """How well measurements repeat themselves: mean relative difference between two halves of each.

    Args:
        halves: per network, its latency in ms by the odd and by the even rounds.
    """
    return float(np.mean([abs(odd - even) / even for odd, even in halves]))


def audit_summary(networks: Sequence[AuditedNetwork], n_fit: int) -> AuditSummary:
    """Everything that an audit says, from the networks that it measured.

    Args:
        n_fit: how many other networks the model was fitted on.
    """
    repeats = repeatability([one.halves_ms for one in networks])
    measured = np.array([one.measured_ms for one in networks])

    def errors(n_fit: int, mean: Sequence[float], std: Sequence[float]) -> AuditErrors:
        found = audit_statistics(np.array(mean), np.array(std), measured)
        return AuditErrors(n_fit, len(networks), repeats, found)

    model = errors(n_fit, [one.predicted_ms for one in networks], [one.std_ms for one in networks])
    sums = [one.table_ms for one in networks if one.table_ms is not None]
    stds = [one.table_std_ms for one in networks if one.table_std_ms is not None]
    alone = errors(0, sums, stds) if len(sums) == len(stds) == len(networks) else None
    return AuditSummary(_status(model), model, alone, _verdict(model))


def _verdict(audit: AuditErrors) -> str:
    """The statistics of an audit in words."""
    mape, noise, covered = audit.errors.mape, audit.repeatability, audit.errors.coverage_95
    bound = "the 95 % bound holds" if covered >= 0.9 else f"the 95 % bound held for only {100 * covered:.0f} %"
    trust = WORDS.get(_status(audit)) or f"do not trust it: {_cure(audit)}"
    return f"{trust}; mean error {100 * mape:.1f} % (repeatability {100 * noise:.1f} %), {bound}"


def _status(audit: AuditErrors) -> str:
    good = max(TRUSTED, NOISY * audit.repeatability)
    if audit.errors.mape <= good and audit.errors.within_5 >= 0.95:
        return "trusted"
    return "usable" if audit.errors.within_10 >= 0.9 else "not trusted"


def _cure(audit: AuditErrors) -> str:
    """What to do about bad predictions, by what is wrong with them."""
    mape, bias, noise = audit.errors.mape, audit.errors.bias, audit.repeatability
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
