"""Gates: conditions on a bundle's report that decide whether a pipeline passes.

Latencies are in ms, accuracies fractions of 1, sizes in MB of 10⁶ bytes; what is compared with an earlier release is a
ratio (``baseline.latency``, ``baseline.size``: now over then) or a difference (``baseline.accuracy``: now less then).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

CHECK = re.compile(r"\s*([a-z][a-z0-9_.]*)\s*(<=|>=|<|>)\s*([-+0-9.eE]+|budget)\s*")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
BASELINE = "baseline."


def _at(*path: str) -> Callable[[Mapping[str, Any]], float | None]:
    def value(report: Mapping[str, Any]) -> float | None:
        found: Any = report
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    return value


def _latency_error(report: Mapping[str, Any]) -> float | None:
    found = _at("latency", "error_pct")(report)
    return None if found is None else abs(found) / 100


def _size_mb(report: Mapping[str, Any]) -> float | None:
    found = _at("size_bytes")(report)
    return None if found is None else found / 1e6


METRICS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    **{f"latency.{name}": _at("latency", "measured_ms", name) for name in ("p50", "p90", "p99")},
    "latency.error": _latency_error,
    "accuracy.measured": _at("accuracy", "measured"),
    "accuracy.drop": _at("accuracy", "drop"),
    "parity.max_abs": _at("parity", "max_abs"),
    "parity.top1_agreement": _at("parity", "top1_agreement"),
    **{f"audit.{n}": _at("audit", n) for n in ("within_5", "within_10", "mape", "bias", "spearman", "coverage_95")},
    "size_mb": _size_mb,
    "memory_mb": _at("subnet", "memory_mb"),
    "params": _at("subnet", "params"),
    "macs": _at("subnet", "macs"),
    **{f"{BASELINE}{name}": _at("baseline", name) for name in ("latency", "accuracy", "size")},
}


class Check(NamedTuple):
    """``metric sign bound``; the bound is a number, or the budget that the report was asked for."""

    metric: str
    sign: str
    bound: float | None


class Verdict(NamedTuple):
    """What became of a gate on one bundle.

    Attributes:
        passed: None where there is no earlier release that it could be compared with.
        why: in words.
    """

    gate: str
    bundle: str
    value: float | None
    passed: bool | None
    why: str


def parse_check(text: str) -> Check:
    """Read ``latency.p50 <= 15``.

    Raises:
        ValueError: it is no such condition; lists what there is to check.
    """
    found = CHECK.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no gate; write one as: latency.p50 <= 15, accuracy.drop <= 0.005")
    metric, sign, bound = found.groups()
    if metric not in METRICS:
        raise ValueError(f"there is no {metric!r} to check; there are {', '.join(METRICS)}")
    try:
        return Check(metric, sign, None if bound == "budget" else float(bound))
    except ValueError as error:
        raise ValueError(f"{bound!r} in the gate {text!r} is not a number") from error


def judge(text: str, bundle: str, report: Mapping[str, Any]) -> Verdict:
    """Whether a report passes a gate. What was not measured does not pass."""
    metric, sign, bound = parse_check(text)
    value = METRICS[metric](report)
    limit = bound if bound is not None else _at("budget", "max_ms")(report)
    if value is None:
        if metric.startswith(BASELINE) and not report.get("baseline"):
            return Verdict(text, bundle, None, None, "no earlier bundle to compare with")
        return Verdict(text, bundle, None, False, f"{metric} was not measured")
    if limit is None:
        return Verdict(text, bundle, value, False, "the bundle has no latency budget")
    passed = OPERATORS[sign](value, limit)
    return Verdict(text, bundle, value, passed, f"{metric} is {value:.6g}, {'' if passed else 'not '}{sign} {limit:g}")
