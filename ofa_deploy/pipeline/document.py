"""A pipeline's YAML: its parameters, its targets, its stages, and the gates that decide whether it passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from ofa_deploy.config import Bound, Document, Positive, Relaxation, TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.pipeline.gates import parse_check

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PARAMETER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
Name = Annotated[str, Field(pattern=NAME)]


class TrainStage(Document):
    """Train a supernet and fit its accuracy predictor."""

    stage: Literal["train"]
    recipe: str | TrainRecipe  # a file's name, or the recipe itself


class ImportStage(Document):
    """Take a supernet that is there: a file or a folder, or one by name where you stand or in the package."""

    stage: Literal["import"]
    supernet: str


class OnTargets(Document):
    """A stage that does the same on several targets: those that it names, or all of the pipeline's."""

    target: Name | None = None
    targets: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> OnTargets:
        if self.target and self.targets:
            raise ValueError("give target or targets, not both")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        """The targets that the stage names itself."""
        return (self.target,) if self.target else self.targets


class ProfileStage(OnTargets):
    """Measure the blocks of the supernet's space, and whole networks of it."""

    stage: Literal["profile"]
    networks: Annotated[int, Field(ge=0)] = 10
    protocol: dict[str, Any] = Field(
        default_factory=dict
    )  # settings that differ from the default ones; see fleet.Protocol


class AuditStage(OnTargets):
    """Measure networks that took no part in fitting, and say how far the predictions can be trusted."""

    stage: Literal["audit"]
    networks: Positive = 12
    seed: Annotated[int, Field(ge=0)] = 0
    statistic: Literal["p50", "p90", "p99"] = "p50"
    protocol: dict[str, Any] = Field(default_factory=dict)


class ExtractStage(OnTargets):
    """Extract a subnet for each latency budget: those given, or ``spread`` of them over the feasible range; or a single
    one under the other bounds alone (``search.Constraints`` says what they mean)."""

    stage: Literal["extract"]
    max_ms: tuple[Bound, ...] = ()
    spread: Annotated[int, Field(ge=0)] = 0
    max_macs: Bound | None = None
    max_params: Bound | None = None
    max_memory_mb: Bound | None = None
    max_energy_mj: Bound | None = None
    max_layers: Bound | None = None
    max_large_kernels: Annotated[float, Field(ge=0)] | None = None
    min_macs: Bound | None = None
    min_params: Bound | None = None
    statistic: Literal["p50", "p90", "p99"] = "p50"  # which latency the budgets bound
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: int = 0
    strategy: str = "evolution"  # how it is searched, and within what: see ``search.Plan``
    evaluations: Positive | None = None
    population: Annotated[int, Field(ge=2)] | None = None
    time_limit: Bound | None = None  # seconds
    relaxation: Relaxation = "binary"  # of the strategy differentiable; see ``search.GradientSettings``
    gradient_steps: Positive = 200
    train_weights: bool = False
    finetune: Annotated[int, Field(ge=0)] = 0  # of the finalists that fit, so many are trained on
    finetune_epochs: Positive | None = None  # default: a quarter of the recipe's
    embed_preprocessing: bool = False  # add a model file that takes images as they are read
    protocol: dict[str, Any] = Field(default_factory=dict)

    @field_validator("max_ms", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else [value]


class VerifyStage(Document):
    """Check every bundle of the stages before as ``ofa-deploy verify`` does."""

    stage: Literal["verify"]


class CompareStage(Document):
    """One page of all bundles of the stages before; with ``cross``, every subnet is measured on every target."""

    stage: Literal["compare"]
    title: str
    cross: bool = False
    protocol: dict[str, Any] = Field(default_factory=dict)


Stage = Annotated[
    TrainStage | ImportStage | ProfileStage | AuditStage | ExtractStage | VerifyStage | CompareStage,
    Field(discriminator="stage"),
]


class GateDocument(Document):
    """A condition on every report, or on those of some targets: ``latency.p50 <= 15``; see ``pipeline.gates``."""

    check: str
    targets: tuple[Name, ...] = ()

    @field_validator("check")
    @classmethod
    def _parses(cls, check: str) -> str:
        parse_check(check)
        return check


class PipelineDocument(Document):
    """``run FILE``: stages in order; what did not change is skipped.

    Attributes:
        parameters: what ``${name}`` stands for anywhere in the document; ``run -p name=value`` gives another value.
        targets: by name, what is different from a profile, which ``profile`` names where it is not the name itself. For
            one with ``loopback`` an agent is started here.
        baseline: folder of the bundles of an earlier run, such as the last release, to compare with.
    """

    name: Annotated[str, Field(pattern=NAME)]
    parameters: dict[str, str | int | float | bool | list[Any]] = Field(default_factory=dict)
    targets: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    gates: tuple[GateDocument, ...] = ()
    baseline: str | None = None

    @field_validator("targets", mode="before")
    @classmethod
    def _unchanged(cls, targets: Any) -> Any:
        """A name alone is a target as its profile says."""
        return {name: found or {} for name, found in targets.items()} if isinstance(targets, dict) else targets

    @field_validator("gates", mode="before")
    @classmethod
    def _alone(cls, gates: Any) -> Any:
        """A check alone holds for all targets."""
        return [{"check": g} if isinstance(g, str) else g for g in gates] if isinstance(gates, list) else gates


def filling(given: Mapping[str, str], where: str | Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What puts a document's parameters in their places.

    Args:
        given: values, as YAML, that come instead of the document's own.
        where: the document, for errors.

    Raises, when called:
        UsageError: a parameter is used or given, but not declared.
    """

    def fill(data: dict[str, Any]) -> dict[str, Any]:
        declared = data.get("parameters") or {}
        if not isinstance(declared, dict):
            return data  # validation says what is wrong
        if unknown := [name for name in given if name not in declared]:
            raise UsageError(f"{where}: there is no parameter {unknown[0]!r}; there are: {_names(declared)}")
        values = {**declared, **{name: yaml.safe_load(text) for name, text in given.items()}}
        filled = {key: _filled(part, values, where) for key, part in data.items() if key != "parameters"}
        return {**filled, "parameters": values} if "parameters" in data else filled

    return fill


def _filled(part: Any, values: Mapping[str, Any], where: str | Path) -> Any:
    if isinstance(part, dict):
        return {key: _filled(inner, values, where) for key, inner in part.items()}
    if isinstance(part, list):
        return [_filled(inner, values, where) for inner in part]
    if not isinstance(part, str):
        return part

    def value(found: re.Match[str]) -> Any:
        if found[1] not in values:
            raise UsageError(f"{where}: there is no parameter {found[1]!r}; there are: {_names(values)}")
        return values[found[1]]

    if whole := PARAMETER.fullmatch(part):  # keeps its type
        return value(whole)
    return PARAMETER.sub(lambda found: str(value(found)), part)


def _names(parameters: Mapping[str, Any]) -> str:
    return ", ".join(parameters) or "none; declare it under parameters"
