"""From a budget to a bundle: the most accurate subnet whose latency, measured on the device, fits.

Search trusts an upper bound of the predicted latency, not the prediction. Its finalists are exported and measured on
the device, the model learns from them, and where that shows something better the search runs again, a few times at
most. The best of those that fit are then measured once more, in fresh sessions at another moment. The answer is the
most accurate finalist whose slowest measurement fits, with room for as much as sessions were seen to differ.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from ofa_deploy.accuracy.belief import Belief, Posterior, Validation, posterior
from ofa_deploy.blocks import Network
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.budgets import APART, ROOM, TRIES, Spread, because_of_the_level, fastest_of, holding, rounded_up
from ofa_deploy.deploy.earlier_answers import Earlier
from ofa_deploy.deploy.finetuning import Tuned, Tuning, check_trainable, finetune
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.deploy.subject_gradient import gradient_of
from ofa_deploy.documents.report_document import PrecisionOffer
from ofa_deploy.errors import GateFailed, InfeasibleBudget, OfaDeployError
from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
from ofa_deploy.fleet.gauge import FORECAST, Gauge
from ofa_deploy.graph import model_file
from ofa_deploy.latency import LatencyModel, Measurement, Row, confidence_interval, differences
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.notices import Report as Progress
from ofa_deploy.search import (
    GRADIENT,
    Constraints,
    Gradient,
    Plan,
    Point,
    Problem,
    SearchResult,
    pick,
    planned,
)
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet

if TYPE_CHECKING:
    from ofa_deploy.deploy.baselines import Together

ROUNDS = 3  # of search and measurement
CONFIRMED = 3  # of the finalists that fit, the best so many are measured a second time
BY_DEFAULT = Plan()
EVEN = 0.5  # confidence at which the bound is the mean
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
        levels: how fast the device was in each of them; None where that is not known.
        belief: what the accuracy predictor says; None where its error on these weights is not known.
        valid: its accuracy on held-out images of the training split; None without data.
        tuned: its training after the search, if there was one: subnet, file and accuracy are what came out.
        earlier_ms: what it took when an earlier question was answered; None where it took no part in that.
    """

    point: Point
    predictor: LatencyModel
    predicted_ms: float
    std_ms: float
    table_ms: float | None
    subnet: Subnet
    onnx: bytes
    records: tuple[Measurement, ...]
    levels: tuple[LevelNow | None, ...]
    valid: Validation | None
    belief: Belief | None = None
    tuned: Tuned | None = None
    earlier_ms: float | None = None

    @property
    def posterior(self) -> Posterior | None:
        """The accuracy that is believed of it. What is predicted of inherited weights says nothing of tuned ones."""
        return posterior(None if self.tuned else self.belief, self.valid)

    @property
    def worth(self) -> float:
        """By what finalists are compared: the mean of the posterior; what the search maximised where there is none."""
        return self.point.accuracy if (known := self.posterior) is None else known.mean

    @property
    def record(self) -> Measurement:
        """The slowest of its measurements: what is promised held in all of them."""
        return max(self.records, key=lambda record: record.ms(self.predictor.statistic))

    @property
    def level(self) -> LevelNow | None:
        """How fast the device was in the rounds of ``record``."""
        return self.levels[self.records.index(self.record)]

    @property
    def measured_ms(self) -> float:
        """The budget's statistic of the slowest measurement."""
        return self.record.ms(self.predictor.statistic)

    def at(self, network: Network, level: LevelNow | None) -> float:
        """The prediction at a level, in ms; for None, at the level when the target was profiled."""
        (mean,), _ = self.predictor.at(level).predict([network])
        return float(mean)


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
        beside: hand-picked networks and the answer, measured in the same rounds, where that was asked for.
    """

    subject: Subject
    target: TargetProfile
    constraints: Constraints
    seed: int
    result: SearchResult
    finalists: list[Finalist]
    chosen: Finalist
    session_std: float
    fp32: Measurement | None = None
    precisions: list[PrecisionOffer] = field(default_factory=list)
    recalled: frozenset[str] = frozenset()
    beside: Together | None = None

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Between which latencies 95 % of further sessions are expected to measure the answer."""
        return confidence_interval(self.chosen.record.timings, self.constraints.statistic, self.session_std)


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
    spread: Spread | None = None,
    session: Sequence[Measurement] = (),
) -> Extraction:
    """Measure the device's level, search, measure the finalists, refit, choose.

    Args:
        constraints: their latency bound is absolute, however fast the device is now.
        spread: takes the place of the latency bound: it is derived from the device's level now, and again when that
            moves, so that it can be met.
        front: the subnets of a front that was searched before; the finalists are taken from them, without a search.
        plan: how it is searched.
        tuning: how the best ``tuned`` finalists that fit are trained on, before the best of these is chosen.
        earlier: answers to earlier questions. Those that are expected to be more accurate than what was found are
            measured as well, so that the answer is not worse than they are.
        session: what was measured on the device within the last seconds. Where it shows the device's level, that is not
            measured again.

    Raises:
        InfeasibleBudget: no subnet is predicted to fit.
        OpNotProfiled: the target was not profiled for this space and ``may_profile`` is false.
        GateFailed: every finalist was measured over the budget; names the best of them.
    """
    if tuning is not None:
        check_trainable(subject, tuning)
    gradient = gradient_of(subject, plan) if plan.strategy == GRADIENT and not front else None
    fleet.fetch(target)
    device = fleet if may_profile else None
    model, codec = ready_model(device, workspace, target, subject.space, constraints.statistic, protocol, progress)
    gauge = Gauge(workspace, target, subject.sizes or codec.space, model)
    bench = _Bench(fleet, subject, target, protocol, progress, gauge)
    bench.earlier = {one.arch.key: one.measured_ms for one in reversed(earlier)}
    model = model.at(bench.look(session))

    def refreshed() -> LatencyModel:
        return ready_model(device, workspace, target, subject.space, constraints.statistic, protocol, progress)[0]

    asked = _Asked(constraints, seed, front, plan, gradient, earlier, tuning, tuned)
    for attempt in range(TRIES if spread else 1):
        if spread:
            budget = spread.budget(subject, model, codec, constraints.confidence)
            asked = replace(asked, constraints=constraints.within(budget))
        try:
            found = _answer(bench, asked, model, codec, workspace, refreshed if device else None)
            missed = _missed(bench, found) if spread else None
            if missed is None:
                return found
            met = constraints.within(rounded_up(APART * missed.measured_ms))
            return _conclude(bench, replace(asked, constraints=met), model, workspace, (), found.recalled)
        except (GateFailed, InfeasibleBudget) as error:
            model = _learn(model, bench.finalists).at(bench.look() if spread else bench.level)
            if not spread:
                raise _explained(error, bench, asked.constraints, model, codec) from error
            if attempt + 1 == TRIES and not bench.finalists:
                raise
    nearest = min(bench.finalists, key=lambda finalist: finalist.measured_ms)
    met = constraints.within(rounded_up(APART * max(nearest.measured_ms, spread.above if spread else 0.0)))
    return _conclude(bench, replace(asked, constraints=met), model, workspace, (), frozenset())


