"""A pipeline's YAML: its parameters, its targets, its stages, and the gates that decide whether it passes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from ofa_deploy.config import (
    Bound,
    CellChoice,
    Document,
    OtherConstraints,
    PlanTerms,
    Positive,
    Precision,
    Some,
    TrainRecipe,
    term,
)
from ofa_deploy.documents.json_document import Free, FreeObject
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.pipeline.gates import parse_check
from ofa_deploy.terms import Statistic

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PARAMETER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
Name = Annotated[str, Field(pattern=NAME)]


class TrainStage(Document):
    """Train a supernet and fit its accuracy predictor.

    Attributes:
        stage: ``train``.
        recipe: a recipe's file, or its keys.
    """

    stage: Literal["train"]
    recipe: str | TrainRecipe


class ImportStage(Document):
    """Take a supernet that exists.

    Attributes:
        stage: ``import``.
        supernet: a file, a folder, or the name of one in the current folder or in the package.
    """

    stage: Literal["import"]
    supernet: str


class OnTargets(Document):
    """A stage that does the same on several targets: those that it names, or all of the pipeline's.

    Attributes:
        target: the only target.
        targets: the only targets; give this or ``target``.
    """

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
    """Measure the blocks of the supernet's space, and whole networks of it.

    Attributes:
        stage: ``profile``.
        networks: whole networks to measure beside the blocks.
        protocol: measurement settings that differ from the defaults.
    """

    stage: Literal["profile"]
    networks: Annotated[int, Field(ge=0)] = 10
    protocol: FreeObject = Field(default_factory=dict)


class AuditStage(OnTargets):
    """Measure networks that took no part in fitting, and report how far the predictions can be trusted.

    Attributes:
        stage: ``audit``.
        networks: networks to measure.
        seed: of their choice.
        protocol: measurement settings that differ from the defaults.
    """

    stage: Literal["audit"]
    networks: Positive = 12
    seed: Annotated[int, Field(ge=0)] = 0
    statistic: Statistic = term("statistic", "Latency percentile that is compared.")
    protocol: FreeObject = Field(default_factory=dict)


class ExtractStage(PlanTerms, OtherConstraints, OnTargets):
    """Extract a subnet for each latency budget: those given, or ``spread`` of them over the feasible range; or a single
    one under the other bounds alone.

    Attributes:
        stage: ``extract``.
        max_ms: latency budgets in ms.
        spread: chooses this many budgets over the feasible range, instead of ``max_ms``.
        precision: the only precision, or several, of which the best network counts; default: the target's own.
        front: JSON file that ``pareto`` wrote: the finalists are taken from it, without a search.
        darts: networks of cells instead of the supernet's subnets.
        seed: of the search.
        finetune: fine-tunes this many of the finalists that fit before the choice.
        finetune_epochs: epochs of fine-tuning; default: a quarter of the recipe's.
        embed_preprocessing: adds a model file that takes images as they are read.
        protocol: measurement settings that differ from the defaults.
    """

    stage: Literal["extract"]
    max_ms: tuple[Bound, ...] = ()
    spread: Annotated[int, Field(ge=0)] = 0
    precision: tuple[Precision, ...] = ()
    front: Path | None = None
    darts: CellChoice | None = None
    seed: int = 0
    finetune: Annotated[int, Field(ge=0)] = 0
    finetune_epochs: Positive | None = None
    embed_preprocessing: bool = False
    protocol: FreeObject = Field(default_factory=dict)

    @field_validator("max_ms", "precision", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return value if isinstance(value, (list, tuple)) else [value]


class VerifyStage(Document):
    """Check every bundle of the earlier stages, as ``ofa-deploy verify`` does.

    Attributes:
        stage: ``verify``.
    """

    stage: Literal["verify"]


class CompareStage(Document):
    """Write one page that compares all bundles of the earlier stages.

    Attributes:
        stage: ``compare``.
        title: the page's title.
        cross: measures every subnet on every target.
        protocol: measurement settings that differ from the defaults.
    """

    stage: Literal["compare"]
    title: str
    cross: bool = False
    protocol: FreeObject = Field(default_factory=dict)


Stage = Annotated[
    TrainStage | ImportStage | ProfileStage | AuditStage | ExtractStage | VerifyStage | CompareStage,
    Field(discriminator="stage"),
]


class GateDocument(Document):
    """A condition on reports. A plain string is a check on all targets.

    Attributes:
        check: a metric, ``<=``, ``>=``, ``<`` or ``>``, and a number or ``budget``: ``latency.p50 <= 15``.
        targets: the only targets whose reports are checked.
    """

    check: str
    targets: tuple[Name, ...] = ()

    @field_validator("check")
    @classmethod
    def _parses(cls, check: str) -> str:
        parse_check(check)
        return check


class PipelineDocument(Document):
    """A pipeline for ``run FILE``. Stages run in order; what did not change is skipped.

    Attributes:
        name: names the folder of results.
        parameters: values for ``${name}`` anywhere in the document; ``run -p name=value`` gives another value.
        targets: devices by name, each with the keys that differ from its profile. ``profile`` names the profile where
            it is not the target's own name. For a profile with ``loopback`` an agent is started here.
        stages: what is done, in order.
        gates: conditions that every report must meet.
        baseline: folder with the bundles of an earlier run, such as the last release, to compare with.
    """

    name: Annotated[str, Field(pattern=NAME)]
    parameters: dict[str, str | int | float | bool | list[Free]] = Field(default_factory=dict)
    targets: dict[Name, FreeObject] = Field(default_factory=dict)
    stages: Some[Stage]
    gates: tuple[GateDocument, ...] = ()
    baseline: str | None = None

    @field_validator("targets", mode="before")
    @classmethod
    def _unchanged(cls, targets: object) -> object:
        """A name alone is a target as its profile says."""
        return {name: found or {} for name, found in targets.items()} if isinstance(targets, dict) else targets

    @field_validator("gates", mode="before")
    @classmethod
    def _alone(cls, gates: object) -> object:
        """A check alone holds for all targets."""
        return [{"check": g} if isinstance(g, str) else g for g in gates] if isinstance(gates, list) else gates


def filling(given: Mapping[str, str], where: str | Path) -> Callable[[dict[str, JSON]], dict[str, JSON]]:
    """What puts a document's parameters in their places.

    Args:
        given: values, as YAML, that come instead of the document's own.
        where: the document, for errors.

    Raises, when called:
        UsageError: a parameter is used or given, but not declared.
    """

    def fill(data: dict[str, JSON]) -> dict[str, JSON]:
        declared = data.get("parameters") or {}
        if not isinstance(declared, dict):
            return data  # validation says what is wrong
        if unknown := [name for name in given if name not in declared]:
            raise UsageError(f"{where}: there is no parameter {unknown[0]!r}; there are: {_names(declared)}")
        values = {**declared, **{name: yaml.safe_load(text) for name, text in given.items()}}
        filled = {key: _filled(part, values, where) for key, part in data.items() if key != "parameters"}
        return {**filled, "parameters": values} if "parameters" in data else filled

    return fill


def _filled(part: JSON, values: Mapping[str, JSON], where: str | Path) -> JSON:
    if isinstance(part, dict):
        return {key: _filled(inner, values, where) for key, inner in part.items()}
    if isinstance(part, list):
        return [_filled(inner, values, where) for inner in part]
    if not isinstance(part, str):
        return part

    def value(found: re.Match[str]) -> JSON:
        if found[1] not in values:
            raise UsageError(f"{where}: there is no parameter {found[1]!r}; there are: {_names(values)}")
        return values[found[1]]

    if whole := PARAMETER.fullmatch(part):  # keeps its type
        return value(whole)
    return PARAMETER.sub(lambda found: str(value(found)), part)


def _names(parameters: Mapping[str, JSON]) -> str:
    return ", ".join(parameters) or "none; declare it under parameters"
