"""A network asked for in one YAML: what may be built, under which constraints, how it is searched and trained.

It says the same as a recipe and a pipeline's stages, in the words of architecture search at large. ``run`` takes it as
a whole; ``search`` and ``extract`` take its constraints and its strategy with ``--question``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, field_validator

from ofa_deploy.config import (
    Bound,
    DataConfig,
    Document,
    Positive,
    TrainRecipe,
    key_lines,
    known_strategy,
    line_of,
    read_document,
    term,
)
from ofa_deploy.errors import UsageError
from ofa_deploy.pipeline.document import PipelineDocument, filling
from ofa_deploy.space import PRESETS, SearchSpace, rescale
from ofa_deploy.terms import PLAN, Relaxation, Statistic

HEADS = ("classifier",)
MILLION = 1e6


class Backbone(Document):
    """A preset or a family of presets, multiplied in width and depth.

    Attributes:
        type: a preset's name, or the part of it before the width, as in ``ofa_mbv3``.
        width_mult: multiplies channels.
        depth_mult: multiplies the blocks of each stage.
    """

    type: str
    width_mult: Bound = 1.0
    depth_mult: Bound = 1.0


class Head(Document):
    """What comes after the backbone.

    Attributes:
        type: ``classifier``; there is no other.
        num_classes: classes.
    """

    type: str = "classifier"
    num_classes: Annotated[int, Field(ge=2)] | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in HEADS:
            raise ValueError(f"there is no head {name!r}: networks here classify images; there is {', '.join(HEADS)}")
        return name


class SpaceQuestion(Document):
    """What may be built.

    Attributes:
        backbone: the network's body.
        head: the network's end: its keys, or just its type.
    """

    backbone: Backbone
    head: Head = Head()

    @field_validator("head", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class LatencyQuestion(Document):
    """The device, and the latency budget there.

    Attributes:
        target_device: a registered device or a kind of device.
    """

    target_device: str = "local"
    max_ms: float | None = term("max_ms")
    statistic: Statistic = term("statistic")
    confidence: float = term("confidence")


class SizeQuestion(Document):
    """Bounds on parameters and memory."""

    max_params_m: float | None = term("max_params", "Maximum number of parameters in millions.")
    min_params_m: float | None = term("min_params", "Minimum number of parameters in millions.")
    max_memory_mb: float | None = term("max_memory_mb")


class ComputeQuestion(Document):
    """Bounds on multiply-accumulates and blocks."""

    max_macs_m: float | None = term("max_macs", "Maximum number of multiply-accumulates in millions.")
    min_macs_m: float | None = term("min_macs", "Minimum number of multiply-accumulates in millions.")
    max_layers: float | None = term("max_layers")
    max_large_kernels: float | None = term("max_large_kernels")
    max_energy_mj: float | None = term("max_energy_mj")


class ConstraintsQuestion(Document):
    """All bounds.

    Attributes:
        latency: the device, and the latency budget there.
        size: bounds on parameters and memory.
        compute: bounds on multiply-accumulates and blocks.
    """

    latency: LatencyQuestion = LatencyQuestion()
    size: SizeQuestion = SizeQuestion()
    compute: ComputeQuestion = ComputeQuestion()


class StrategyQuestion(Document):
    """How the supernet is trained and searched.

    Attributes:
        supernet_epochs: epochs of the supernet's training; ``run`` needs it.
        finetune_epochs: epochs for which the best finalist is fine-tuned; none if left out.
        seed: of training and search.
    """

    algorithm: str = term("strategy")
    supernet_epochs: Positive | None = None
    finetune_epochs: Positive | None = None
    population_size: int | None = term("population")
    evaluations: int | None = term("evaluations")
    time_limit_s: float | None = term("time_limit")
    relaxation: Relaxation | None = term("relaxation", optional=True)
    gradient_steps: int | None = term("gradient_steps", optional=True)
    train_weights: bool | None = term("train_weights", optional=True)
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("algorithm")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_strategy(name, "algorithm")


class Question(Document):
    """A network asked for in one file, for ``run FILE``, ``search --question`` and ``extract --question``.

    Attributes:
        name: names the results.
        search_space: what may be built.
        constraints: what the network must meet.
        strategy: how it is trained and searched.
        data: the images, as in a recipe.
        recipe: any other keys of a recipe.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")] = "question"
    search_space: SpaceQuestion | None = None
    constraints: ConstraintsQuestion = ConstraintsQuestion()
    strategy: StrategyQuestion = StrategyQuestion()
    data: DataConfig | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)

    @property
    def bounds(self) -> dict[str, Any]:
        """The bounds under the names of ``Constraints``; those that are given."""
        size, compute = self.constraints.size, self.constraints.compute
        found = {**size.model_dump(exclude_none=True), **compute.model_dump(exclude_none=True)}
        return {k.removesuffix("_m"): v * MILLION if k.endswith("_m") else v for k, v in found.items()}

    @property
    def plan(self) -> dict[str, Any]:
        """How it is searched, under the names of ``Plan``; what is given."""
        names = {"algorithm": "strategy", "population_size": "population", "time_limit_s": "time_limit"}
        given = self.strategy.model_dump(exclude_none=True)
        return {names.get(k, k): v for k, v in given.items() if k in {*names, *PLAN}}


