"""``search`` and ``pareto``: the best subnets by prediction, without measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.accuracy import Predictor, objective
from ofa_deploy.api.common import Where, in_frame, opened, save_figures, targets_in
from ofa_deploy.api.supernets import question_of, subject_of
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.kept_baselines import measured_baselines
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.documents.fronts_document import FrontsFound
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.fleet import resolve_target
from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.notices import Tell, silent
from ofa_deploy.report.text import predictor_std
from ofa_deploy.search import (
    GRADIENT,
    Constraints,
    FrontPoint,
    Fronts,
    Plan,
    Problem,
    SearchResult,
    find_fronts,
    planned,
)
from ofa_deploy.search.strategies import find_strategy
from ofa_deploy.space import Arch, Family, PopulationCodec
from ofa_deploy.store import Workspace

if TYPE_CHECKING:  # it loads torch
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.search import Gradient


@dataclass(frozen=True)
class Found:
    """What a search by prediction found.

    Attributes:
        results: for each precision that has an answer, the whole result: ``best``, ``finalists``, ``front``, ``trace``.
        refused: for each other precision, why no subnet meets the constraints.
        precision: the precision of the best answer.
        judge: the error of the accuracy predictor that judged the subnets. Without one, larger networks counted as
            better.
        simulated: whether the latencies are those of a simulated device.
        level: how fast the device is now, as ``predict --now`` tells it; None if that was not asked or is not known.
    """

    results: dict[str, SearchResult]
    refused: dict[str, str]
    precision: str
    judge: PredictorError | None
    simulated: bool
    level: dict[str, Any] | None = None

    @property
    def judged(self) -> bool:
        """Whether an accuracy predictor judged the subnets."""
        return self.judge is not None

    @property
    def best(self) -> SearchResult:
        """The result in the best precision."""
        return self.results[self.precision]

    @property
    def arch(self) -> Arch:
        """The best subnet."""
        return self.best.best.arch

    @property
    def accuracy(self) -> float | None:
        """Its predicted accuracy, a fraction; None without a predictor."""
        return self.best.best.accuracy if self.judged else None

    @property
    def latency_ms(self) -> float | None:
        """Its predicted latency in ms; None if no latency was asked for."""
        return self.best.best.latency_ms

    def to_json(self) -> dict[str, Any]:
        """What ``ofa-deploy search --json`` prints."""
        result, best = self.best, self.best.best
        answer = {
            "precision": self.precision,
            "arch": best.arch.to_json(),
            "accuracy": self.accuracy,
            "accuracy_std": predictor_std(self.judge or PredictorError()),
            "latency_ms": best.latency_ms,
            "upper_ms": best.upper_ms,
            "evaluations": result.evaluations,
            "seconds": result.seconds,
            "strategy": result.strategy,
            "bound": result.bound if self.judged else None,
            "regret": result.regret if self.judged else None,
            "proven": result.proven,
            "trace": [vars(step) for step in result.trace],
            **({"course": result.course, "acted": result.acted} if result.course else {}),
            "simulated": self.simulated,
            **({"level": self.level} if self.level else {}),
        }
        if len(self.results) + len(self.refused) > 1:
            each = {
                name: {"accuracy": one.best.accuracy if self.judged else None, "upper_ms": one.best.upper_ms}
                for name, one in self.results.items()
            }
            answer["precisions"] = {**each, **{name: {"refused": why} for name, why in self.refused.items()}}
        return answer


@dataclass(frozen=True)
class Question:
    """A search that was not run yet.

    Attributes:
        problems: for each precision, what a strategy solves.
        levels: for each precision whose level now was measured, how the answer tells it of a subnet.
    """

    space: Family
    predictor: Predictor | None
    problems: dict[str, Problem]
    simulated: bool
    levels: dict[str, Callable[[Arch], dict[str, Any]]] = field(default_factory=dict)


def question(
    target: str,
    constraints: Constraints,
    *,
    supernet: Subject | str | Path | None = None,
    space: str | None = None,
    accuracy: str | None = None,
    precision: str | Sequence[str] | None = None,
    strategies: Sequence[str] = (),
    plan: Plan | None = None,
    seed: int = 0,
    now: bool = False,
    workspace: Where = None,
    progress: Tell = silent,
) -> Question:
    """Load what ``search`` needs; see there."""
    for name in strategies:
        find_strategy(name)
    where = opened(workspace)
    targets = targets_in(target, precision, where)
    found, predictor, _ = question_of(supernet, space, accuracy, seed, where, progress)
    gradient = None
    if GRADIENT in strategies:
        gradient = _gradient(supernet, space, accuracy, plan or Plan(), where)
    problems: dict[str, Problem] = {}
    levels: dict[str, Callable[[Arch], dict[str, Any]]] = {}
    simulated = False
    for one in targets:
        model, codec = ready_model(None, where, one, found, constraints.statistic)
        if now and (level := _level_now(where, one, codec, model, progress)):
            model = model.at(level)
            levels[one.precision] = partial(_told, model, level, found)
        score, latency = objective(codec, predictor), model.bind(codec).predict
        problem = Problem(codec, score, latency, constraints, one.batch, one.precision, gradient=gradient)
        problems[one.precision], simulated = problem, model.table.simulated
    return Question(found, predictor, problems, simulated, levels)


def _level_now(
    workspace: Workspace, target: TargetProfile, codec: PopulationCodec, model: LatencyModel, progress: Tell
) -> LevelNow | None:
    from ofa_deploy.fleet.gauge import looking  # and with it ONNX

    told = partial(progress, f"measure how fast {target.name} is now")
    with looking(workspace, target, told) as look:
        return look(codec.space, model)


def _told(model: LatencyModel, level: LevelNow, space: Family, arch: Arch) -> dict[str, Any]:
    return level.told(float(model.undisturbed([space.network(arch)])[0])).to_json()


def _gradient(
    supernet: Subject | str | Path | None, space: str | None, accuracy: str | None, plan: Plan, workspace: Workspace
) -> Gradient:
    """What the strategy ``differentiable`` learns from."""
    from ofa_deploy.deploy.subject import find_supernet, open_subject
    from ofa_deploy.deploy.subject_gradient import gradient_of

    if space or (accuracy and supernet is None):
        raise UsageError(
            "strategy differentiable learns on a supernet's images: give --supernet, or choose another --strategy"
        )
    if supernet is None or isinstance(supernet, (str, Path)):
        supernet = open_subject(workspace, find_supernet(workspace, Path(supernet) if supernet else None))
    return gradient_of(supernet, plan)


def search(
    target: str = "local",
    *,
    max_ms: float | None = None,
    supernet: Subject | str | Path | None = None,
    space: str | None = None,
    accuracy: str | None = None,
    precision: str | Sequence[str] | None = None,
    strategy: str = "evolution",
    plan: Plan | None = None,
    seed: int = 0,
    now: bool = False,
    workspace: Where = None,
    progress: Tell = silent,
    **bounds: Any,
) -> Found:
    """Find the best subnet by prediction; measure nothing, or with ``now`` how fast the device is.

    Args:
        target: the device, which must be profiled.
        max_ms: the latency budget in milliseconds.
        supernet: what ``load_supernet`` returned, or a path. By default the newest one in the workspace, or the one in
            the package.
        space: search a space with random weights instead of a supernet: a preset's name or a YAML file.
        accuracy: the name of an imported accuracy predictor.
        precision: one of ``fp32``, ``fp16``, ``bf16`` and ``int8``, or several, of which the best answer counts.
        strategy: ``evolution``, ``exact``, ``nsga2``, ``predictor-guided``, ``random``, ``regularized``,
            ``reinforce`` or ``differentiable``.
        plan: limits of the search, ``ofa_deploy.search.Plan``; its strategy is not used.
        seed: random seed of the search.
        now: measure for two seconds how fast the device is now, and predict for now.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.
        bounds: other constraints, as in ``ofa_deploy.search.Constraints``: ``max_macs``, ``max_params``,
            ``max_memory_mb`` (1e6 bytes), ``statistic``, ``confidence`` and others.

    Returns:
        The best subnet with its predictions, and the search behind it.

    Raises:
        InfeasibleBudget: no subnet meets the constraints.
        OpNotProfiled: the device was not profiled for this space.
        UsageError: there is no such device, supernet, space or strategy.

    Example:
        >>> found = ofa_deploy.search("local", max_ms=2)
        >>> found.arch.to_json(), found.accuracy, found.latency_ms
    """
    asked = question(
        target,
        Constraints(max_ms=max_ms, **bounds),
        supernet=supernet,
        space=space,
        accuracy=accuracy,
        precision=precision,
        strategies=(strategy,),
        plan=plan,
        seed=seed,
        now=now,
        workspace=workspace,
        progress=progress,
    )
    return answered(asked, strategy, plan, seed)


def answered(asked: Question, strategy: str, plan: Plan | None, seed: int) -> Found:
    """Search in each precision; of equal answers the first counts."""
    planned_so = (plan or Plan()).following(strategy)
    results: dict[str, SearchResult] = {}
    refused: dict[str, InfeasibleBudget] = {}
    for precision, problem in asked.problems.items():
        try:
            results[precision] = planned(problem, planned_so, seed)
        except InfeasibleBudget as error:
            refused[precision] = error
    if not results:
        raise next(iter(refused.values()))
    best = max(results, key=lambda name: results[name].best.accuracy)
    why = {name: str(error) for name, error in refused.items()}
    judge = None if asked.predictor is None else asked.predictor.error
    level = asked.levels[best](results[best].best.arch) if best in asked.levels else None
    return Found(results, why, best, judge, asked.simulated, level)


@dataclass(frozen=True)
class Front:
    """The best subnets at every latency, of one device or several.

    Attributes:
        answer: what ``ofa-deploy pareto --json`` prints: ``fronts`` by device, and ``joint``, the subnets that meet the
            budgets of all devices; ``targets`` says of each device whether it is ``simulated``, and with ``now`` its
            ``level`` in the middle of its front, if that is known.
    """

    answer: dict[str, Any]

    def points(self, target: str | None = None) -> list[dict[str, Any]]:
        """A device's front by rising ``upper_ms``; its points have ``arch``, ``accuracy`` and ``latency_ms``, too."""
        return self.answer["fronts"][target or next(iter(self.answer["fronts"]))]

    def save(self, file: str | Path) -> None:
        """Write the front: as figures (.json), as a plot (.svg) or as a page (.html)."""
        from ofa_deploy.report.front_plot import front_svg, render_fronts

        save_figures(file, self.answer, FrontsFound, front_svg, render_fronts)

    def _repr_html_(self) -> str:
        from ofa_deploy.report.front_plot import render_fronts

        return in_frame(render_fronts(FrontsFound.read(self.answer)))


