"""From a budget to the answer: the most accurate subnet whose latency, measured on the device, fits.

Search trusts an upper bound of the predicted latency, not the prediction. Its finalists are exported and measured on
the device, the model learns from them, and where that shows something better the search runs again, a few times at
most. The best of those that fit are then measured once more, in fresh sessions at another moment. The answer is the
most accurate finalist whose slowest measurement fits, with room for as much as sessions were seen to differ.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ofa_deploy.config import GRADIENT, Constraints
from ofa_deploy.deploy.bench import Bench
from ofa_deploy.deploy.budgets import APART, ROOM, TRIES, because_of_the_level, fastest_of, holding, rounded_up
from ofa_deploy.deploy.choosing import choose, fitting, learned, ranked, worth_measuring
from ofa_deploy.deploy.extraction import Extraction, Finalist
from ofa_deploy.deploy.finetuning import check_trainable
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.subject_gradient import gradient_of
from ofa_deploy.errors import GateFailed, InfeasibleBudget, OfaDeployError
from ofa_deploy.fleet import Fleet
from ofa_deploy.fleet.gauge import Gauge
from ofa_deploy.latency import LatencyModel, differences
from ofa_deploy.notices import Progress
from ofa_deploy.search import Point, Problem, SearchResult, pick, planned
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.store import Workspace

ROUNDS = 3  # of search and measurement
CONFIRMED = 3  # of the finalists that fit, the best so many are measured a second time
EVEN = 0.5  # confidence at which the bound is the mean
CONFIRMATIONS = 2  # rounds of that, where the first leaves none that fits


def extract(fleet: Fleet, workspace: Workspace, order: Order, progress: Progress | None = None) -> Extraction:
    """Measure the device's level, search, measure the finalists, refit, choose.

    Raises:
        InfeasibleBudget: no subnet is predicted to fit.
        OpNotProfiled: the target was not profiled for this space, and the order forbids it.
        GateFailed: every finalist was measured over the budget; names the best of them.
    """
    subject, spread, constraints = order.subject, order.spread, order.constraints
    if order.tuning is not None:
        check_trainable(subject, order.tuning)
    gradient = gradient_of(subject, order.plan) if order.plan.strategy == GRADIENT and not order.front else None
    fleet.fetch(order.target)
    bench = Bench(fleet, workspace, order, progress, gradient)
    model, codec = bench.ready()
    bench.gauge = Gauge(workspace, order.target, subject.sizes or codec.space, model)
    model = model.at(bench.look(order.session))
    for attempt in range(TRIES if spread else 1):
        if spread:
            constraints = order.constraints.within(spread.budget(subject, model, codec, constraints.confidence))
        try:
            found = _answer(bench, constraints, model, codec)
            missed = _missed(bench, found) if spread else None
            if missed is None:
                return found
            met = order.constraints.within(rounded_up(APART * missed.measured_ms))
            return _conclude(bench, met, model, (), found.recalled)
        except (GateFailed, InfeasibleBudget) as error:
            model = learned(model, bench.finalists).at(bench.look() if spread else bench.level)
            if not spread:
                raise _explained(error, bench, constraints, model, codec) from error
            if attempt + 1 == TRIES and not bench.finalists:
                raise
    nearest = min(bench.finalists, key=lambda finalist: finalist.measured_ms)
    least = max(nearest.measured_ms, spread.above if spread else 0.0)
    return _conclude(bench, order.constraints.within(rounded_up(APART * least)), model, (), frozenset())


def _answer(bench: Bench, constraints: Constraints, model: LatencyModel, codec: PopulationCodec) -> Extraction:
    """Search under one latency bound, measure, refit, and choose."""
    order = bench.order
    for attempt in range(ROUNDS):
        try:
            bench.result = _search(bench, constraints, model, codec, order.seed + attempt)
            fresh = worth_measuring(bench.result.finalists, bench.finalists, constraints)
        except InfeasibleBudget:  # after what the finalists showed; they may have seen a busy moment
            if not bench.finalists:
                raise
            fresh = []
        if fresh:
            bench.finalists += bench.measure(model, fresh)
        elif bench.finalists and not fitting(bench.finalists, constraints):
            bench.finalists = bench.measure_again(bench.finalists, keep=False)
        else:
            break
        if order.may_profile and differences(model.table.condition, bench.finalists[-1].record.condition):
            model = bench.ready()[0]  # under another condition the device counts as another one
        model = learned(model, bench.finalists).at(bench.level)
    bench.finalists = _confirm(bench, model, bench.finalists, constraints)
    known, tuning = _meeting(bench, constraints, model, codec, [one.arch for one in order.earlier]), order.tuning
    again = {one.arch.key for one in order.earlier if tuning is not None and one.tuned and tuning.made(one.tuned)}
    recalled = set[str]()
    while better := _rivals(bench, known, constraints, model, again):
        recalled |= {point.arch.key for point in better}
        bench.finalists = _confirm(bench, model, bench.finalists + bench.measure(model, better), constraints)
    return _conclude(bench, constraints, model, again, frozenset(recalled))


def _conclude(
    bench: Bench, constraints: Constraints, model: LatencyModel, again: Collection[str], recalled: frozenset[str]
) -> Extraction:
    """Choose among the finalists, after fine-tuning the best of them where that is asked for."""
    order, target = bench.order, bench.order.target
    session_std = learned(model, bench.finalists).session_std
    chosen = choose(bench.finalists, target, constraints, session_std)
    if order.tuning is not None:
        best_first = ranked(fitting(bench.finalists, constraints), constraints, session_std)
        others = [one for one in best_first[order.tuned :] if one.point.arch.key in again]
        trained = {id(f): bench.tune(f, order.tuning) for f in [*best_first[: order.tuned], *others]}
        bench.finalists = [trained.get(id(f), f) for f in bench.finalists]
        chosen = choose(list(trained.values()), target, constraints, session_std)
    beside = bench.fp32_record(chosen) if target.precision == "int8" else None
    if bench.result is None:
        raise ValueError("nothing was searched")
    found = (bench.result, bench.finalists, chosen, session_std, beside)
    return Extraction(order.subject, target, constraints, order.seed, *found, recalled=recalled)


def _missed(bench: Bench, found: Extraction) -> Finalist | None:
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
    bench: Bench,
    constraints: Constraints,
    model: LatencyModel,
    codec: PopulationCodec,
) -> OfaDeployError:
    """The same error, with what the device's level now has to do with it and a budget that holds."""
    budget, subject, finalists = constraints.max_ms, bench.order.subject, bench.finalists
    if budget is None or bench.level is None:
        return error
    holds = holding(subject, model, codec, constraints.confidence)
    if finalists:
        nearest = min(finalists, key=lambda finalist: finalist.measured_ms)
        holds, arch = max(holds, ROOM * nearest.measured_ms), nearest.point.arch
    else:
        arch, _ = fastest_of(subject, model, codec, Constraints().confidence)
    network = subject.space.network(arch)
    quiet, usual = float(model.undisturbed([network])[0]), float(model.at(None).predict([network])[0][0])
    return type(error)(f"{error}; {because_of_the_level(bench.level, quiet, usual, budget, rounded_up(holds))}")


