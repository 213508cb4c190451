"""From a budget to a bundle: the most accurate subnet whose latency, measured on the device, fits.

Search trusts an upper bound of the predicted latency, not the prediction. Its finalists are exported and measured on
the device, the model learns from them, and where that shows something better the search runs again, a few times at
most. The best of those that fit are then measured once more, in fresh sessions at another moment. The answer is the
most accurate finalist whose slowest measurement fits, with room for as much as sessions were seen to differ.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import ndtri

from ofa_deploy.accuracy.belief import Belief, Posterior, Validation, posterior
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.answers import Earlier
from ofa_deploy.deploy.cells import CellSubject, ready_cells
from ofa_deploy.deploy.finetuning import VALID, Tuned, Tuning, check_trainable, finetune
from ofa_deploy.deploy.gradient import gradient_of
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.errors import GateFailed, InfeasibleBudget
from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
from ofa_deploy.fleet.profiling import Progress
from ofa_deploy.graph import model_file
from ofa_deploy.latency import LatencyModel, Row, confidence_interval, differences
from ofa_deploy.search import (
    GRADIENT,
    Constraints,
    Gradient,
    Plan,
    Point,
    Problem,
    SearchResult,
    fastest,
    pick,
    search,
)
from ofa_deploy.space import Arch, Network, PopulationCodec
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet

ROUNDS = 3  # of search and measurement
CONFIRMED = 3  # of the finalists that fit, the best so many are measured a second time
BY_DEFAULT = Plan()
EVEN = 0.5  # confidence at which the bound is the mean
FEASIBLE = 0.99  # confidence with which the smallest of several budgets can be met
ROOM = 1.25  # and so many times slower than that may an hour be which the model has not seen: machines are shared
SPREAD = 1.2  # the largest of them is at least so many times as large
CONFIRMATIONS = 2  # rounds of that, where the first leaves none that fits


@dataclass(frozen=True)
class Finalist:
    """A subnet that was built and measured.

    Attributes:
        point: its predictions when it was chosen, before it was measured.
        predictor: the latency model that made them.
        predicted_ms, std_ms: the prediction and its standard deviation.
        table_ms: the sum of its blocks; None where some were not measured.
        onnx: the exported file's content.
        records: its measurements, one of each session.
        belief: what the accuracy predictor says; None where its error on these weights is not known.
        valid: its accuracy on held-out images of the training split; None without data.
        tuned: its training after the search, if there was one: subnet, file and accuracy are what came out.
    """

    point: Point
    predictor: LatencyModel
    predicted_ms: float
    std_ms: float
    table_ms: float | None
    subnet: Subnet
    onnx: bytes
    records: tuple[dict[str, Any], ...]
    valid: Validation | None
    belief: Belief | None = None
    tuned: Tuned | None = None

    @property
    def posterior(self) -> Posterior | None:
        """The accuracy that is believed of it. What is predicted of inherited weights says nothing of tuned ones."""
        return posterior(None if self.tuned else self.belief, self.valid)

    @property
    def worth(self) -> float:
        """By what finalists are compared: the mean of the posterior; what the search maximised where there is none."""
        return self.point.accuracy if (known := self.posterior) is None else known.mean

    @property
    def record(self) -> dict[str, Any]:
        """The slowest of its measurements: what is promised held in all of them."""
        return max(self.records, key=lambda record: float(record[self.predictor.statistic]))

    @property
    def measured_ms(self) -> float:
        """The budget's statistic of the slowest measurement."""
        return float(self.record[self.predictor.statistic])


