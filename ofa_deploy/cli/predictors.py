"""`predictor`: fit an accuracy predictor, and show its error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import json_option, option, supernet_option
from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.accuracy import Predictor
    from ofa_deploy.config import AccuracyConfig
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.store import Workspace


@click.group()
def predictor() -> None:
    """Fit the accuracy predictor, or show its error.

    \b
    Example:
      ofa-deploy predictor show
    """


@predictor.command("fit")
@supernet_option()
@option("--subnets", type=click.IntRange(min=8), help="Evaluate N subnets at most.  [default: the recipe's]")
@option("--heldout", type=click.IntRange(min=3), help="Keep N of them to test the predictor.  [default: the recipe's]")
@option("--round", "round_", type=click.IntRange(min=1), help="Evaluate N subnets per round.  [default: the recipe's]")
@option("--seed", type=click.IntRange(min=0), help="Random seed of the choice of subnets.  [default: the recipe's]")
@option("--name", help="Keep the predictor under this name, for --accuracy, instead of beside the supernet.")
@json_option
@click.pass_obj
def fit(
    workspace: Path | None,
    supernet: Path | None,
    subnets: int | None,
    heldout: int | None,
    round_: int | None,
    seed: int | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Evaluate subnets, and fit the accuracy predictor.

    The command evaluates subnets in rounds. It stops when another round no longer improves the ranking. The workspace
    keeps every evaluation, so that after an interruption the same command continues.

    \b
    Example:
      ofa-deploy predictor fit --subnets 300 --heldout 60
    """
    from ofa_deploy.accuracy import check_name, keep_predictor
    from ofa_deploy.deploy.subject import find_supernet, fit_predictor, keep_beside, open_subject
    from ofa_deploy.errors import UsageError
    from ofa_deploy.store import Workspace

    if name is not None:
        check_name(name)
    opened = Workspace.open(workspace)
    path = find_supernet(opened, supernet)
    if name is None and supernet is None and opened.supernets not in path.parents:
        raise UsageError(f"{path} is part of the package: give --name, or give a copy of it with --supernet")
    subject = open_subject(opened, path)
    config = _config(subject, {"subnets": subnets, "heldout": heldout, "round": round_})
    drawn = (subject.recipe.seed if subject.recipe else 0) if seed is None else seed
    with progress() as tell:
        fitted = fit_predictor(subject, config, drawn, lambda p: tell("evaluate subnets", p))
    file = keep_predictor(opened, name, fitted) if name else keep_beside(subject, fitted)
    _say(fitted, file, as_json)


def _config(subject: Subject, given: dict[str, int | None]) -> AccuracyConfig:
    from ofa_deploy.config import AccuracyConfig, read_document

    recipe = subject.recipe.accuracy.model_dump() if subject.recipe else {}
    return read_document(AccuracyConfig, recipe | {key: value for key, value in given.items() if value is not None})


@predictor.command("show")
@supernet_option()
@option("--accuracy", "name", help="Name of an imported predictor, instead of the supernet's own.")
@json_option
@click.pass_obj
def show(workspace: Path | None, supernet: Path | None, name: str | None, as_json: bool) -> None:
    """Show the error of an accuracy predictor.

    The error is that on subnets and images that the predictor was not fitted on.

    \b
    Example:
      ofa-deploy predictor show
    """
    from ofa_deploy.store import Workspace

    found, file = _kept(Workspace.open(workspace), supernet, name)
    _say(found, file, as_json)


def _kept(workspace: Workspace, supernet: Path | None, name: str | None) -> tuple[Predictor, Path]:
    from ofa_deploy.accuracy import load_predictor
    from ofa_deploy.deploy.subject import PREDICTOR, find_supernet, kept_predictor, open_subject
    from ofa_deploy.errors import UsageError

    if name:
        return load_predictor(workspace, name), workspace.accuracy / f"{name}.safetensors"
    path = find_supernet(workspace, supernet)
    found = kept_predictor(open_subject(workspace, path))
    if found is None:
        raise UsageError(f"{path} has no accuracy predictor yet; fit one with: ofa-deploy predictor fit")
    return found, path.with_name(PREDICTOR)


def _say(found: Predictor, file: Path, as_json: bool) -> None:
    if as_json:
        emit({"file": str(file), "error": found.error.to_json()})
        return
    click.echo(f"{file}\n{found.summary()}")
    error = found.error
    for number, one in enumerate(error.rounds, 1):
        tau = "unknown" if one.kendall is None else f"{one.kendall:.3f}"
        click.echo(f"  round {number}: {one.n_fit} subnets, Kendall τ {tau}, RMSE {100 * one.rmse:.2f} points")
    if error.stopped is not None:
        click.echo(f"  stopped: {error.stopped}")
    if error.within_1_std is not None and error.within_2_std is not None:
        click.echo(
            f"  held-out accuracies within 1 predicted standard deviation: {100 * error.within_1_std:.0f} % "
            f"(68 % expected), within 1.96: {100 * error.within_2_std:.0f} % (95 % expected)"
        )


COMMANDS = (predictor,)