def _search(
    bench: Bench, constraints: Constraints, model: LatencyModel, codec: PopulationCodec, seed: int
) -> SearchResult:
    """Under the upper bound; where nothing is sure to fit, by the mean: the measurement will tell."""
    order, subject, target = bench.order, bench.order.subject, bench.order.target
    latency, accuracy = model.bind(codec).predict, subject.accuracy(codec)
    covered = [arch for arch in order.front if arch.resolution in codec.space.resolutions]

    def under(bounds: Constraints) -> SearchResult:
        problem = Problem(codec, accuracy, latency, bounds, target.batch, target.precision, gradient=bench.gradient)
        return pick(problem, covered) if order.front else planned(problem, order.plan, seed)

    try:
        return under(constraints)
    except InfeasibleBudget:
        if constraints.max_ms is None or constraints.confidence <= EVEN:
            raise
        return under(constraints.model_copy(update={"confidence": EVEN}))


def _confirm(bench: Bench, model: LatencyModel, finalists: list[Finalist], constraints: Constraints) -> list[Finalist]:
    """Measure the best of those that fit again, until one of them has fitted twice."""
    for _ in range(CONFIRMATIONS):
        session_std = learned(model, finalists).session_std
        best_first = ranked(fitting(finalists, constraints), constraints, session_std)
        once = [f for f in best_first if len(f.records) < 2][:CONFIRMED]
        if constraints.max_ms is None or not once or len(best_first[0].records) > 1:
            break
        again = {id(f): new for f, new in zip(once, bench.measure_again(once, keep=True), strict=True)}
        finalists = [again.get(id(f), f) for f in finalists]
    return finalists


def _meeting(
    bench: Bench, constraints: Constraints, model: LatencyModel, codec: PopulationCodec, archs: Sequence[Arch]
) -> list[Point]:
    """Of given subnets those that meet the constraints, whatever their latency: that is measured."""
    target, different = bench.order.target, list({arch.key: arch for arch in archs}.values())
    covered = [arch for arch in different if arch.resolution in codec.space.resolutions] if different else []
    if not covered:
        return []
    latency, accuracy = model.bind(codec).predict, bench.order.subject.accuracy(codec)
    problem = Problem(codec, accuracy, latency, constraints.within(None), target.batch, target.precision)
    try:
        return pick(problem, covered, None).finalists
    except InfeasibleBudget:
        return []


def _rivals(
    bench: Bench, known: list[Point], constraints: Constraints, model: LatencyModel, again: Collection[str]
) -> list[Point]:
    """Of the earlier answers those that were not measured yet, and are expected to be more accurate than the best that
    was. Fine-tuned ones (``again``) are compared after their fine-tuning."""
    session_std = learned(model, bench.finalists).session_std
    seen = {finalist.point.arch.key for finalist in bench.finalists}
    best_first = ranked(fitting(bench.finalists, constraints), constraints, session_std)
    best = best_first[0].worth if best_first else float("-inf")
    left = [point for point in known if point.arch.key not in seen]
    return [p for p, worth in zip(left, bench.worth(left), strict=True) if worth > best or p.arch.key in again]