@dataclass
class Extraction:
    """Everything that a report tells.

    Attributes:
        result: the last search.
        finalists: all that were measured, in the order of measurement.
        chosen: the answer.
        session_std: by how much one session's measurements differ from another's, a fraction.
        fp32: where another precision was asked for, a measurement of the answer in fp32 on the same device.
        precisions: where several were asked for, what each had to offer; see ``precisions.extract_best``.
        recalled: keys of the finalists that the search did not find: they were answers before.
    """

    subject: Subject
    target: TargetProfile
    constraints: Constraints
    seed: int
    result: SearchResult
    finalists: list[Finalist]
    chosen: Finalist
    session_std: float
    fp32: dict[str, Any] | None = None
    precisions: list[dict[str, Any]] = field(default_factory=list)
    recalled: frozenset[str] = frozenset()

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Between which latencies 95 % of further sessions are expected to measure the answer."""
        return confidence_interval(self.chosen.record["timings"], self.constraints.statistic, self.session_std)


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
    tuning: Tuning | None = None,
    tuned: int = 0,
    front: Sequence[Arch] = (),
    plan: Plan = BY_DEFAULT,
    earlier: Sequence[Earlier] = (),
) -> Extraction:
    """Search, measure the finalists, refit, choose.

    Args:
        front: the subnets of a front that was searched before; the finalists are taken from them, without a search.
        plan: how it is searched.
        tuning: how the best ``tuned`` finalists that fit are trained on, before the best of these is chosen.
        earlier: answers to earlier questions. Those that are expected to be more accurate than what was found are
            measured as well, so that the answer is not worse than they are.

    Raises:
        InfeasibleBudget: no subnet is predicted to fit.
        OpNotProfiled: the target was not profiled for this space and ``may_profile`` is false.
        GateFailed: every finalist was measured over the budget; names the best of them.
    """
    if tuning is not None:
        check_trainable(subject, tuning)
    gradient = gradient_of(subject, plan.gradient) if plan.strategy == GRADIENT and not front else None
    fleet.fetch(target)
    device = fleet if may_profile else None
    ready = ready_cells if isinstance(subject, CellSubject) else ready_model
    model, codec = ready(device, workspace, target, subject.space, constraints.statistic, protocol, progress)
    bench = _Bench(fleet, subject, target, constraints, protocol, progress)
    finalists: list[Finalist] = []
    for attempt in range(ROUNDS):
        try:
            result = _search(subject, target, codec, model, constraints, seed + attempt, front, plan, gradient)
            fresh = _worth_measuring(result.finalists, finalists, constraints)
        except InfeasibleBudget:  # after what the finalists showed; they may have seen a busy moment
            if not finalists:
                raise
            fresh = []
        if fresh:
            finalists += bench.measure(model, fresh)
        elif finalists and not _fitting(finalists, constraints):
            finalists = bench.measure_again(finalists, keep=False)
        else:
            break
        if device and differences(model.table.condition, finalists[-1].record["condition"]):
            args = (constraints.statistic, protocol, progress)  # the table is another device's, as it were
            model, codec = ready(device, workspace, target, subject.space, *args)
        model = _learn(model, finalists)
    finalists = _confirm(bench, model, finalists, constraints)
    known = _meeting(subject, target, codec, model, constraints, [one.arch for one in earlier])
    again = {one.arch.key for one in earlier if tuning is not None and one.tuned and tuning.made(one.tuned)}
    recalled = set[str]()
    while rivals := _rivals(bench, known, finalists, constraints, _learn(model, finalists).session_std, again):
        recalled |= {point.arch.key for point in rivals}
        finalists = _confirm(bench, model, finalists + bench.measure(model, rivals), constraints)
    session_std = _learn(model, finalists).session_std
    chosen = _choose(finalists, target, constraints, session_std)
    if tuning is not None:
        ranked = _ranked(_fitting(finalists, constraints), constraints, session_std)
        best = ranked[:tuned] + [finalist for finalist in ranked[tuned:] if finalist.point.arch.key in again]
        trained = {id(f): bench.tune(f, workspace, tuning) for f in best}
        finalists = [trained.get(id(f), f) for f in finalists]
        chosen = _choose(list(trained.values()), target, constraints, session_std)
    beside = bench.fp32_record(chosen) if target.precision == "int8" else None
    found = (result, finalists, chosen, session_std, beside)
    return Extraction(subject, target, constraints, seed, *found, recalled=frozenset(recalled))


def _search(
    subject: Subject,
    target: TargetProfile,
    codec: PopulationCodec,
    model: LatencyModel,
    constraints: Constraints,
    seed: int,
    front: Sequence[Arch],
    plan: Plan,
    gradient: Gradient | None,
) -> SearchResult:
    """Under the upper bound; where nothing is sure to fit, by the mean: the measurement will tell."""
    if isinstance(subject, CellSubject):
        return subject.search(model, target, constraints)
    latency, accuracy = model.bind(codec).predict, subject.accuracy(codec)
    covered = [arch for arch in front if arch.resolution in codec.space.resolutions]

    def under(bounds: Constraints) -> SearchResult:
        problem = Problem(codec, accuracy, latency, bounds, target.batch, target.precision, gradient=gradient)
        return pick(problem, covered) if front else search(problem, seed, plan.strategy, **plan.limits)

    try:
        return under(constraints)
    except InfeasibleBudget:
        if constraints.max_ms is None or constraints.confidence <= EVEN:
            raise
        return under(replace(constraints, confidence=EVEN))


def _learn(model: LatencyModel, finalists: list[Finalist]) -> LatencyModel:
    """The model with the finalists as evidence, as far as they were measured under its table's condition."""
    records = [record for finalist in finalists for record in finalist.records]
    rows = {r["key"]: Row.from_record(r) for r in records if not differences(model.table.condition, r["condition"])}
    table = replace(model.table, networks={**model.table.networks, **rows})
    return LatencyModel(table, statistic=model.statistic, blocks=model.blocks)


