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


@click.command()
@click.argument("supernet", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--random", type=click.IntRange(min=1), default=20, show_default=True, help="Subnets in the card.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which subnets these are.")
@click.option("--json", "as_json", is_flag=True, help="The card as JSON on stdout.")
@click.pass_obj
def pack(workspace: Path | None, supernet: Path | None, output: Path, random: int, seed: int, as_json: bool) -> None:
    """A supernet's folder to give away: weights, accuracy predictor, sample images, and a card with test accuracies.

    With it subnets can be extracted where the data set is not. SUPERNET is a file or a folder.
    [default: the newest one of the workspace]

    Example: ofa-deploy pack -o fashion_mnist
    """
    import json

    from ofa_deploy.deploy.packing import pack as write
    from ofa_deploy.deploy.subject import find_supernet, load_subject
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    with progress() as tell:
        subject = load_subject(opened, find_supernet(opened, supernet), lambda p: tell("evaluate subnets", p))
        file = write(subject, output, random, seed, lambda p: tell("test subnets", p))
    card = json.loads(file.read_bytes())
    if as_json:
        emit(card)
        return
    test, size = card["test"], sum(path.stat().st_size for path in output.iterdir())
    click.echo(
        f"{output}: {size / 1e6:.2f} MB; on {test['images']} test images the largest subnet has "
        f"{test['largest']['accuracy']:.2%}, the smallest {test['smallest']['accuracy']:.2%}, "
        f"{test['random']['n']} random ones at least {test['random']['least']:.2%}"
    )


COMMANDS = (train_supernet, pack)
