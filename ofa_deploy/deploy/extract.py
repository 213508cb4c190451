"""From a budget to a bundle: the most accurate subnet whose latency, measured on the device, fits.

Search trusts an upper bound of the predicted latency, not the prediction. Its finalists are exported and measured on
the device, the model learns from them, and where that shows something better the search runs again, a few times at
most. The answer is the most accurate finalist that was measured to fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.errors import GateFailed, InfeasibleBudget, OpNotProfiled, UsageError
from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
from ofa_deploy.fleet.profiling import Progress, load_table, profile
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.latency import LatencyModel, LatencyTable, Row, SpaceLatency
from ofa_deploy.search import Constraints, Latency, Problem, SearchResult, search
from ofa_deploy.search.evolution import Point, fastest
from ofa_deploy.space import Population, PopulationCodec, SearchSpace
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet

ROUNDS = 3  # of search and measurement


@dataclass(frozen=True)
class Finalist:
    """A subnet that was built and measured.

    Attributes:
        point: its predictions when it was chosen, before it was measured.
        predictor: the latency model that made them, times ``slowdown``: how much slower the device runs now than when
            its table was measured, as far as the finalists before this one showed.
        predicted_ms, std_ms: the prediction and its standard deviation.
        table_ms: the sum of its blocks.
        onnx: the exported file's content.
        record: the measurement.
        measured_ms: the budget's statistic of it.
        valid_accuracy: on held-out images of the training split; None without data.
    """

    point: Point
    predictor: LatencyModel
    slowdown: float
    predicted_ms: float
    std_ms: float
    table_ms: float
    subnet: Subnet
    onnx: bytes
    record: dict[str, Any]
    measured_ms: float
    valid_accuracy: float | None


@dataclass
class Extraction:
    """Everything that a report tells.

    Attributes:
        result: the last search.
        finalists: all that were measured, in the order of measurement.
        chosen: the answer.
    """

    subject: Subject
    target: TargetProfile
    constraints: Constraints
    seed: int
    result: SearchResult
    finalists: list[Finalist]
    chosen: Finalist


def ready_model(
    fleet: Fleet | None,
    workspace: Workspace,
    target: TargetProfile,
    space: SearchSpace,
    statistic: str = "p50",
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> tuple[LatencyModel, PopulationCodec]:
    """The target's latency model, and the part of a space that its table covers; profiles where nothing is covered.

    Args:
        fleet: None forbids to profile.

    Raises:
        OpNotProfiled: nothing is covered and profiling is forbidden.
        UsageError: the table is an imported one with a single value a block, and p90 or p99 is asked.
    """
    table = load_table(workspace, target)
    if statistic != "p50" and "statistic" in table.condition:
        raise UsageError(f"the imported table of {target.name} has one value a block, no {statistic}; use p50")
    covered = [r for r in space.resolutions if not _missing(table, space, r)]
    if not covered:
        if fleet is None:
            table.require(PopulationCodec(space, table.per_resolution).op_keys)
            raise OpNotProfiled(f"{target.name} has no latency table; run: ofa-deploy profile --target {target.name}")
        table, covered = (
            profile(fleet, workspace, target, space, protocol=protocol, progress=progress),
            list(space.resolutions),
        )
    return LatencyModel(table, statistic=statistic), PopulationCodec(space.with_resolutions(tuple(covered)))


def _missing(table: LatencyTable, space: SearchSpace, resolution: int) -> list[str]:
    return table.missing(PopulationCodec(space.with_resolutions((resolution,)), table.per_resolution).op_keys)


def extract(
    fleet: Fleet,
    workspace: Workspace,
    subject: Subject,
    target: TargetProfile,
    constraints: Constraints,
    seed: int = 0,
    may_profile: bool = True,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Search, measure the finalists, refit, choose.

    Raises:
        InfeasibleBudget: no subnet is predicted to fit.
        OpNotProfiled: the target was not profiled for this space and ``may_profile`` is false.
        GateFailed: every finalist was measured over the budget; names the best of them.
    """
    device = fleet if may_profile else None
    model, codec = ready_model(device, workspace, target, subject.space, constraints.statistic, protocol, progress)
    finalists: list[Finalist] = []
    slowdown = 1.0
    for attempt in range(ROUNDS):
        problem = Problem(codec, subject.accuracy(codec), _slowed(model.bind(codec), slowdown), constraints)
        try:
            result = search(problem, seed + attempt)
            fresh = _worth_measuring(result.finalists, finalists, constraints)
        except InfeasibleBudget:  # at the speed that the finalists showed; they may have seen a busy moment
            if not finalists:
                raise
            fresh = []
        if fresh:
            finalists += _measure(fleet, subject, target, model, slowdown, fresh, protocol, progress)
        elif finalists and not _fitting(finalists, constraints):
            finalists = _measure_again(fleet, subject, target, finalists, protocol, progress)
        else:
            break
        slowdown = float(np.median([f.measured_ms / f.predicted_ms * f.slowdown for f in finalists]))
        model = _learn(model, finalists, slowdown)
    return Extraction(subject, target, constraints, seed, result, finalists, _choose(finalists, target, constraints))


