"""The options that `search`, `extract` and `pareto` share; they arrive as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import BUDGET, SEARCH, SUBJECT, json_option, option, supernet_option, with_options

if TYPE_CHECKING:
    from ofa_deploy.search import Constraints

STRATEGY_NAMES = (  # here too, because the list of strategies itself takes long to load
    "evolution",
    "exact",
    "nsga2",
    "predictor-guided",
    "random",
    "regularized",
    "reinforce",
    "differentiable",
)

BUDGET_OPTIONS = (
    option("--target", default="local", show_default=True, group=BUDGET, help="Device that must meet the budget."),
    option("--max-ms", type=float, group=BUDGET, help="Latency budget in milliseconds."),
)
BOUND_OPTIONS = (
    option(
        "--statistic",
        default="p50",
        show_default=True,
        type=click.Choice(["p50", "p90", "p99"]),
        group=BUDGET,
        help="Latency percentile that the budget limits.",
    ),
    option(
        "--confidence",
        default=0.95,
        show_default=True,
        group=BUDGET,
        help="Probability with which the predicted latency must stay within the budget.",
    ),
    option("--max-macs", type=float, group=BUDGET, help="Maximum number of multiply-accumulates, for example 2e6."),
    option("--max-params", type=float, group=BUDGET, help="Maximum number of parameters."),
    option(
        "--max-memory-mb",
        type=float,
        group=BUDGET,
        help="Maximum memory for weights and live activations, in MB (1e6 bytes).",
    ),
    option("--max-layers", type=float, group=BUDGET, help="Maximum number of blocks, with stem, head and classifier."),
    option(
        "--max-large-kernels", type=float, group=BUDGET, help="Maximum number of blocks with a kernel larger than 5×5."
    ),
    option("--min-macs", type=float, group=BUDGET, help="Minimum number of multiply-accumulates."),
    option("--min-params", type=float, group=BUDGET, help="Minimum number of parameters."),
    option(
        "--max-energy-mj",
        type=float,
        group=BUDGET,
        help="Maximum energy in millijoules. Not available yet: no runtime measures energy.",
    ),
)
QUESTION = option(
    "--question",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, file: _take(context, file),
    group=BUDGET,
    help="YAML file with constraints and search strategy. Options on the command line override it.",
)
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


PLAN_OPTIONS = (
    option("--time-limit", type=float, group=SEARCH, help="Stop the search after this many seconds."),
    option("--evaluations", type=click.IntRange(min=1), group=SEARCH, help="Stop the search after this many subnets."),
    option(
        "--population",
        type=click.IntRange(min=2),
        group=SEARCH,
        help="Number of subnets that the strategy keeps, or proposes at a time.",
    ),
    option(
        "--relaxation",
        default="binary",
        show_default=True,
        type=click.Choice(["binary", "gumbel", "softmax"]),
        group=SEARCH,
        help="How --strategy differentiable relaxes discrete choices.",
    ),
    option(
        "--gradient-steps",
        type=click.IntRange(min=1),
        default=200,
        show_default=True,
        group=SEARCH,
        help="Gradient steps of --strategy differentiable; each uses one batch.",
    ),
    option(
        "--train-weights",
        is_flag=True,
        group=SEARCH,
        help="With --strategy differentiable: also train a copy of the supernet's weights.",
    ),
)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a ``search.Plan``, except the strategy. The command gets them as its argument ``plan``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        from ofa_deploy.search import GradientSettings, Plan

        gradient = GradientSettings(*(options.pop(name) for name in ("relaxation", "gradient_steps", "train_weights")))
        limits = {name: options.pop(name) for name in ("evaluations", "population", "time_limit")}
        return command(*arguments, plan=Plan(**limits, gradient=gradient), **options)

    return with_options(collected, PLAN_OPTIONS)


@dataclass(frozen=True)
class Request:
    """What to search, for which device, and under which constraints."""

    constraints: Constraints
    target: str
    seed: int
    supernet: Path | None
    accuracy: str | None
    space_name: str | None
    random_weights: bool
    as_json: bool

    @property
    def subject(self) -> dict[str, Any]:
        """What to choose from, as arguments of the functions of ``ofa_deploy``.

        Raises:
            UsageError: only one of ``--space`` and ``--random-weights`` was given.
        """
        check_space(self.space_name, self.random_weights)
        return {"supernet": self.supernet, "space": self.space_name, "accuracy": self.accuracy, "seed": self.seed}


def check_space(space: str | None, random_weights: bool) -> None:
    """Refuse ``--space`` or ``--random-weights`` alone."""
    from ofa_deploy.errors import UsageError

    if random_weights != bool(space):
        raise UsageError("--space and --random-weights go together: give both, or neither (a supernet has a space)")


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a ``Request``. The command gets the checked ``Request`` as its argument ``request``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        return command(*arguments, request=_request(_checked(_constraints(options)), options), **options)

    return with_options(collected, (QUESTION, *BUDGET_OPTIONS, *BOUND_OPTIONS, *SUBJECT_OPTIONS))


def front_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command with several ``targets`` and no budget. The request's target is the first of them."""

    @wraps(command)
    def collected(*arguments: Any, targets: tuple[str, ...], **options: Any) -> Any:
        options |= {"max_ms": None, "target": targets[0]}
        return command(*arguments, targets=targets, request=_request(_constraints(options), options), **options)

    return with_options(collected, (*BOUND_OPTIONS, *SUBJECT_OPTIONS))


def _request(constraints: Constraints, options: dict[str, Any]) -> Request:
    """Take a request out of a command's options."""
    names = [field.name for field in fields(Request) if field.name != "constraints"]
    return Request(constraints, **{name: options.pop(name) for name in names})


def _take(context: click.Context, file: Path | None) -> None:
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


def constraint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--target`` and the bounds. The command gets them as its arguments ``target`` and ``constraints``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        return command(*arguments, constraints=_checked(_constraints(options)), **options)

    return with_options(collected, (*BUDGET_OPTIONS, *BOUND_OPTIONS))


def _constraints(options: dict[str, Any]) -> Constraints:
    """Take the bounds out of a command's options."""
    from ofa_deploy.search import Constraints

    return Constraints(**{field.name: options.pop(field.name) for field in fields(Constraints)})


def _checked(constraints: Constraints) -> Constraints:
    from ofa_deploy.errors import UsageError

    if not constraints.bounds:
        raise UsageError(
            "no budget: give a budget with --max-ms, --max-macs, --max-params, --max-memory-mb or another bound"
        )
    return constraints
