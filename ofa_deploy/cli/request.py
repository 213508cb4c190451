"""What `search`, `extract` and `pareto` are all asked: their common options arrive as one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ofa_deploy.search import Constraints

BUDGET_OPTIONS = (
    click.option("--target", default="local", show_default=True, help="The device that must meet the budget."),
    click.option("--max-ms", type=float, help="Latency budget in ms."),
)
BOUND_OPTIONS = (
    click.option(
        "--statistic",
        default="p50",
        show_default=True,
        type=click.Choice(["p50", "p90", "p99"]),
        help="Which latency the budget bounds.",
    ),
    click.option("--confidence", default=0.95, show_default=True, help="That the latency bound holds."),
    click.option("--max-macs", type=float, help="Bound on multiply-accumulates, e.g. 2e6."),
    click.option("--max-params", type=float, help="Bound on parameters."),
    click.option("--max-memory-mb", type=float, help="Bound on weights and live activations, in MB (1e6 bytes)."),
    click.option("--max-layers", type=float, help="Bound on blocks, stem, head and classifier counted."),
    click.option("--max-large-kernels", type=float, help="Bound on blocks whose kernel is larger than 5×5."),
    click.option("--min-macs", type=float, help="Lower bound on multiply-accumulates."),
    click.option("--min-params", type=float, help="Lower bound on parameters."),
    click.option("--max-energy-mj", type=float, help="Bound on energy; refused until a runtime measures it."),
)
QUESTION = click.option(
    "--question",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=lambda context, _, file: _take(context, file),
    help="YAML with constraints and strategy; what is also given here counts.",
)
SUBJECT_OPTIONS = (
    click.option("--seed", default=0, show_default=True),
    click.option(
        "--supernet", type=click.Path(path_type=Path), help="[default: the workspace's newest, or what ships]"
    ),
    click.option("--accuracy", help="An imported accuracy predictor's name.  [default: the supernet's own]"),
    click.option("--space", "space_name", help="With --random-weights: preset or YAML file."),
    click.option("--random-weights", is_flag=True, help="Study latency alone, without a trained supernet."),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
)


PLAN_OPTIONS = (
    click.option("--time-limit", type=float, help="Seconds after which the best so far is taken."),
    click.option("--evaluations", type=click.IntRange(min=1), help="Subnets to look at, at most."),
    click.option(
        "--population", type=click.IntRange(min=2), help="Subnets that a strategy keeps, or asks for at a time."
    ),
    click.option(
        "--relaxation",
        default="binary",
        show_default=True,
        type=click.Choice(["binary", "gumbel", "softmax"]),
        help="How --strategy differentiable mixes choices.",
    ),
    click.option(
        "--gradient-steps", type=click.IntRange(min=1), default=200, show_default=True, help="Of that, a batch each."
    ),
    click.option("--train-weights", is_flag=True, help="Train a copy of the supernet's weights between them."),
)


def plan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a ``search.Plan`` but for the strategy, and the plan as its argument ``plan``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        from ofa_deploy.search import GradientSettings, Plan

        gradient = GradientSettings(*(options.pop(name) for name in ("relaxation", "gradient_steps", "train_weights")))
        limits = {name: options.pop(name) for name in ("evaluations", "population", "time_limit")}
        return command(*arguments, plan=Plan(**limits, gradient=gradient), **options)

    for option in reversed(PLAN_OPTIONS):
        collected = option(collected)
    return collected


@dataclass(frozen=True)
class Request:
    """What is searched, for whom, and under which constraints."""

    constraints: Constraints
    target: str
    seed: int
    supernet: Path | None
    accuracy: str | None
    space_name: str | None
    random_weights: bool
    as_json: bool

    @property
    def options(self) -> list[str]:
        """The words of a command that asks for the same, but for the supernet that it finds."""
        words = ["--target", self.target, *self.constraints.options, "--seed", str(self.seed)]
        words += ["--accuracy", self.accuracy] if self.accuracy else []
        return words + (["--space", self.space_name, "--random-weights"] if self.space_name else [])


def request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a ``Request``, and the checked ``Request`` as its argument ``request``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        return command(*arguments, request=_request(_checked(_constraints(options)), options), **options)

    for option in reversed((QUESTION, *BUDGET_OPTIONS, *BOUND_OPTIONS, *SUBJECT_OPTIONS)):
        collected = option(collected)
    return collected


def front_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that finds the budgets itself, for its ``targets``: the request's is the first of them."""

    @wraps(command)
    def collected(*arguments: Any, targets: tuple[str, ...], **options: Any) -> Any:
        options |= {"max_ms": None, "target": targets[0]}
        return command(*arguments, targets=targets, request=_request(_constraints(options), options), **options)

    for option in reversed((*BOUND_OPTIONS, *SUBJECT_OPTIONS)):
        collected = option(collected)
    return collected


def _request(constraints: Constraints, options: dict[str, Any]) -> Request:
    """Take a request out of a command's options."""
    names = [field.name for field in fields(Request) if field.name != "constraints"]
    return Request(constraints, **{name: options.pop(name) for name in names})


def _take(context: click.Context, file: Path | None) -> None:
    """Make what a YAML file asks for the defaults of the options."""
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
    """Give a command ``--target`` and the bounds, as its arguments ``target`` and ``constraints``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        return command(*arguments, constraints=_checked(_constraints(options)), **options)

    for option in reversed((*BUDGET_OPTIONS, *BOUND_OPTIONS)):
        collected = option(collected)
    return collected


def _constraints(options: dict[str, Any]) -> Constraints:
    """Take the bounds out of a command's options."""
    from ofa_deploy.search import Constraints

    return Constraints(**{field.name: options.pop(field.name) for field in fields(Constraints)})


def _checked(constraints: Constraints) -> Constraints:
    from ofa_deploy.errors import UsageError

    if not constraints.bounds:
        raise UsageError("give a budget: --max-ms, --max-macs, --max-params, --max-memory-mb or another bound")
    return constraints