def _confirm(bench: _Bench, model: LatencyModel, finalists: list[Finalist], constraints: Constraints) -> list[Finalist]:
    """Measure the best of those that fit again, until one of them has fitted twice."""
    for _ in range(CONFIRMATIONS):
        session_std = _learn(model, finalists).session_std
        ranked = _ranked(_fitting(finalists, constraints), constraints, session_std)
        once = [f for f in ranked if len(f.records) < 2][:CONFIRMED]
        if constraints.max_ms is None or not once or len(ranked[0].records) > 1:
            break
        again = {id(f): new for f, new in zip(once, bench.measure_again(once, keep=True), strict=True)}
        finalists = [again.get(id(f), f) for f in finalists]
    return finalists


def _worth_measuring(found: list[Point], measured: list[Finalist], constraints: Constraints) -> list[Point]:
    """Of the subnets that a search found, the new ones that promise more than any that was measured to fit."""
    known = {finalist.point.arch.key for finalist in measured}
    fitting = _fitting(measured, constraints)
    best = max((f.worth if f.belief else f.point.accuracy for f in fitting), default=-np.inf)
    return [point for point in found if point.arch.key not in known and point.accuracy > best]


def _meeting(
    subject: Subject,
    target: TargetProfile,
    codec: PopulationCodec,
    model: LatencyModel,
    constraints: Constraints,
    archs: Sequence[Arch],
) -> list[Point]:
    """Of given subnets those that meet the constraints, whatever their latency: that is measured."""
    different = list({arch.key: arch for arch in archs}.values())
    covered = [arch for arch in different if arch.resolution in codec.space.resolutions]
    if not covered:
        return []
    bounds = replace(constraints, max_ms=None)
    latency, accuracy = model.bind(codec).predict, subject.accuracy(codec)
    try:
        return pick(Problem(codec, accuracy, latency, bounds, target.batch, target.precision), covered, None).finalists
    except InfeasibleBudget:
        return []


def _rivals(
    bench: _Bench,
    known: list[Point],
    measured: list[Finalist],
    constraints: Constraints,
    session_std: float,
    again: Collection[str],
) -> list[Point]:
    """Of the earlier answers those that were not measured yet, and are expected to be more accurate than the best that
    was. Fine-tuned ones (``again``) are compared after their fine-tuning."""
    seen = {finalist.point.arch.key for finalist in measured}
    fitting = _ranked(_fitting(measured, constraints), constraints, session_std)
    best = fitting[0].worth if fitting else -np.inf
    left = [point for point in known if point.arch.key not in seen]
    return [p for p, worth in zip(left, bench.worth(left), strict=True) if worth > best or p.arch.key in again]


def _choose(finalists: list[Finalist], target: TargetProfile, constraints: Constraints, session_std: float) -> Finalist:
    if fitting := _fitting(finalists, constraints):
        return _ranked(fitting, constraints, session_std)[0]
    best = min(finalists, key=lambda f: f.measured_ms)
    raise GateFailed(
        f"none of {len(finalists)} finalists that were measured on {target.name} fits {constraints.max_ms:g} ms: the "
        f"best, {best.point.arch.key[:12]}, took {best.measured_ms:.4g} ms (predicted {best.predicted_ms:.4g}); "
        f"refresh the table with: ofa-deploy profile --target {target.name} --precision {target.precision} --refresh"
    )


def _ranked(finalists: list[Finalist], constraints: Constraints, session_std: float) -> list[Finalist]:
    """Best first. Those that leave room for a slower session come before any that fitted by luck."""
    room = np.exp(max(ndtri(constraints.confidence), 0.0) * session_std)

    def place(finalist: Finalist) -> tuple[bool, float, float]:
        lucky = constraints.max_ms is not None and room * finalist.measured_ms > constraints.max_ms
        return lucky, -finalist.worth, finalist.measured_ms

    return sorted(finalists, key=place)


def _fitting(finalists: list[Finalist], constraints: Constraints) -> list[Finalist]:
    return [f for f in finalists if constraints.max_ms is None or f.measured_ms <= constraints.max_ms]


