"""``search``: the best subnet by prediction, without measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.accuracy import Predictor, objective
from ofa_deploy.api.common import Where, opened, targets_in
from ofa_deploy.api.supernets import question_of
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.notices import Tell, silent
from ofa_deploy.report.text import predictor_std
from ofa_deploy.search import GRADIENT, Constraints, Plan, Problem, SearchResult, planned
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
        if now and (level := level_now(where, one, codec, model, progress)):
            model = model.at(level)
            levels[one.precision] = partial(level_told, model, level, found)
        score, latency = objective(codec, predictor), model.bind(codec).predict
        problem = Problem(codec, score, latency, constraints, one.batch, one.precision, gradient=gradient)
        problems[one.precision], simulated = problem, model.table.simulated
    return Question(found, predictor, problems, simulated, levels)


def level_now(
    workspace: Workspace, target: TargetProfile, codec: PopulationCodec, model: LatencyModel, progress: Tell
) -> LevelNow | None:
    """How fast a device is now, measured for two seconds; None where that cannot be known."""
    from ofa_deploy.fleet.gauge import looking  # and with it ONNX

    told = partial(progress, f"measure how fast {target.name} is now")
    with looking(workspace, target, told) as look:
        return look(codec.space, model)


def level_told(model: LatencyModel, level: LevelNow, space: Family, arch: Arch) -> dict[str, Any]:
    """What an answer says of a level, for one subnet."""
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
