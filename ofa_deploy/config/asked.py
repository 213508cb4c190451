"""What a search is asked: the constraints that a subnet must meet, and how they are searched.

Programs make these documents, too: there a wrong value is a ``UsageError`` that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, field_validator, model_validator

from ofa_deploy.config.yaml_document import Document, Positive
from ofa_deploy.errors import UsageError
from ofa_deploy.terms import BOUNDS, STRATEGY_NAMES, TERMS, Relaxation, Statistic

GRADIENT = "differentiable"  # the strategy that needs more than functions of populations


def term(name: str, meaning: str | None = None, optional: bool = False) -> Any:
    """A document's key that is a term, with its default, its range and its meaning.

    Args:
        meaning: in other words, or of another unit.
        optional: whether None stands where nothing is given, whatever the term's default.
    """
    known = TERMS[name]
    return Field(
        default=None if optional else known.default,
        description=meaning or known.meaning,
        gt=known.above,
        ge=known.least,
        lt=known.below,
        allow_inf_nan=False if known.kind is float else None,
    )


class Asked(Document):
    """A document that programs make: its errors are those of a user, and name the value."""

    @model_validator(mode="wrap")
    @classmethod
    def _plain(cls, given: Any, made: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return made(given)
        except ValidationError as error:
            first = error.errors()[0]
            name, said = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            if first["type"] == "extra_forbidden":
                said = f"there is no {name}; there are {', '.join(cls.model_fields)}"
            elif first["type"] != "value_error":
                said = f"{name.replace('_', '-')} must {TERMS[name].wanted}, not {first['input']}"
            raise UsageError(said) from error


class OtherConstraints(Document):
    """The constraints of a subnet beside the bound on its latency; None: no bound.

    The memory is what ``space.network_memory`` counts.
    """

    max_macs: float | None = term("max_macs")
    max_params: float | None = term("max_params")
    max_memory_mb: float | None = term("max_memory_mb")
    max_energy_mj: float | None = term("max_energy_mj")
    max_layers: float | None = term("max_layers")
    max_large_kernels: float | None = term("max_large_kernels")
    min_macs: float | None = term("min_macs")
    min_params: float | None = term("min_params")
    statistic: Statistic = term("statistic")
    confidence: float = term("confidence")

    @field_validator("max_energy_mj")
    @classmethod
    def _promised(cls, energy: float | None) -> float | None:
        if energy is not None:
            raise ValueError(
                "max-energy-mj cannot be promised: no runtime here measures energy; bound the time with --max-ms or "
                "the work with --max-macs"
            )
        return energy

    def constraints(self, max_ms: float | None) -> Constraints:
        """The same with a bound on the latency in ms."""
        return Constraints.model_validate(
            {**self.model_dump(include={*OtherConstraints.model_fields}), "max_ms": max_ms}
        )


class Constraints(Asked, OtherConstraints):
    """What a subnet must meet; None: no bound. The bound on the latency holds with probability ``confidence``."""

    max_ms: float | None = term("max_ms")

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that were asked for."""
        return {name: value for name in BOUNDS if (value := getattr(self, name)) is not None}

    @property
    def names(self) -> list[str]:
        """The bounds for a file's name: ``ms2``, ``macs2000000``."""
        return [f"{name.removeprefix('max_').replace('_', '')}{value:.12g}" for name, value in self.bounds.items()]

    @property
    def options(self) -> list[str]:
        """The words of a command that asks for the same."""
        given = {**self.bounds, "statistic": self.statistic, "confidence": self.confidence}
        texts = {name: value if isinstance(value, str) else f"{value:.12g}" for name, value in given.items()}
        return [word for name, text in texts.items() for word in (f"--{name.replace('_', '-')}", text)]

    def within(self, max_ms: float | None) -> Constraints:
        """The same with another bound on the latency, in ms."""
        return self.model_copy(update={"max_ms": max_ms})


class PlanTerms(Document):
    """How a search goes: which strategy, until when.

    The strategy ``differentiable`` relaxes choices in one of three ways. ``binary``: of every choice two paths are
    drawn, one of which runs (ProxylessNAS, Cai et al., ICLR 2019, §3.2). ``gumbel``: all run, mixed with noise that
    cools down (FBNet, Wu et al., CVPR 2019). ``softmax``: all run, mixed by their probabilities (DARTS, Liu et al.,
    ICLR 2019). It trains weights, if asked to, on the training split.
    """

    strategy: str = term("strategy")
    evaluations: int | None = term("evaluations")
    population: int | None = term("population")
    time_limit: float | None = term("time_limit")
    relaxation: Relaxation = term("relaxation")
    gradient_steps: int = term("gradient_steps")
    train_weights: bool = term("train_weights")

    @field_validator("strategy")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_strategy(name)

    @property
    def plan(self) -> Plan:
        """These alone."""
        return Plan.model_validate(self.model_dump(include={*PlanTerms.model_fields}))


class Plan(Asked, PlanTerms):
    """How to search; ``search.search`` says what each limit does."""

    def following(self, strategy: str) -> Plan:
        """The same limits for another strategy.

        Raises:
            UsageError: there is none of that name.
        """
        return Plan.model_validate({**self.model_dump(), "strategy": strategy})

    @property
    def options(self) -> list[str]:
        """The words of a command that searches alike."""
        given = {"evaluations": self.evaluations, "population": self.population, "time-limit": self.time_limit}
        words = [] if self.strategy == TERMS["strategy"].default else ["--strategy", self.strategy]
        words += [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
        if self.strategy == GRADIENT:
            words += ["--relaxation", self.relaxation, "--gradient-steps", str(self.gradient_steps)]
            words += ["--train-weights"] if self.train_weights else []
        return words


class CellChoice(Document):
    """Networks of cells: which cells, in which sizes, and whether the one that fits is trained.

    Attributes:
        config: the recipe of the cell search: a file of your own, or one of the package.
        genotype: file or folder with the cells; by default what the recipe's search found.
        cells: numbers of cells that the network may have; by default the recipe's.
        channels: numbers of channels that it may have; by default the recipe's.
        random_weights: leaves the weights random, to study latency without training.
    """

    config: str
    genotype: Path | None = None
    cells: tuple[Positive, ...] = ()
    channels: tuple[Positive, ...] = ()
    random_weights: bool = False

    @property
    def options(self) -> dict[str, object]:
        """The options of a command that asks for the same family, by name."""
        return {"family": "darts", **self.model_dump(exclude={"random_weights"})}

    @property
    def words(self) -> list[str]:
        """The words of a command that asks for the same."""
        given = {name: value if isinstance(value, tuple) else (value,) for name, value in self.options.items()}
        words = [w for name, values in given.items() for v in values if v is not None for w in (f"--{name}", str(v))]
        return [*words, *(["--random-weights"] if self.random_weights else [])]


def known_strategy(name: str, kind: str = "strategy") -> str:
    """The name of a strategy, checked.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in STRATEGY_NAMES:
        raise ValueError(f"there is no {kind} {name!r}; there are {', '.join(STRATEGY_NAMES)}")
    return name
