"""`quickstart` and `run`: whole pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.output import emit, progress, shout

if TYPE_CHECKING:
    from ofa_deploy.pipeline import PipelineResult


def _run(workspace: Path | None, file: str) -> PipelineResult:
    from ofa_deploy.config import find_file
    from ofa_deploy.pipeline import read_pipeline, run_pipeline
    from ofa_deploy.store import Workspace

    document = read_pipeline(find_file(file, "pipelines"))

    with progress() as tell:
        return run_pipeline(document, Workspace.open(workspace), tell)


def _print(result: PipelineResult) -> None:
    from rich.console import Console
    from rich.table import Table

    simulated = any(report["target"]["simulated"] for report in result.reports)
    table = Table(title="SIMULATED in part or whole" if simulated else "measured" if result.reports else None)
    for column in ("target", "budget ms", "predicted ms", "measured p50 ms", "error %", "fits", "accuracy %", "params"):
        table.add_column(column, justify="right")
    for report in result.reports:
        latency, accuracy = report["latency"], report["accuracy"]["measured"]
        table.add_row(
            shout(report["target"]["simulated"]) + report["target"]["name"],
            "none" if report["budget"]["max_ms"] is None else f"{report['budget']['max_ms']:g}",
            f"{latency['predicted_ms']:.4f}",
            f"{latency['measured_ms']['p50']:.4f}",
            f"{latency['error_pct']:+.1f}",
            {True: "yes", False: "NO", None: "–"}[latency["fits"]],
            "not measured" if accuracy is None else f"{100 * accuracy:.2f}",
            f"{report['subnet']['params']:,}",
        )
    Console().print(table)
    for report in result.reports:
        click.echo(f"bundle: {report['bundle']}")
    if result.page:
        click.echo(f"compare: {result.page}")


def _answer(result: PipelineResult) -> dict:
    return {"reports": result.reports, "page": str(result.page) if result.page else None, "skipped": result.skipped}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def quickstart(workspace: Path | None, as_json: bool) -> None:
    """Train, measure, search, extract and report on this machine, small and real, in a few minutes.

    Example: ofa-deploy quickstart
    """
    result = _run(workspace, "quickstart.yaml")
    if as_json:
        emit(_answer(result))
        return
    _print(result)
    click.echo(
        "next:\n"
        "  open the page above in a browser\n"
        f"  ofa-deploy verify {result.reports[0]['bundle']}\n"
        "  ofa-deploy train-supernet -c pipelines/fashion_mnist.yaml     60 000 real images\n"
        "  ofa-deploy profile --target local && ofa-deploy extract --target local --max-ms 2"
    )


@click.command()
@click.argument("file")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def run(workspace: Path | None, file: str, as_json: bool) -> None:
    """Run a pipeline from YAML: yours, or one that ships.  Example: ofa-deploy run pipelines/quickstart.yaml"""
    result = _run(workspace, file)
    if as_json:
        emit(_answer(result))
    else:
        _print(result)


COMMANDS = (quickstart, run)