@dataclass(frozen=True)
class _Asked:
    """What ``extract`` was asked for; see there."""

    constraints: Constraints
    seed: int
    front: Sequence[Arch]
    plan: Plan
    gradient: Gradient | None
    earlier: Sequence[Earlier]
    tuning: Tuning | None
    tuned: int


def _answer(
    bench: _Bench,
    asked: _Asked,
    model: LatencyModel,
    codec: PopulationCodec,
    workspace: Workspace,
    refreshed: Callable[[], LatencyModel] | None,
) -> Extraction:
    """Search under one latency bound, measure, refit, and choose."""
    subject, target, constraints, tuning = bench.subject, bench.target, asked.constraints, asked.tuning
    for attempt in range(ROUNDS):
        try:
            bench.result = _search(subject, target, codec, model, asked, asked.seed + attempt)
            fresh = _worth_measuring(bench.result.finalists, bench.finalists, constraints)
        except InfeasibleBudget:  # after what the finalists showed; they may have seen a busy moment
            if not bench.finalists:
                raise
            fresh = []
        if fresh:
            bench.finalists += bench.measure(model, fresh)
        elif bench.finalists and not _fitting(bench.finalists, constraints):
            bench.finalists = bench.measure_again(bench.finalists, keep=False)
        else:
            break
        if refreshed and differences(model.table.condition, bench.finalists[-1].record.condition):
            model = refreshed()  # the table is another device's, as it were
        model = _learn(model, bench.finalists).at(bench.level)
    bench.finalists = _confirm(bench, model, bench.finalists, constraints)
    known = _meeting(subject, target, codec, model, constraints, [one.arch for one in asked.earlier])
    again = {one.arch.key for one in asked.earlier if tuning is not None and one.tuned and tuning.made(one.tuned)}
    recalled = set[str]()

    def rivals() -> list[Point]:
        session_std = _learn(model, bench.finalists).session_std
        return _rivals(bench, known, bench.finalists, constraints, session_std, again)

    while better := rivals():
        recalled |= {point.arch.key for point in better}
        bench.finalists = _confirm(bench, model, bench.finalists + bench.measure(model, better), constraints)
    return _conclude(bench, asked, model, workspace, again, frozenset(recalled))