def _learn(model: LatencyModel, finalists: list[Finalist], slowdown: float) -> LatencyModel:
    """The model with the finalists as evidence, less what they show to be common to this hour.

    A device may run slower or faster now than when its table was measured. Taken as they are, the finalists would
    contradict the networks of that time, and the next search would miss the budget again.
    """
    rows = {f.record["key"]: Row.from_record(f.record) for f in finalists}
    networks = {
        key: replace(row, **{name: getattr(row, name) / slowdown for name in ("p50", "p90", "p99")})
        for key, row in rows.items()
    }
    table = replace(model.table, networks={**model.table.networks, **networks})
    return LatencyModel(table, statistic=model.statistic)


def _slowed(latency: SpaceLatency, factor: float) -> Latency:
    def predict(population: Population) -> tuple[np.ndarray, np.ndarray]:
        mean, std = latency.predict(population)
        return factor * mean, factor * std

    return predict


def _worth_measuring(found: list[Point], measured: list[Finalist], constraints: Constraints) -> list[Point]:
    """Of the subnets that a search found, the new ones that promise more than any that was measured to fit."""
    known = {finalist.point.arch.key for finalist in measured}
    best = max((f.point.accuracy for f in _fitting(measured, constraints)), default=-np.inf)
    return [point for point in found if point.arch.key not in known and point.accuracy > best]


def _choose(finalists: list[Finalist], target: TargetProfile, constraints: Constraints) -> Finalist:
    if fitting := _fitting(finalists, constraints):
        return max(fitting, key=lambda f: (f.valid_accuracy or f.point.accuracy, -f.measured_ms))
    best = min(finalists, key=lambda f: f.measured_ms)
    raise GateFailed(
        f"none of {len(finalists)} finalists that were measured on {target.name} fits {constraints.max_ms:g} ms: the "
        f"best, {best.point.arch.key[:12]}, took {best.measured_ms:.4g} ms (predicted {best.predicted_ms:.4g}); "
        f"refresh the table with: ofa-deploy profile --target {target.name} --refresh"
    )


def _fitting(finalists: list[Finalist], constraints: Constraints) -> list[Finalist]:
    return [f for f in finalists if constraints.max_ms is None or f.measured_ms <= constraints.max_ms]


def _measure(
    fleet: Fleet,
    subject: Subject,
    target: TargetProfile,
    model: LatencyModel,
    slowdown: float,
    points: list[Point],
    protocol: Protocol | None,
    progress: Progress | None,
) -> list[Finalist]:
    """Build, evaluate and measure subnets; all of them in the same rounds."""
    networks = [subject.space.network(point.arch) for point in points]
    subnets = [subject.subnet(point.arch) for point in points]
    accuracies = [subject.campaign.accuracy(p.arch, "finalist") if subject.campaign else None for p in points]
    files = [onnx_bytes(write_onnx(n, subnet.weights(), target)) for n, subnet in zip(networks, subnets, strict=True)]
    items = [MeasureItem(n, f, p.arch, "network") for n, f, p in zip(networks, files, points, strict=True)]
    records = fleet.measure(target, items, protocol, progress)
    mean, std = (slowdown * part for part in model.predict(networks))
    return [
        Finalist(
            point=point,
            predictor=model,
            slowdown=slowdown,
            predicted_ms=float(mean[i]),
            std_ms=float(std[i]),
            table_ms=model.table.total(networks[i], model.statistic),
            subnet=subnets[i],
            onnx=files[i],
            record=records[i],
            measured_ms=float(records[i][model.statistic]),
            valid_accuracy=accuracies[i],
        )
        for i, point in enumerate(points)
    ]


def _measure_again(
    fleet: Fleet,
    subject: Subject,
    target: TargetProfile,
    finalists: list[Finalist],
    protocol: Protocol | None,
    progress: Progress | None,
) -> list[Finalist]:
    """The same subnets with new measurements in place of the old ones."""
    networks = [subject.space.network(f.point.arch) for f in finalists]
    items = [MeasureItem(n, f.onnx, f.point.arch, "network") for n, f in zip(networks, finalists, strict=True)]
    records = fleet.measure(target, items, protocol, progress)
    return [
        replace(f, record=record, measured_ms=float(record[f.predictor.statistic]))
        for f, record in zip(finalists, records, strict=True)
    ]


def budgets_between(
    subject: Subject, model: LatencyModel, codec: PopulationCodec, count: int, confidence: float
) -> list[float]:
    """Latency budgets in ms, spread geometrically between the fastest and the largest subnet's upper bounds."""
    problem = Problem(codec, subject.accuracy(codec), model.bind(codec).predict, Constraints(confidence=confidence))
    low = fastest(problem)[1]
    high = float(problem.upper(codec.encode([codec.space.largest]))[0])
    ratios = np.arange(1, count + 1) / (count + 1)
    # three digits, never rounded down: a narrow range could be left that way
    return [float(f"{1.005 * low * (high / low) ** ratio:.3g}") for ratio in ratios]