@dataclass(frozen=True)
class _Bench:
    """Where finalists are built and measured; all of one call in the same rounds."""

    fleet: Fleet
    subject: Subject
    target: TargetProfile
    constraints: Constraints
    protocol: Protocol | None
    progress: Progress | None

    def measure(self, model: LatencyModel, points: list[Point]) -> list[Finalist]:
        """Build, evaluate and measure subnets."""
        subject = self.subject
        networks = [subject.space.network(point.arch) for point in points]
        subnets = [subject.subnet(point.arch) for point in points]
        valid = self._validated(points)
        files = [self._file(subnet, point.arch) for subnet, point in zip(subnets, points, strict=True)]
        records = self._records(networks, files, points)
        mean, std = model.predict(networks)
        return [
            Finalist(
                point=point,
                predictor=model,
                predicted_ms=float(mean[i]),
                std_ms=float(std[i]),
                table_ms=model.table.known_total(networks[i], model.statistic),
                subnet=subnets[i],
                onnx=files[i],
                records=(records[i],),
                valid=valid[i],
                belief=subject.belief(point.arch),
            )
            for i, point in enumerate(points)
        ]

    def worth(self, points: list[Point]) -> list[float]:
        """The expected accuracies of subnets, as their finalists would have them."""
        known = [
            posterior(self.subject.belief(point.arch), valid)
            for point, valid in zip(points, self._validated(points), strict=True)
        ]
        return [p.accuracy if one is None else one.mean for p, one in zip(points, known, strict=True)]

    def _validated(self, points: list[Point]) -> list[Validation | None]:
        campaign, archs = self.subject.campaign, [point.arch for point in points]
        return [*campaign.results(archs, ["finalist"] * len(archs))] if campaign else [None] * len(archs)

    def measure_again(self, finalists: list[Finalist], keep: bool) -> list[Finalist]:
        """The same subnets with new measurements, beside the old ones or in place of them."""
        networks = [self.subject.space.network(f.point.arch) for f in finalists]
        records = self._records(networks, [f.onnx for f in finalists], [f.point for f in finalists])
        return [
            replace(f, records=(*f.records, record) if keep else (record,))
            for f, record in zip(finalists, records, strict=True)
        ]

    def tune(self, finalist: Finalist, workspace: Workspace, tuning: Tuning) -> Finalist:
        """The same subnet with weights that were trained on. Its measurements stay: they are those of its graph."""
        subject, arch = self.subject, finalist.point.arch
        tuned = finetune(workspace, subject, arch, tuning, self.progress)
        file = self._file(tuned.subnet, arch)
        valid = Validation(tuned.facts["after"][VALID], tuned.facts["images"][VALID])
        return replace(finalist, subnet=tuned.subnet, onnx=file, valid=valid, tuned=tuned)

    def fp32_record(self, chosen: Finalist) -> dict[str, Any]:
        """The measurement of the answer's graph in fp32, beside which int8's stands."""
        plain = replace(self, target=self.target.model_copy(update={"precision": "fp32"}))
        arch = chosen.point.arch
        (record,) = plain._records(
            [self.subject.space.network(arch)], [plain._file(chosen.subnet, arch)], [chosen.point]
        )
        return record

    def _file(self, subnet: Subnet, arch: Arch) -> bytes:
        subject = self.subject
        images = subject.calibration(arch) if self.target.precision == "int8" else None
        return model_file(subject.space.network(arch), subnet.weights(), self.target, images)

    def _records(self, networks: list[Network], files: list[bytes], points: list[Point]) -> list[dict[str, Any]]:
        items = [MeasureItem(n, f, p.arch, "network") for n, f, p in zip(networks, files, points, strict=True)]
        return self.fleet.measure(self.target, items, self.protocol, self.progress)


def budgets_between(
    subject: Subject, model: LatencyModel, codec: PopulationCodec, count: int, confidence: float
) -> list[float]:
    """Latency budgets in ms, spread geometrically between the fastest and the largest subnet's upper bounds.

    The fastest one's is at a high confidence and with room for a slower hour on top: every budget can be met.
    """
    accuracy, latency = subject.accuracy(codec), model.bind(codec).predict
    low = ROOM * fastest(Problem(codec, accuracy, latency, Constraints(confidence=max(confidence, FEASIBLE))))[1]
    problem = Problem(codec, accuracy, latency, Constraints(confidence=confidence))
    high = max(float(problem.upper(codec.encode([codec.space.largest]))[0]), SPREAD * low)
    ratios = np.arange(1, count + 1) / (count + 1)
    # three digits, never rounded down: a narrow range could be left that way
    return [float(f"{1.005 * low * (high / low) ** ratio:.3g}") for ratio in ratios]