def _conclude(
    bench: _Bench,
    asked: _Asked,
    model: LatencyModel,
    workspace: Workspace,
    again: Collection[str],
    recalled: frozenset[str],
) -> Extraction:
    """Choose among the finalists, after fine-tuning the best of them where that is asked for."""
    target, constraints, tuning = bench.target, asked.constraints, asked.tuning
    session_std = _learn(model, bench.finalists).session_std
    chosen = _choose(bench.finalists, target, constraints, session_std)
    if tuning is not None:
        ranked = _ranked(_fitting(bench.finalists, constraints), constraints, session_std)
        best = ranked[: asked.tuned] + [one for one in ranked[asked.tuned :] if one.point.arch.key in again]
        trained = {id(f): bench.tune(f, workspace, tuning) for f in best}
        bench.finalists = [trained.get(id(f), f) for f in bench.finalists]
        chosen = _choose(list(trained.values()), target, constraints, session_std)
    beside = bench.fp32_record(chosen) if target.precision == "int8" else None
    if bench.result is None:
        raise ValueError("nothing was searched")
    found = (bench.result, bench.finalists, chosen, session_std, beside)
    return Extraction(bench.subject, target, constraints, asked.seed, *found, recalled=recalled)


def _missed(bench: _Bench, found: Extraction) -> Finalist | None:
    """A better network that was measured to fit this budget when an earlier question was answered, but took longer
    now: a derived budget then follows, so that a larger one gets no worse network."""
    budget = found.constraints.max_ms
    proven = [f for f in bench.finalists if budget and f.earlier_ms is not None and f.earlier_ms <= budget]
    best = max(proven, key=lambda finalist: finalist.worth, default=None)
    if best is None or best.worth <= found.chosen.worth or best.measured_ms <= (budget or 0.0):
        return None
    return best


def _explained(
    error: GateFailed | InfeasibleBudget,
    bench: _Bench,
    constraints: Constraints,
    model: LatencyModel,
    codec: PopulationCodec,
) -> OfaDeployError:
    """The same error, with what the device's level now has to do with it and a budget that holds."""
    budget = constraints.max_ms
    if budget is None or bench.level is None:
        return error
    holds, finalists = holding(bench.subject, model, codec, constraints.confidence), bench.finalists
    if finalists:
        nearest = min(finalists, key=lambda finalist: finalist.measured_ms)
        holds, arch = max(holds, ROOM * nearest.measured_ms), nearest.point.arch
    else:
        arch, _ = fastest_of(bench.subject, model, codec, Constraints().confidence)
    network = bench.subject.space.network(arch)
    quiet, usual = float(model.undisturbed([network])[0]), float(model.at(None).predict([network])[0][0])
    return type(error)(f"{error}; {because_of_the_level(bench.level, quiet, usual, budget, rounded_up(holds))}")


def _search(
    subject: Subject,
    target: TargetProfile,
    codec: PopulationCodec,
    model: LatencyModel,
    asked: _Asked,
    seed: int,
) -> SearchResult:
    """Under the upper bound; where nothing is sure to fit, by the mean: the measurement will tell."""
    constraints, front, plan = asked.constraints, asked.front, asked.plan
    latency, accuracy = model.bind(codec).predict, subject.accuracy(codec)
    covered = [arch for arch in front if arch.resolution in codec.space.resolutions]

    def under(bounds: Constraints) -> SearchResult:
        problem = Problem(codec, accuracy, latency, bounds, target.batch, target.precision, gradient=asked.gradient)
        return pick(problem, covered) if front else planned(problem, plan, seed)

    try:
        return under(constraints)
    except InfeasibleBudget:
        if constraints.max_ms is None or constraints.confidence <= EVEN:
            raise
        return under(constraints.model_copy(update={"confidence": EVEN}))


