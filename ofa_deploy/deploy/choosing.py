"""Which finalists to measure, and which of those that were measured is the answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import ndtri

from ofa_deploy.config import Constraints, TargetProfile
from ofa_deploy.deploy.extraction import Finalist
from ofa_deploy.errors import GateFailed
from ofa_deploy.latency import LatencyModel, Row, differences
from ofa_deploy.search import Point


def learned(model: LatencyModel, finalists: list[Finalist]) -> LatencyModel:
    """The model with the finalists as evidence, as far as they were measured under its table's condition."""
    records = [record for finalist in finalists for record in finalist.records]
    rows = {r.key: Row.of(r) for r in records if not differences(model.table.condition, r.condition)}
    table = replace(model.table, networks={**model.table.networks, **rows})
    return LatencyModel(table, statistic=model.statistic, blocks=model.blocks).at_curve(model.now)


def worth_measuring(found: list[Point], measured: list[Finalist], constraints: Constraints) -> list[Point]:
    """Of the subnets that a search found, the new ones that promise more than any that was measured to fit."""
    known = {finalist.point.arch.key for finalist in measured}
    promised = (f.worth if f.belief else f.point.accuracy for f in fitting(measured, constraints))
    best = max(promised, default=-np.inf)
    return [point for point in found if point.arch.key not in known and point.accuracy > best]


def choose(finalists: list[Finalist], target: TargetProfile, constraints: Constraints, session_std: float) -> Finalist:
    """The answer.

    Raises:
        GateFailed: none fits; names the best of them.
    """
    if fit := fitting(finalists, constraints):
        return ranked(fit, constraints, session_std)[0]
    best = min(finalists, key=lambda f: f.measured_ms)
    raise GateFailed(
        f"none of {len(finalists)} finalists that were measured on {target.name} fits {constraints.max_ms:g} ms: the "
        f"best, {best.point.arch.key[:12]}, took {best.measured_ms:.4g} ms (predicted {best.predicted_ms:.4g}); "
        f"refresh the table with: ofa-deploy profile --target {target.name} --precision {target.precision} --refresh"
    )


def ranked(finalists: list[Finalist], constraints: Constraints, session_std: float) -> list[Finalist]:
    """Best first. Those that leave room for a slower session, or fitted in an earlier one too, come before any that
    fitted by luck."""
    room = np.exp(max(ndtri(constraints.confidence), 0.0) * session_std)

    def place(finalist: Finalist) -> tuple[bool, float, float]:
        budget, before = constraints.max_ms, finalist.earlier_ms
        lucky = budget is not None and room * finalist.measured_ms > budget and not (before and before <= budget)
        return lucky, -finalist.worth, finalist.measured_ms

    return sorted(finalists, key=place)


def fitting(finalists: list[Finalist], constraints: Constraints) -> list[Finalist]:
    """Those whose slowest measurement is within the latency bound."""
    return [f for f in finalists if constraints.max_ms is None or f.measured_ms <= constraints.max_ms]
