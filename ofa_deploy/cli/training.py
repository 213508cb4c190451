"""`train-supernet` and `pack`: train a supernet, and prepare one for other people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import command, json_option, option, output_option
from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.config import TrainRecipe
    from ofa_deploy.training import World


@command("train-supernet")
@option(
    "-c",
    "--config",
    "config",
    required=True,
    metavar="FILE",
    help="Training recipe in YAML: your own, or one of the package such as pipelines/fashion_mnist.yaml.",
)
@option("--resume", is_flag=True, help="Continue an interrupted training; the weights come out the same.")
@output_option("Folder for the supernet.  [default: supernets/NAME in the workspace]")
@option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="With torchrun: seconds to wait for another process before the training fails.",
)
@json_option
@click.pass_obj
def train_supernet(
    workspace: Path | None, config: str, resume: bool, output: Path | None, timeout: float, as_json: bool
) -> None:
    """Train a supernet and fit its accuracy predictor.

    torchrun shares the work among processes, one for each GPU or group of cores. The weights come out the same.

    \b
    Examples:
      ofa-deploy train-supernet -c pipelines/fashion_mnist.yaml
      torchrun --nproc-per-node 4 -m ofa_deploy train-supernet -c recipe.yaml
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
        error = subject.predictor.error.to_json() if subject.predictor else None
        emit({"supernet": str(path), "sha256": subject.sha256, "predictor": error})
        return
    click.echo(f"supernet: {path}")
    if subject.predictor:
        click.echo(subject.predictor.summary())
    click.echo("next: ofa-deploy profile --target local")


@command()
@click.argument("supernet", required=False, type=click.Path(path_type=Path))
@output_option("Folder to write.", required=True)
@option(
    "--random",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Test N random subnets for the model card.",
)
@option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the choice of subnets."
)
@option("--json", "as_json", is_flag=True, help="Print the model card as JSON.")
@click.pass_obj
def pack(workspace: Path | None, supernet: Path | None, output: Path, random: int, seed: int, as_json: bool) -> None:
    """Pack a supernet into a folder for other people.

    The folder holds the weights, the accuracy predictor, sample images, and a model card with test accuracies. It is
    enough to extract subnets on a machine without the data set. SUPERNET is a file or a folder; by default it is the
    newest supernet in the workspace.

    \b
    Example:
      ofa-deploy pack -o fashion_mnist
    """
    import json

    from ofa_deploy.deploy.giving_away import pack as write
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
    from ofa_deploy.report.text import accuracy

    test, size = card["test"], sum(path.stat().st_size for path in output.iterdir())
    found = {name: accuracy(test[name]["accuracy"], test["images"]) for name in ("largest", "smallest")}
    click.echo(
        f"{output}: {size / 1e6:.2f} MB; accuracy on test images: largest subnet {found['largest']}, smallest "
        f"{found['smallest']}, worst of {test['random']['n']} random subnets "
        f"{accuracy(test['random']['least'], test['images'])}"
    )


COMMANDS = (train_supernet, pack)