def _learn(model: LatencyModel, finalists: list[Finalist]) -> LatencyModel:
    """The model with the finalists as evidence, as far as they were measured under its table's condition."""
    records = [record for finalist in finalists for record in finalist.records]
    rows = {r.key: Row.of(r) for r in records if not differences(model.table.condition, r.condition)}
    table = replace(model.table, networks={**model.table.networks, **rows})
    return LatencyModel(table, statistic=model.statistic, blocks=model.blocks).at_curve(model.now)


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
    bounds = constraints.within(None)
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
    """Best first. Those that leave room for a slower session, or fitted in an earlier one too, come before any that
    fitted by luck."""
    room = np.exp(max(ndtri(constraints.confidence), 0.0) * session_std)

    def place(finalist: Finalist) -> tuple[bool, float, float]:
        budget, before = constraints.max_ms, finalist.earlier_ms
        lucky = budget is not None and room * finalist.measured_ms > budget and not (before and before <= budget)
        return lucky, -finalist.worth, finalist.measured_ms

    return sorted(finalists, key=place)


def _fitting(finalists: list[Finalist], constraints: Constraints) -> list[Finalist]:
    return [f for f in finalists if constraints.max_ms is None or f.measured_ms <= constraints.max_ms]


@dataclass
class _Bench:
    """Where finalists are built and measured; all of one call in the same rounds, and the anchor with them.

    Attributes:
        level: how fast the device is, as it was seen last; None where that is not known.
        result: the last search.
        finalists: all that were measured.
        earlier: what networks took when earlier questions were answered, by their keys.
    """

    fleet: Fleet
    subject: Subject
    target: TargetProfile
    protocol: Protocol | None
    progress: Progress | None
    gauge: Gauge | None
    level: LevelNow | None = None
    result: SearchResult | None = None
    finalists: list[Finalist] = field(default_factory=list)
    earlier: dict[str, float] = field(default_factory=dict)

    def look(self, session: Sequence[Measurement] = ()) -> LevelNow | None:
        """See from a session of the last seconds how fast the device is now, or measure it."""
        if self.gauge:
            self.level = self.gauge.seen_in(session) or self.gauge.measure(self.fleet, self.progress)
        return self.level

    def measure(self, model: LatencyModel, points: list[Point]) -> list[Finalist]:
        """Build, evaluate and measure subnets."""
        subject = self.subject
        networks = [subject.space.network(point.arch) for point in points]
        subnets = [subject.subnet(point.arch) for point in points]
        valid = self._validated(points)
        files = [self._file(subnet, point.arch) for subnet, point in zip(subnets, points, strict=True)]
        records, level = self._records(networks, files, points)
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
                levels=(level,),
                valid=valid[i],
                belief=subject.belief(point.arch),
                earlier_ms=self.earlier.get(point.arch.key),
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
        records, level = self._records(networks, [f.onnx for f in finalists], [f.point for f in finalists])
        return [
            replace(f, records=(*f.records, record), levels=(*f.levels, level))
            if keep
            else replace(f, records=(record,), levels=(level,))
            for f, record in zip(finalists, records, strict=True)
        ]

    def tune(self, finalist: Finalist, workspace: Workspace, tuning: Tuning) -> Finalist:
        """The same subnet with weights that were trained on. Its measurements stay: they are those of its graph."""
        subject, arch = self.subject, finalist.point.arch
        tuned = finetune(workspace, subject, arch, tuning, self.progress)
        file = self._file(tuned.subnet, arch)
        valid = Validation(tuned.facts.after.valid, tuned.facts.images.valid)
        return replace(finalist, subnet=tuned.subnet, onnx=file, valid=valid, tuned=tuned)

    def fp32_record(self, chosen: Finalist) -> Measurement:
        """The measurement of the answer's graph in fp32, beside which int8's stands."""
        plain = replace(self, target=self.target.model_copy(update={"precision": "fp32"}), gauge=None)
        arch = chosen.point.arch
        (record,), _ = plain._records(
            [self.subject.space.network(arch)], [plain._file(chosen.subnet, arch)], [chosen.point]
        )
        return record

    def _file(self, subnet: Subnet, arch: Arch) -> bytes:
        subject = self.subject
        images = subject.calibration(arch) if self.target.precision == "int8" else None
        return model_file(subject.space.network(arch), subnet.weights(), self.target, images)

    def _records(
        self, networks: list[Network], files: list[bytes], points: list[Point]
    ) -> tuple[list[Measurement], LevelNow | None]:
        """Measurements, and how fast the device was in their rounds."""
        items = [MeasureItem(n, f, p.arch, "network") for n, f, p in zip(networks, files, points, strict=True)]
        anchor = self.gauge.items if self.gauge else []
        records = self.fleet.measure(self.target, [*items, *anchor], self.protocol, self.progress)
        found, anchored = records[: len(items)], records[len(items) :]
        level = self.gauge.read(anchored, found) if self.gauge else None
        self.level = level.widened(FORECAST) if level else None
        return found, level
