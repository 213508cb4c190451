"""`finetune`: fine-tune one subnet on its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import FINETUNING, command, json_option, option, output_option, supernet_option
from ofa_deploy.cli.output import emit, progress
from ofa_deploy.cli.spaces import read_arch

if TYPE_CHECKING:
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.store import Workspace


@command(first=("epochs", "supernet", "output"))
@click.argument("subnet", metavar="BUNDLE|ARCH_FILE", type=click.Path(path_type=Path))
@supernet_option()
@option(
    "-c",
    "--config",
    "config",
    metavar="FILE",
    group=FINETUNING,
    help="Training recipe in YAML.  [default: the supernet's own]",
)
@option("--epochs", required=True, type=click.IntRange(1), group=FINETUNING, help="Number of epochs.")
@option(
    "--lr",
    type=click.FloatRange(0, min_open=True),
    group=FINETUNING,
    help="Peak learning rate.  [default: a tenth of the recipe's; with --scratch the recipe's]",
)
@option("--scratch", is_flag=True, group=FINETUNING, help="Start from random weights instead of the supernet's.")
@option(
    "--no-teacher",
    is_flag=True,
    group=FINETUNING,
    help="Learn from the labels only, without distillation from the largest subnet.",
)
@option("--seed", default=0, show_default=True, group=FINETUNING, help="Random seed of the training.")
@output_option("File to write: a supernet with this one subnet.  [default: finetuned/… in the workspace]")
@json_option
@click.pass_obj
def finetune(
    workspace: Path | None,
    subnet: Path,
    supernet: Path | None,
    config: str | None,
    epochs: int,
    lr: float | None,
    scratch: bool,
    no_teacher: bool,
    seed: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Fine-tune one subnet on its own.

    The supernet's largest subnet is the teacher. The result is a supernet with only this subnet, which `export`,
    `extract` and other commands take with --supernet. After an interruption, the same command continues and ends with
    the same weights.

    \b
    Example:
      ofa-deploy finetune .ofa/bundles/local-ms2 --epochs 10 -o tuned.safetensors
    """
    from ofa_deploy.config import TrainRecipe, find_file, read_document
    from ofa_deploy.deploy.finetuning import Tuning
    from ofa_deploy.deploy.finetuning import finetune as run
    from ofa_deploy.store import Workspace

    if lr is not None and not math.isfinite(lr):
        raise click.UsageError(f"--lr {lr}: the learning rate must be a finite number")
    opened = Workspace.open(workspace)
    recipe = read_document(TrainRecipe, find_file(config, "pipelines")) if config else None
    subject = _subject(opened, supernet)
    arch = subject.space.canonical(read_arch(subnet / "arch.json" if subnet.is_dir() else subnet))
    tuning = Tuning(epochs, recipe, lr, seed, scratch, not no_teacher)
    with progress() as tell:
        tuned = run(opened, subject, arch, tuning, lambda p: tell("finetune", p))
    file = output or tuned.file.with_name(f"{arch.key[:12]}.safetensors")
    tuned.save(file)
    answer = {"supernet": str(file), **tuned.facts.to_json()}
    if as_json:
        emit(answer)
    else:
        click.echo(tuned_text(answer))


def _subject(workspace: Workspace, supernet: Path | None) -> Subject:
    from ofa_deploy.deploy.subject import find_supernet, open_subject

    path = find_supernet(workspace, supernet)
    click.echo(f"supernet: {path}", err=True)
    return open_subject(workspace, path)


def tuned_text(answer: dict[str, Any]) -> str:
    """The accuracies before and after fine-tuning, in a few lines."""
    from ofa_deploy.report.text import accuracy

    before, after, state, n = answer["before"], answer["after"], answer["state"], answer["images"]
    lines = [
        f"{name:10}  inherited {accuracy(before[split], n[split])}, {state} {accuracy(after[split], n[split])}"
        for split, name in (("valid", "validation"), ("test", "test"))
    ]
    file = answer["supernet"]
    return "\n".join([*lines, f"{file}\nnext: ofa-deploy export --supernet {file} -o model.onnx"])


COMMANDS = (finetune,)
