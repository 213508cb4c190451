"""`pareto`: the front of accuracy against latency, for one device or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.deploying import subject_of, the_question
from ofa_deploy.cli.options import BUDGET, OUTPUT, command, option
from ofa_deploy.cli.output import Tell, emit, picture, progress, shout, write_picture
from ofa_deploy.cli.request import Request, front_options

if TYPE_CHECKING:
    from ofa_deploy.accuracy import Predictor
    from ofa_deploy.search import Fronts, Latency
    from ofa_deploy.space import PopulationCodec, SearchSpace
    from ofa_deploy.store import Workspace


@command(first=("targets", "points", "supernet", "statistic", "output", "as_json"))
@option(
    "--target",
    "targets",
    multiple=True,
    default=("local",),
    show_default=True,
    group=BUDGET,
    help="Device to search for. Repeat the option for several.",
)
@option(
    "--points",
    type=click.IntRange(1, 200),
    default=12,
    show_default=True,
    group=BUDGET,
    help="Number of latency budgets for each device.",
)
@front_options
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=picture,
    group=OUTPUT,
    help="File to write: .html for a page, .svg for a plot, .json for `extract --front`.",
)
@click.pass_obj
def pareto(
    workspace: Path | None,
    targets: tuple[str, ...],
    points: int,
    request: Request,
    output: Path | None,
) -> None:
    """Find the best subnet at every latency, by prediction.

    One search finds the whole front of accuracy against latency. With several --target options it finds the front of
    each device, and the subnets that meet the budgets of all devices. `extract --front` takes its finalists from the
    JSON file and skips the search.

    \b
    Examples:
      ofa-deploy pareto --target local --points 8 -o front.html
      ofa-deploy pareto --target local -o front.json
    """
    from ofa_deploy.report.front import front_svg, render_fronts
    from ofa_deploy.store import Workspace

    names = tuple(dict.fromkeys(targets))
    with progress() as tell:
        answer = _answer(Workspace.open(workspace), request, names, points, tell)
    if output is not None:
        write_picture(output, answer, front_svg, render_fronts)
    if request.as_json:
        emit(answer)
        return
    for line in _table(answer, names):
        click.echo(line)
    if output is not None:
        click.echo(str(output))


def _answer(workspace: Workspace, request: Request, names: tuple[str, ...], points: int, tell: Tell) -> dict[str, Any]:
    """Search, and return the answer as a JSON object."""
    from ofa_deploy.accuracy import objective
    from ofa_deploy.search import find_fronts

    space, predictor, digest = _question(workspace, request, tell)
    codec, latencies, simulated = _devices(workspace, request, names, space)
    found = find_fronts(
        codec,
        objective(codec, predictor),
        latencies,
        request.constraints,
        points,
        request.seed,
        lambda p: tell("search", p),
    )
    return {
        "kind": "front",
        "space": space.name,
        "supernet_sha256": digest,
        "accuracy": request.accuracy,
        "predicted": predictor is not None,
        "statistic": request.constraints.statistic,
        "confidence": request.constraints.confidence,
        "constraints": request.constraints.bounds,
        "seed": request.seed,
        "targets": {name: {"simulated": simulated[name]} for name in names},
        **_found(codec, found),
    }


def _question(workspace: Workspace, request: Request, tell: Tell) -> tuple[SearchSpace, Predictor | None, str | None]:
    """The space, its accuracy predictor, and the supernet's sha256 if there is a supernet."""
    if request.accuracy and not (request.supernet or request.space_name or request.random_weights):
        return (*the_question(workspace, request, tell), None)
    subject = subject_of(workspace, request, tell)
    return subject.space, subject.predictor, subject.sha256


def _devices(
    workspace: Workspace, request: Request, names: tuple[str, ...], space: SearchSpace
) -> tuple[PopulationCodec, dict[str, Latency], dict[str, bool]]:
    """The part of a space that every device's table covers, the latency models, and which devices are simulated."""
    from ofa_deploy.deploy.ready import ready_model
    from ofa_deploy.errors import UsageError
    from ofa_deploy.fleet import resolve_target
    from ofa_deploy.space import PopulationCodec

    statistic, ready = request.constraints.statistic, {}
    for name in names:
        ready[name] = ready_model(None, workspace, resolve_target(name, workspace), space, statistic)
    common = tuple(r for r in space.resolutions if all(r in codec.space.resolutions for _, codec in ready.values()))
    if not common:
        raise UsageError(
            f"the devices have no resolution in common: profile the same one on each of {', '.join(names)} "
            "with: ofa-deploy profile --resolution"
        )
    codec = PopulationCodec(space.with_resolutions(common))
    latencies: dict[str, Latency] = {name: model.bind(codec).predict for name, (model, _) in ready.items()}
    return codec, latencies, {name: model.table.simulated for name, (model, _) in ready.items()}


def _found(codec: PopulationCodec, found: Fronts) -> dict[str, Any]:
    def told(point: Any) -> dict[str, Any]:
        return {"key": point.arch.key, "arch": point.arch.to_json(), "accuracy": point.accuracy}

    return {
        "fronts": {
            name: [{**told(p), "latency_ms": p.latency_ms[name], "upper_ms": p.upper_ms[name]} for p in front]
            for name, front in found.fronts.items()
        },
        "joint": [
            {
                "budgets_ms": row.budgets_ms,
                **told(row.best),
                "latency_ms": row.best.latency_ms,
                "upper_ms": row.best.upper_ms,
                "macs": float(codec.macs(codec.encode([row.best.arch]))[0]),
            }
            for row in found.joint
        ],
        "evaluations": found.evaluations,
        "seconds": found.seconds,
    }


def _table(answer: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    """One line for each row of budgets: the best subnet that meets them."""
    lines = []
    for row in answer["joint"]:
        within = "  ".join(
            f"{shout(answer['targets'][name]['simulated'])}{name} {row['latency_ms'][name]:.4g} ms, budget "
            f"{row['budgets_ms'][name]:.4g} ms"
            for name in names
        )
        judged = f"{100 * row['accuracy']:6.2f} %" if answer["predicted"] else "accuracy unknown"
        lines.append(f"{judged}  {within}  {row['macs'] / 1e6:.2f} M MACs  {row['key'][:12]}")
    sizes = ", ".join(f"{len(answer['fronts'][name])} on {name}'s front" for name in names)
    return [*lines, f"predicted: {answer['evaluations']} subnets assessed in {answer['seconds']:.1f} s; {sizes}"]


COMMANDS = (pareto,)
