"""`import`: what others published: latency tables, supernets, accuracy predictors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.output import emit
from ofa_deploy.cli.tables import json_option, keep_table

if TYPE_CHECKING:
    from ofa_deploy.supernet import Supernet


@click.group("import")
def import_group() -> None:
    """Take what others published."""


@import_group.command("ofa-latency")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Of the target that the table becomes.")
@click.option("--space", "space_name", default="ofa_mbv3_w1.2", show_default=True, help="What was measured.")
@json_option
@click.pass_obj
def ofa_latency(workspace: Path | None, folder: Path, name: str, space_name: str, as_json: bool) -> None:
    """Take once-for-all's published latency tables: a folder of RESOLUTION_lookup_table.yaml files.

    Example: ofa-deploy import ofa-latency note10/ --name note10
    """
    from ofa_deploy.latency import read_ofa_tables
    from ofa_deploy.space import load_space
    from ofa_deploy.store import Workspace

    space = load_space(space_name)
    keep_table(Workspace.open(workspace), read_ofa_tables(folder, name, space), name, space, as_json)


@import_group.command("ofa-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--space", "space_name", required=True, help="Its space: ofa_mbv3_w1.0 or ofa_mbv3_w1.2.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Supernet's file to write.")
@json_option
def ofa_checkpoint(file: Path, space_name: str, output: Path, as_json: bool) -> None:
    """Take a published once-for-all MobileNetV3 supernet: the torch file of its weights.

    Example: ofa-deploy import ofa-checkpoint ofa_mbv3_d234_e346_k357_w1.0 --space ofa_mbv3_w1.0 -o ofa.safetensors
    """
    from ofa_deploy.space import load_space
    from ofa_deploy.supernet import save_supernet
    from ofa_deploy.supernet.published import import_checkpoint

    supernet, summary = import_checkpoint(file, load_space(space_name))
    save_supernet(output, supernet, summary)
    _tell_supernet(output, supernet, summary, as_json)


@import_group.command("torchvision-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--space", "space_name", required=True, help="efficientnet_b0 to efficientnet_b7, or a YAML file.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Supernet's file to write.")
@json_option
def torchvision_checkpoint(file: Path, space_name: str, output: Path, as_json: bool) -> None:
    """Take one of torchvision's EfficientNets: the torch file of its weights.

    Example: ofa-deploy import torchvision-checkpoint efficientnet_b0.pth --space efficientnet_b0 -o b0.safetensors
    """
    from ofa_deploy.space import load_space
    from ofa_deploy.supernet import save_supernet
    from ofa_deploy.supernet.torchvision_weights import import_torchvision

    supernet, summary = import_torchvision(file, load_space(space_name))
    save_supernet(output, supernet, summary)
    _tell_supernet(output, supernet, summary, as_json)


@import_group.command("ofa-accuracy")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="By which --accuracy finds it.")
@click.option("--space", "space_name", default="ofa_mbv3_w1.2", show_default=True, help="Whose subnets it judges.")
@json_option
@click.pass_obj
def ofa_accuracy(workspace: Path | None, file: Path, name: str, space_name: str, as_json: bool) -> None:
    """Take once-for-all's published accuracy predictor for ImageNet, acc_predictor.pth.

    Example: ofa-deploy import ofa-accuracy acc_predictor.pth --name ofa-imagenet
    """
    from ofa_deploy.accuracy import import_predictor, keep_predictor
    from ofa_deploy.space import load_space
    from ofa_deploy.store import Workspace

    predictor = import_predictor(file, load_space(space_name))
    path = keep_predictor(Workspace.open(workspace), name, predictor)
    if as_json:
        emit({"accuracy": name, "file": str(path), "space": predictor.codec.space.name, "source": predictor.error})
        return
    click.echo(f"{path}: {predictor.summary()}")
    click.echo(f"next: ofa-deploy search --accuracy {name} --target … --max-ms …")


def _tell_supernet(output: Path, supernet: Supernet, summary: dict[str, Any], as_json: bool) -> None:
    space, params = supernet.space, sum(value.numel() for value in supernet.parameters())
    if as_json:
        answer = {"supernet": str(output), "space": space.name, "classes": space.num_classes, "params": params}
        emit({**answer, **summary})
        return
    click.echo(f"{output}: a supernet of {space.name}, {space.num_classes} classes, {params:,} parameters")
    click.echo(f"next: ofa-deploy extract --supernet {output} --max-ms …")


COMMANDS = (import_group,)
