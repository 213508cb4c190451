"""`train-supernet`."""

from __future__ import annotations

from pathlib import Path

import click

from ofa_deploy.cli.output import emit, progress


@click.command("train-supernet")
@click.option("-c", "--config", "config", required=True, help="Recipe in YAML: yours, or one that ships.")
@click.option("--resume", is_flag=True, help="Go on after an interruption, to the same weights.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder.  [default: supernets/NAME in the workspace]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def train_supernet(workspace: Path | None, config: str, resume: bool, output: Path | None, as_json: bool) -> None:
    """Train a supernet, evaluate a sample of its subnets, and fit the accuracy predictor.

    Example: ofa-deploy train-supernet -c pipelines/fashion_mnist.yaml
    """
    from ofa_deploy.config import TrainRecipe, find_file, read_document

    recipe = read_document(TrainRecipe, find_file(config, "pipelines"))
    from ofa_deploy.deploy.subject import load_subject
    from ofa_deploy.store import Workspace
    from ofa_deploy.training import train_supernet as train

    opened = Workspace.open(workspace)
    with progress() as tell:
        path = train(
            recipe, output or opened.supernets / recipe.name, resume, lambda p: tell(f"train {recipe.name}", p)
        )
        subject = load_subject(opened, path, lambda p: tell("evaluate subnets", p))
    if as_json:
        error = subject.predictor.error if subject.predictor else None
        emit({"supernet": str(path), "sha256": subject.sha256, "predictor": error})
        return
    click.echo(f"supernet: {path}")
    if subject.predictor:
        click.echo(subject.predictor.summary())
    click.echo("next: ofa-deploy profile --target local")


COMMANDS = (train_supernet,)
