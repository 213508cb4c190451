"""`pareto`: the front of accuracy against latency, for one device or several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ofa_deploy.cli.options import BUDGET, command, now_option, option, output_option
from ofa_deploy.cli.output import emit, picture, progress, shout, slower
from ofa_deploy.cli.search_options import Asked, front_options


@command(first=("targets", "points", "supernet", "statistic", "output", "as_json"))
@option(
    "--points",
    type=click.IntRange(1, 200),
    default=12,
    show_default=True,
    group=BUDGET,
    help="Number of latency budgets for each device.",
)
@front_options
@now_option
@output_option("File to write: .html for a page, .svg for a plot, .json for `extract --front`.", callback=picture)
@click.pass_obj
def pareto(
    workspace: Path | None,
    points: int,
    asked: Asked,
    now: bool,
    output: Path | None,
) -> None:
    """Find the best subnet at every latency, by prediction; measure nothing but, with --now, how fast the devices are.

    One search finds the whole front of accuracy against latency. With several --target options it finds the front of
    each device, and the subnets that meet the budgets of all devices. `extract --front` takes its finalists from the
    JSON file and skips the search.

    \b
    Examples:
      ofa-deploy pareto --target local --points 8 -o front.html
      ofa-deploy pareto --target local --now -o front.json
    """
    from ofa_deploy.api.front_search import pareto as run

    with progress() as tell:
        found = run(
            asked.targets,
            points=points,
            now=now,
            **asked.subject,
            workspace=workspace,
            progress=tell,
            **vars(asked.constraints),
        )
    if output is not None:
        found.save(output)
    if asked.as_json:
        emit(found.answer)
        return
    for line in _table(found.answer, list(found.answer["fronts"])):
        click.echo(line)
    for name, facts in found.answer["targets"].items():
        if level := facts.get("level"):
            click.echo(f"{name} is {slower(level)}")
    if output is not None:
        click.echo(str(output))


def _table(answer: dict[str, Any], names: list[str]) -> list[str]:
    """One line for each row of budgets: the best subnet that meets them."""
    from ofa_deploy.documents.predictor_error import PredictorError
    from ofa_deploy.report.text import predicted

    lines, error = [], PredictorError.read(answer["predictor_error"])
    for row in answer["joint"]:
        within = "  ".join(
            f"{shout(answer['targets'][name]['simulated'])}{name} {row['latency_ms'][name]:.4g} ms, budget "
            f"{row['budgets_ms'][name]:.4g} ms"
            for name in names
        )
        judged = predicted(row["accuracy"], error) if answer["predicted"] else "accuracy unknown"
        lines.append(f"{judged}  {within}  {row['macs'] / 1e6:.2f} M MACs  {row['key'][:12]}")
    sizes = ", ".join(f"{len(answer['fronts'][name])} on {name}'s front" for name in names)
    return [*lines, f"predicted: {answer['evaluations']} subnets assessed in {answer['seconds']:.1f} s; {sizes}"]


COMMANDS = (pareto,)
