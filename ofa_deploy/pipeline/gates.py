"""Gates: conditions on a bundle's report that decide whether a pipeline passes.

Latencies are in ms, accuracies fractions of 1, sizes in MB of 10⁶ bytes; what is compared with an earlier release is a
ratio (``baseline.latency``, ``baseline.size``: now over then) or a difference (``baseline.accuracy``: now less then).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import NamedTuple

from ofa_deploy.documents.audit_document import AuditFigures
from ofa_deploy.documents.report_document import Report
from ofa_deploy.documents.summary_document import Change
from ofa_deploy.json_types import JSON

CHECK = re.compile(r"\s*([a-z][a-z0-9_.]*)\s*(<=|>=|<|>)\s*([-+0-9.eE]+|budget)\s*")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
BASELINE = "baseline."


class Judged(NamedTuple):
    """What gates are about: a bundle's report, and what changed since an earlier release; None without one."""

    report: Report
    change: Change | None


def _latency_error(of: Judged) -> float | None:
    found = of.report.latency.error_pct
    return None if found is None else abs(found) / 100


def _size_mb(of: Judged) -> float | None:
    found = of.report.size_bytes
    return None if found is None else found / 1e6


def _audit(value: Callable[[AuditFigures], float | None]) -> Callable[[Judged], float | None]:
    return lambda of: None if of.report.audit is None else value(of.report.audit)


def _change(value: Callable[[Change], float | None]) -> Callable[[Judged], float | None]:
    return lambda of: None if of.change is None else value(of.change)


METRICS: dict[str, Callable[[Judged], float | None]] = {
    "latency.p50": lambda of: of.report.latency.measured("p50"),
    "latency.p90": lambda of: of.report.latency.measured("p90"),
    "latency.p99": lambda of: of.report.latency.measured("p99"),
    "latency.error": _latency_error,
    "accuracy.measured": lambda of: of.report.accuracy.measured,
    "accuracy.drop": lambda of: of.report.accuracy.drop,
    "parity.max_abs": lambda of: of.report.parity.max_abs,
    "parity.top1_agreement": lambda of: of.report.parity.top1_agreement,
    "audit.within_5": _audit(lambda audit: audit.within_5),
    "audit.within_10": _audit(lambda audit: audit.within_10),
    "audit.mape": _audit(lambda audit: audit.mape),
    "audit.bias": _audit(lambda audit: audit.bias),
    "audit.spearman": _audit(lambda audit: audit.spearman),
    "audit.coverage_95": _audit(lambda audit: audit.coverage_95),
    "size_mb": _size_mb,
    "memory_mb": lambda of: of.report.subnet.memory_mb,
    "params": lambda of: of.report.subnet.params,
    "macs": lambda of: of.report.subnet.macs,
    f"{BASELINE}latency": _change(lambda change: change.latency),
    f"{BASELINE}accuracy": _change(lambda change: change.accuracy),
    f"{BASELINE}size": _change(lambda change: change.size),
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
        near = get_close_matches(metric, METRICS, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no {metric!r} to check; there are {', '.join(METRICS)}{meant}")
    try:
        return Check(metric, sign, None if bound == "budget" else float(bound))
    except ValueError as error:
        raise ValueError(f"{bound!r} in the gate {text!r} is not a number") from error


def judge(text: str, bundle: str, report: Mapping[str, JSON]) -> Verdict:
    """Whether a report passes a gate. What was not measured does not pass.

    Args:
        report: ``report.json``; under ``baseline`` is the ``Change`` since an earlier release, if there was one.
    """
    metric, sign, bound = parse_check(text)
    change = report.get("baseline")
    of = Judged(Report.read(report), Change.model_validate(change) if change else None)
    value = METRICS[metric](of)
    limit = bound if bound is not None else of.report.budget.max_ms
    if value is None:
        if metric.startswith(BASELINE) and of.change is None:
            return Verdict(text, bundle, None, None, "no earlier bundle to compare with")
        return Verdict(text, bundle, None, False, f"{metric} was not measured")
    if limit is None:
        return Verdict(text, bundle, value, False, "the bundle has no latency budget")
    passed = OPERATORS[sign](value, limit)
    return Verdict(text, bundle, value, passed, f"{metric} is {value:.6g}, {'' if passed else 'not '}{sign} {limit:g}")
