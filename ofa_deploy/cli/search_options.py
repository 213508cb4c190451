"""The options that `search`, `extract`, `pareto` and `gate` share; they arrive as one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import (
    BUDGET,
    SEARCH,
    SUBJECT,
    gathered,
    json_option,
    option,
    supernet_option,
    term_option,
)
from ofa_deploy.terms import CONSTRAINTS, PLAN

if TYPE_CHECKING:
    from ofa_deploy.config import CellChoice, Constraints, Plan
    from ofa_deploy.deploy.request import Source


@dataclass(frozen=True)
class Asked:
    """What to search, for which devices, and under which constraints."""

    constraints: Constraints
    targets: tuple[str, ...]
    seed: int
    supernet: Path | None
    accuracy: str | None
    space_name: str | None
    random_weights: bool
    as_json: bool

    @property
    def target(self) -> str:
        """The only device, or the first."""
        return self.targets[0]

    @property
    def subject(self) -> dict[str, Any]:
        """What to choose from, as arguments of the functions of ``ofa_deploy``.

        Raises:
            UsageError: only one of ``--space`` and ``--random-weights`` was given.
        """
        check_space(self.space_name, self.random_weights)
        return {"supernet": self.supernet, "space": self.space_name, "accuracy": self.accuracy, "seed": self.seed}

    def source(self, cells: CellChoice | None = None) -> Source:
        """Which networks there are to choose from.

        Args:
            cells: networks of cells instead of all others.

        Raises:
            UsageError: options were given that do not go together.
        """
        from ofa_deploy.deploy.request import Source

        if cells:
            chosen = cells.model_copy(update={"random_weights": self.random_weights})
            return Source(self.supernet, self.space_name, self.accuracy, chosen)
        check_space(self.space_name, self.random_weights)
        return Source(self.supernet, self.space_name, self.accuracy)


@dataclass(frozen=True)
class Bounded:
    """A device, and the constraints of what runs there."""

    target: str
    constraints: Constraints


def check_space(space: str | None, random_weights: bool) -> None:
    """Refuse ``--space`` or ``--random-weights`` alone."""
    from ofa_deploy.errors import UsageError

    if random_weights != bool(space):
        raise UsageError("--space and --random-weights go together: give both, or neither (a supernet has a space)")


def _take(context: click.Context, _: click.Parameter, file: Path | None) -> None:
    """Use what a YAML file asks as the defaults of the options."""
    if file is None:
        return
    from ofa_deploy.pipeline.question import read_question

    question = read_question(file)
    latency, plan = question.constraints.latency, question.plan
    context.default_map = {
        **question.bounds,
        **latency.model_dump(exclude={"target_device"}, exclude_none=True),
        **plan,
        "target": latency.target_device,
        "seed": question.strategy.seed,
        "strategies": [plan["strategy"]],
    }


def _constraints(values: dict[str, Any]) -> Constraints:
    """Take the constraints out of the values of options."""
    from ofa_deploy.config import Constraints

    return Constraints.model_validate({name: values.pop(name) for name in CONSTRAINTS if name in values})


def _bounded(values: dict[str, Any]) -> Constraints:
    """The same; one bound at least must be given."""
    from ofa_deploy.errors import UsageError

    constraints = _constraints(values)
    if not constraints.bounds:
        raise UsageError(
            "no budget: give a budget with --max-ms, --max-macs, --max-params, --max-memory-mb or another bound"
        )
    return constraints


def _plan(values: dict[str, Any]) -> Plan:
    from ofa_deploy.config import Plan

    return Plan.model_validate(values)


question_option = option(
    "--question",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_take,
    group=BUDGET,
    help="YAML file with constraints and search strategy. Options on the command line override it.",
)
target_option = option(
    "--target", default="local", show_default=True, group=BUDGET, help="Device that must meet the budget."
)
targets_option = option(
    "--target",
    "targets",
    multiple=True,
    default=("local",),
    show_default=True,
    group=BUDGET,
    help="Device to search for. Repeat the option for several.",
)
CONSTRAINT_OPTIONS = tuple(term_option(name, BUDGET) for name in CONSTRAINTS)
WITHOUT_LATENCY = tuple(term_option(name, BUDGET) for name in CONSTRAINTS if name != "max_ms")
SUBJECT_OPTIONS = (
    option("--seed", default=0, show_default=True, group=SEARCH, help="Random seed of the search."),
    supernet_option(),
    option(
        "--accuracy",
        group=SUBJECT,
        help="Name of an imported accuracy predictor.  [default: the supernet's own]",
    ),
    option("--space", "space_name", group=SUBJECT, help="Search space for --random-weights: preset or YAML file."),
    option(
        "--random-weights", is_flag=True, group=SUBJECT, help="Use random weights, to study latency without training."
    ),
    json_option,
)

# for a command with one target and at least one bound: ``asked``, an ``Asked``
asked_options = gathered(
    "asked",
    (question_option, target_option, *CONSTRAINT_OPTIONS, *SUBJECT_OPTIONS),
    lambda values: Asked(_bounded(values), (values.pop("target"),), **values),
)
# for a command with several targets and no latency budget: the same
front_options = gathered(
    "asked",
    (targets_option, *WITHOUT_LATENCY, *SUBJECT_OPTIONS),
    lambda values: Asked(_constraints(values), **values),
)
# for a command that judges what it is given: ``bounded``, a ``Bounded``
constraint_options = gathered(
    "bounded", (target_option, *CONSTRAINT_OPTIONS), lambda values: Bounded(values["target"], _bounded(values))
)
# how to search: ``plan``, a ``Plan``
plan_options = gathered("plan", tuple(term_option(name, SEARCH) for name in PLAN), _plan)
# the same for a command that takes several strategies
limit_options = gathered("plan", tuple(term_option(name, SEARCH) for name in PLAN if name != "strategy"), _plan)