def read_pipeline(path: Path, parameters: Mapping[str, str] = MappingProxyType({})) -> PipelineDocument:
    """A pipeline's YAML file, or one that asks for a network in the words of a ``Question``.

    Args:
        parameters: values, as YAML, that come instead of those in the document.

    Raises:
        UsageError: as ``read_document``, or as ``as_pipeline``; or there is no such parameter.
    """
    asks = {("search_space",), ("constraints",), ("strategy",)} & set(key_lines(path))
    if not asks:
        return read_document(PipelineDocument, path, filling(parameters, path))
    if parameters:
        raise UsageError(f"{path} asks for a network, and has no parameters; change its keys instead")
    return as_pipeline(path)


def read_question(source: str | Path | Mapping[str, Any]) -> Question:
    """Read the document.

    Raises:
        UsageError: as ``read_document``.
    """
    return read_document(Question, source)


def as_pipeline(source: str | Path | Mapping[str, Any]) -> PipelineDocument:
    """The pipeline that answers a question: train, profile the device, extract, each with the settings asked for.

    Raises:
        UsageError: a key is unknown or wrong, or one that a pipeline needs is missing; names file, line and key.
    """
    question = read_question(source)
    if question.search_space is None or question.data is None or question.strategy.supernet_epochs is None:
        raise UsageError(f"{source}: to train a supernet give search_space, data and strategy.supernet_epochs")
    if not (question.bounds or question.constraints.latency.max_ms):
        raise UsageError(f"{source}: give a bound, such as constraints.latency.max_ms")
    latency, strategy = question.constraints.latency, question.strategy
    recipe = {
        "name": question.name,
        "space": space_of(question.search_space, source).to_json(),
        "data": question.data.model_dump(),
        "epochs": strategy.supernet_epochs,
        "seed": strategy.seed,
        **question.recipe,
    }
    extract = {
        "stage": "extract",
        "target": latency.target_device,
        "max_ms": [latency.max_ms] if latency.max_ms else [],
        "statistic": latency.statistic,
        "confidence": latency.confidence,
        "seed": strategy.seed,
        **question.bounds,
        **question.plan,
        **({"finetune": 1, "finetune_epochs": strategy.finetune_epochs} if strategy.finetune_epochs else {}),
    }
    stages = [
        {"stage": "train", "recipe": read_document(TrainRecipe, recipe).model_dump(mode="json")},
        {"stage": "profile", "target": latency.target_device},
        extract,
    ]
    return read_document(PipelineDocument, {"name": question.name, "stages": stages})


def space_of(asked: SpaceQuestion, source: str | Path | Mapping[str, Any] = "") -> SearchSpace:
    """The space of a backbone and a head.

    ``type`` is a preset's name, or the part of it before the width, as in ``ofa_mbv3``, of which there are presets for
    some ``width_mult``. Everything else is that preset rescaled, rounded as EfficientNets are.

    Raises:
        UsageError: there is no such backbone, or the multiplied one is out of range.
    """
    backbone = asked.backbone
    named = f"{backbone.type}_w{backbone.width_mult:.1f}"
    width = backbone.width_mult
    if named in PRESETS and round(width, 1) == width:
        base, width = PRESETS[named], 1.0
    elif found := PRESETS.get(backbone.type) or PRESETS.get(f"{backbone.type}_w1.0"):
        base = found
    else:
        families = sorted({*PRESETS, *(name.removesuffix("_w1.0") for name in PRESETS)})
        key = ("search_space", "backbone", "type")
        where = f"{line_of(source, *key)}: " if source else ""
        raise UsageError(
            f"{where}{'.'.join(key)}: there is no backbone {backbone.type!r}; there are {', '.join(families)}"
        )
    if width != 1.0 or backbone.depth_mult != 1.0:
        name = f"{base.name}-w{width:g}-d{backbone.depth_mult:g}"
        base = rescale(base, name, width, backbone.depth_mult, 1.0)
    if (classes := asked.head.num_classes) not in (None, base.num_classes):
        base = replace(base, name=f"{base.name}-c{classes}", num_classes=classes)
    return base
