"""`quickstart` and `run`: run whole pipelines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import command, json_option, option
from ofa_deploy.cli.output import emit, progress, shout

if TYPE_CHECKING:
    from ofa_deploy.pipeline.outcome import Outcome


def _run(
    workspace: Path | None,
    file: str,
    parameters: dict[str, str] | None = None,
    dry: bool = False,
    baseline: Path | None = None,
) -> Outcome:
    from ofa_deploy.config import find_file
    from ofa_deploy.pipeline.question import read_pipeline
    from ofa_deploy.pipeline.runner import run_pipeline
    from ofa_deploy.store import Workspace

    document = read_pipeline(find_file(file, "pipelines"), parameters or {})

    with progress() as tell:
        return run_pipeline(document, Workspace.open(workspace), tell, dry, baseline)


def _print(result: Outcome) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from ofa_deploy.report.text import accuracy

    simulated = any(report["target"]["simulated"] for report in result.reports)
    how = "SIMULATED in part or whole" if simulated else "measured"
    table = Table(
        title=f"{how}: p50 in ms, accuracy with its 95 % interval" if result.reports else None,
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in ("target", "budget", "predicted", "measured", "error", "fits", "accuracy"):
        table.add_column(column, justify="right", no_wrap=column != "target", overflow="fold")
    for report in result.reports:
        latency, found = report["latency"], report["accuracy"]
        table.add_row(
            shout(report["target"]["simulated"]) + report["target"]["name"],
            "none" if report["budget"]["max_ms"] is None else f"{report['budget']['max_ms']:g}",
            f"{latency['predicted_ms']:.4g}",
            f"{latency['measured_ms']['p50']:.4g}",
            f"{latency['error_pct']:+.1f} %",
            {True: "yes", False: "NO", None: "–"}[latency["fits"]],
            accuracy(found["measured"], found["n"]),
        )
    Console().print(table)
    for report in result.reports:
        click.echo(f"bundle: {report['bundle']}")
    if result.page:
        click.echo(f"page: {result.page.as_uri()}")
    for verdict in result.verdicts:
        state = {True: "passed", False: "FAILED", None: "not compared"}[verdict.passed]
        click.echo(f"gate {state}: {verdict.bundle}: {verdict.gate} ({verdict.why})")


def _print_plan(result: Outcome) -> None:
    width = max(len(unit.name) for unit in result.units)
    for unit in result.units:
        click.echo(f"{unit.status:9}  {unit.name:{width}}  {unit.why}".rstrip())


def _answer(result: Outcome) -> dict:
    page = str(result.page) if result.page else None
    return {**result.to_json(), "reports": result.reports, "page": page, "skipped": result.skipped}


def _finish(result: Outcome) -> None:
    """Fail with the run's first error, after its results were printed."""
    if result.error:
        raise result.error


@command()
@json_option
@click.pass_obj
def quickstart(workspace: Path | None, as_json: bool) -> None:
    """Run the whole walk on this machine, in about a minute on two idle cores.

    The command trains a small supernet, measures this machine, and extracts a network for each of three latency
    budgets. Everything is real, only small. A page at the end shows the results.

    \b
    Example:
      ofa-deploy quickstart
    """
    result = _run(workspace, "quickstart.yaml")
    if as_json:
        emit(_answer(result))
    _finish(result)
    if as_json:
        return
    _print(result)
    click.echo("next, for example:")
    for line in next_steps(result, workspace):
        click.echo(f"  {line}")


def next_steps(result: Outcome, workspace: Path | None) -> list[str]:
    """Commands that work as they stand: verify a bundle, and extract for a larger budget."""
    program = ["ofa-deploy", *(["--workspace", str(workspace)] if workspace else [])]
    first = Path(result.reports[0]["bundle"])
    folder = first.relative_to(Path.cwd()) if first.is_relative_to(Path.cwd()) else first
    target = result.reports[0]["target"]["name"]
    budgets = [report["budget"]["max_ms"] or report["latency"]["measured_ms"]["p50"] for report in result.reports]
    return [
        shlex.join([*program, "verify", str(folder)]),
        shlex.join([*program, "extract", "--target", target, "--max-ms", f"{2 * max(budgets):.2g}"]),
    ]


@command()
@click.argument("file")
@option(
    "-p",
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a parameter of the pipeline. Repeat the option for several.",
)
@option("--dry-run", "dry", is_flag=True, help="List what the run would do, and stop.")
@option(
    "--baseline",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of bundles of an earlier run, such as the last release, to compare with.",
)
@json_option
@click.pass_obj
def run(
    workspace: Path | None, file: str, parameters: tuple[str, ...], dry: bool, baseline: Path | None, as_json: bool
) -> None:
    """Run a pipeline from a YAML file.

    FILE is your own, or one of the package such as pipelines/ci.yaml. The run skips what did not change since the last
    one. It fails if a stage or a gate fails.

    \b
    Examples:
      ofa-deploy run pipelines/quickstart.yaml
      ofa-deploy run pipelines/ci.yaml -p networks=8 --dry-run
    """
    pairs = [text.partition("=") for text in parameters]
    if wrong := [text for text, (_, sign, _) in zip(parameters, pairs, strict=True) if not sign]:
        raise click.UsageError(f"-p {wrong[0]}: write it as NAME=VALUE")
    result = _run(workspace, file, {name: value for name, _, value in pairs}, dry, baseline)
    if as_json:
        emit(_answer(result))
    elif dry:
        _print_plan(result)
    else:
        _print(result)
    _finish(result)


COMMANDS = (quickstart, run)
