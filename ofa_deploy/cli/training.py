"""`train-supernet`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.config import TrainRecipe
    from ofa_deploy.training import World


@click.command("train-supernet")
@click.option("-c", "--config", "config", required=True, help="Recipe in YAML: yours, or one that ships.")
@click.option("--resume", is_flag=True, help="Go on after an interruption, to the same weights.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder.  [default: supernets/NAME in the workspace]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="Seconds to wait for another of torchrun's processes before giving it up for lost.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def train_supernet(
    workspace: Path | None, config: str, resume: bool, output: Path | None, timeout: float, as_json: bool
) -> None:
    """Train a supernet, evaluate a sample of its subnets, and fit the accuracy predictor.

    Example: ofa-deploy train-supernet -c pipelines/fashion_mnist.yaml

    Many processes, one for each GPU or group of cores, share the work and leave the same weights:
    torchrun --nproc-per-node 4 -m ofa_deploy train-supernet -c pipelines/fashion_mnist.yaml
    """
    from ofa_deploy.config import TrainRecipe, find_file, read_document
    from ofa_deploy.deploy.subject import follow_subject
    from ofa_deploy.training import join_world
    from ofa_deploy.training import train_supernet as train

    with join_world(timeout) as world:
        recipe = read_document(TrainRecipe, find_file(config, "pipelines"))
        if world.is_main:
            _train(workspace, recipe, resume, output, world, as_json)
        else:
            train(recipe, Path(), resume, world=world)
            follow_subject(recipe, world)


def _train(
    workspace: Path | None, recipe: TrainRecipe, resume: bool, output: Path | None, world: World, as_json: bool
) -> None:
    from ofa_deploy.deploy.subject import load_subject
    from ofa_deploy.store import Workspace
    from ofa_deploy.training import train_supernet as train

    opened = Workspace.open(workspace)
    with progress() as tell:
        folder = output or opened.supernets / recipe.name
        path = train(recipe, folder, resume, lambda p: tell(f"train {recipe.name}", p), world)
        subject = load_subject(opened, path, lambda p: tell("evaluate subnets", p), world=world)
    if as_json:
        error = subject.predictor.error if subject.predictor else None
        emit({"supernet": str(path), "sha256": subject.sha256, "predictor": error})
        return
    click.echo(f"supernet: {path}")
    if subject.predictor:
        click.echo(subject.predictor.summary())
    click.echo("next: ofa-deploy profile --target local")


COMMANDS = (train_supernet,)