def pareto(
    targets: str | Sequence[str] = "local",
    *,
    points: int = 12,
    supernet: Subject | str | Path | None = None,
    space: str | None = None,
    accuracy: str | None = None,
    seed: int = 0,
    now: bool = False,
    workspace: Where = None,
    progress: Tell = silent,
    **bounds: Any,
) -> Front:
    """Find the best subnet at every latency, by prediction, in one search.

    Args:
        targets: a device or several, which must be profiled.
        points: the number of latency budgets for each device.
        supernet: what ``load_supernet`` returned, or a path; by default as in ``search``.
        space: search a space with random weights instead of a supernet.
        accuracy: the name of an imported accuracy predictor.
        seed: random seed of the search.
        now: measure for two seconds how fast each device is now, and predict for now.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.
        bounds: other constraints than the latency, as in ``search``.

    Returns:
        The fronts. In a notebook they show as a page.

    Raises:
        OpNotProfiled: a device was not profiled for this space.
        UsageError: the devices have no input size in common, or there is no such device, supernet or space.

    Example:
        >>> front = ofa_deploy.pareto("local", points=8)
        >>> [(point["latency_ms"], point["accuracy"]) for point in front.points()]
    """
    where, constraints = opened(workspace), Constraints(**bounds)
    names = (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
    # a predictor that is named alone answers without torch
    if not accuracy or supernet is not None or space is not None:
        supernet, space = subject_of(supernet, space, accuracy, seed, where, progress), None
    chosen, predictor, digest = question_of(supernet, space, accuracy, seed, where, progress)
    codec, models = _devices(where, constraints.statistic, names, chosen)
    levels = dict[str, LevelNow]()
    for name in names if now else ():
        if level := _level_now(where, resolve_target(name, where), codec, models[name], progress):
            levels[name], models[name] = level, models[name].at(level)
    found = find_fronts(
        codec,
        objective(codec, predictor),
        {name: model.bind(codec).predict for name, model in models.items()},
        constraints,
        points,
        seed,
        lambda p: progress("search", p),
    )
    return Front(
        {
            "kind": "front",
            "space": chosen.name,
            "supernet_sha256": digest,
            "accuracy": accuracy,
            "predicted": predictor is not None,
            "predictor_error": None if predictor is None else predictor.error.to_json(),
            "statistic": constraints.statistic,
            "confidence": constraints.confidence,
            "constraints": constraints.bounds,
            "seed": seed,
            "targets": {
                name: {
                    "simulated": model.table.simulated,
                    **_level_of(model, levels.get(name), found.fronts[name], codec),
                }
                for name, model in models.items()
            },
            **_figures(codec, found),
            **_beside(where, names, supernet),
        }
    )


def _beside(workspace: Workspace, names: Sequence[str], supernet: object) -> dict[str, Any]:
    """By device, the hand-picked networks of the same images that were measured there; nothing where there are none."""
    data = getattr(supernet, "data", None)
    if data is None:
        return {}
    rows = {name: measured_baselines(workspace, resolve_target(name, workspace), data.fingerprint) for name in names}
    return (
        {"baselines": {n: [one.to_json() for one in found] for n, found in rows.items()}} if any(rows.values()) else {}
    )


def _devices(
    workspace: Workspace, statistic: str, names: tuple[str, ...], space: Family
) -> tuple[PopulationCodec, dict[str, LatencyModel]]:
    """The part of a space that every device's table covers, and the latency models."""
    ready = {name: ready_model(None, workspace, resolve_target(name, workspace), space, statistic) for name in names}
    common = tuple(r for r in space.resolutions if all(r in codec.space.resolutions for _, codec in ready.values()))
    if not common:
        raise UsageError(
            f"the devices have no resolution in common: profile the same one on each of {', '.join(names)} "
            "with: ofa-deploy profile --resolution"
        )
    return PopulationCodec(space.with_resolutions(common)), {name: model for name, (model, _) in ready.items()}


def _level_of(
    model: LatencyModel, level: LevelNow | None, front: Sequence[FrontPoint], codec: PopulationCodec
) -> dict[str, Any]:
    """The level in the middle of a front."""
    return {"level": _told(model, level, codec.space, front[len(front) // 2].arch)} if level else {}


def _figures(codec: PopulationCodec, found: Fronts) -> dict[str, Any]:
    def told(point: Any) -> dict[str, Any]:
        return {"key": point.arch.key, "arch": point.arch.to_json(), "accuracy": point.accuracy}

    return {
        "fronts": {
            name: [{**told(p), "latency_ms": p.latency_ms[name], "upper_ms": p.upper_ms[name]} for p in front]
            for name, front in found.fronts.items()
        },
        "joint": [
            {
                "budgets_ms": row.budgets_ms,
                **told(row.best),
                "latency_ms": row.best.latency_ms,
                "upper_ms": row.best.upper_ms,
                "macs": float(codec.macs(codec.encode([row.best.arch]))[0]),
            }
            for row in found.joint
        ],
        "evaluations": found.evaluations,
        "seconds": found.seconds,
    }
