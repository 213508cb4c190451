"""`baseline`: hand-picked networks beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import BUDGET, SUBJECT, command, json_option, option, supernet_option
from ofa_deploy.cli.output import emit, progress, shout
from ofa_deploy.cli.precision_option import precision_option
from ofa_deploy.cli.protocol_options import protocol_options

if TYPE_CHECKING:
    from ofa_deploy.documents.baselines_document import AnswerBeside, BaselinesFound, HandPicked
    from ofa_deploy.fleet import Protocol

LIST = "list"  # in place of names: show what was trained


@command(first=("target", "budgets", "epochs", "supernet"))
@click.argument("names", nargs=-1, metavar="[NAME]...|list")
@option("--target", default="local", show_default=True, group=BUDGET, help="Device to measure on.")
@option(
    "--max-ms",
    "budgets",
    multiple=True,
    type=click.FloatRange(0, min_open=True),
    group=BUDGET,
    help="Latency budget. Repeat the option for several.  [default: those of earlier extractions]",
)
@option(
    "--epochs",
    type=click.IntRange(1),
    group=SUBJECT,
    help="Epochs of each training.  [default: those of the supernet's recipe, and 15 of the plain one]",
)
@supernet_option()
@option("-c", "--config", metavar="FILE", group=SUBJECT, help="Training recipe in YAML, instead of a supernet.")
@option("--seed", default=0, show_default=True, group=SUBJECT, help="Random seed of the trainings.")
@precision_option
@protocol_options
@json_option
@click.pass_obj
def baseline(
    workspace: Path | None,
    names: tuple[str, ...],
    target: str,
    budgets: tuple[float, ...],
    epochs: int | None,
    supernet: Path | None,
    config: str | None,
    seed: int,
    precision: str | None,
    protocol: Protocol,
    as_json: bool,
) -> None:
    """Train hand-picked networks, and measure them beside what `extract` found.

    They show what a person gets without a search: a small network, as wide as the budget allows. NAME is
    resnet-A-B-C or plain-A-B-C with any widths, mobilenet_v2, mobilenet_v3_small, shufflenet_v2, efficientnet_b0,
    efficientnet_lite0, a preset, or a file with a space (.yaml) or a subnet (.json). A width multiplier may follow, as
    in mobilenet_v2@0.25; with --max-ms, the command finds the widest that fits.

    Each network is trained twice: by the supernet's recipe, and by a plain one (SGD, 15 epochs). The better one
    counts. The workspace keeps all of them: after an interruption, the same command continues. `baseline list` shows
    them.

    \b
    Examples:
      ofa-deploy baseline --target local --max-ms 0.2
      ofa-deploy baseline resnet-16-32-64 mobilenet_v2@0.25
      ofa-deploy baseline list
    """
    if names == (LIST,):
        _list(workspace, as_json)
        return
    from ofa_deploy.api.comparing import baseline as run

    with progress() as tell:
        found = run(
            target,
            names,
            max_ms=budgets,
            supernet=supernet,
            recipe=config,
            epochs=epochs,
            precision=precision,
            se=protocol.se,
            cap_s=protocol.cap_s,
            seed=seed,
            workspace=workspace,
            progress=tell,
        )
    if as_json:
        emit(found.to_json())
        return
    for line in _lines(found):
        click.echo(line)


def _lines(found: BaselinesFound) -> list[str]:
    """A row for each network and each of our answers, by their latency; then the verdicts."""
    from ofa_deploy.report.baseline_verdict import trained_by
    from ofa_deploy.report.text import accuracy, count, ms

    mark = shout(found.simulated)
    rows: list[tuple[str, HandPicked | AnswerBeside, str]] = [
        (one.name, one, trained_by(one)) for one in found.networks
    ]
    rows += [(f"ours, {_folder(one)}", one, "the search") for one in found.answers]
    lines = [_row("network", "latency", "accuracy", "MACs", "parameters", "trained by")]
    for name, one, by in sorted(rows, key=lambda row: row[1].measured_ms or 0.0):
        cells = (mark + ms(one.measured_ms), accuracy(one.accuracy, one.n), count(one.macs), count(one.params), by)
        lines.append(_row(name, *cells))
    lines += [f"{one.name} was not trained: it takes {mark}{ms(one.measured_ms)}" for one in found.skipped]
    lines += [one.text for one in found.budgets]
    return lines + [f"{_folder(one)}: {one.text}" for one in found.answers]


def _folder(answer: AnswerBeside) -> str:
    return Path(answer.bundle or "").name


def _row(*cells: str) -> str:
    widths = (28, 12, 26, 8, 10, 0)
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _list(workspace: Path | None, as_json: bool) -> None:
    """What was trained here."""
    from ofa_deploy.api.comparing import baselines
    from ofa_deploy.report.text import accuracy, count, ms

    rows = baselines(workspace)
    if as_json:
        emit({"networks": rows})
        return
    if not rows:
        click.echo("no hand-picked network was trained here; train some with: ofa-deploy baseline --max-ms …")
    for row in rows:
        test = row["test"] or {"accuracy": None, "n": None}
        judged, counts = accuracy(test["accuracy"], test["n"]), [count(row[name]) for name in ("macs", "params")]
        click.echo(_row(row["name"], "", judged, *counts, f"{row['recipe']} recipe, {row['epochs']} epochs"))
        for one in row["measurements"]:
            simulated = bool((one["condition"] or {}).get("simulated"))
            click.echo(f"  {one['device']:26}  {shout(simulated)}{ms(one['p50'])}")


COMMANDS = (baseline,)
