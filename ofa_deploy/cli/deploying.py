"""`extract`, `export`, `report`, `verify`: from a budget to a verified bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.cell_options import cell_options
from ofa_deploy.cli.options import (
    BUDGET,
    FINETUNING,
    MEASURING,
    OUTPUT,
    SEARCH,
    SUBJECT,
    command,
    json_option,
    option,
    output_option,
    supernet_option,
)
from ofa_deploy.cli.output import emit, progress
from ofa_deploy.cli.precision_option import precision_option, precisions_option
from ofa_deploy.cli.protocol_options import protocol_options
from ofa_deploy.cli.search_options import Asked, asked_options, check_space, plan_options
from ofa_deploy.cli.spaces import read_arch

if TYPE_CHECKING:
    from ofa_deploy.config import CellChoice, Plan
    from ofa_deploy.fleet import Protocol
    from ofa_deploy.space import Arch, Family


@command(first=("target", "max_ms", "supernet", "precisions", "finetune", "output"))
@asked_options
@plan_options
@option(
    "--no-profile",
    is_flag=True,
    group=MEASURING,
    help="Fail if the target has no latency table, instead of profiling it first.",
)
@protocol_options
@option(
    "--front",
    type=click.Path(path_type=Path),
    group=SEARCH,
    help="Take the finalists from a JSON file that `pareto` wrote, and skip the search.",
)
@option(
    "--finetune",
    type=click.IntRange(1),
    group=FINETUNING,
    help="Fine-tune each of the N best finalists before the choice.",
)
@option(
    "--finetune-epochs",
    type=click.IntRange(1),
    group=FINETUNING,
    help="Epochs of fine-tuning.  [default: a quarter of the recipe's]",
)
@precisions_option
@option(
    "--with-preprocessing",
    "--embed-preprocessing",
    "embed_preprocessing",
    is_flag=True,
    group=OUTPUT,
    help="Also write a model file that takes images as they are read (uint8, NHWC) and pre-processes them itself.",
)
@option(
    "--baselines",
    is_flag=True,
    group=MEASURING,
    help="Measure the answer beside the hand-picked networks that `baseline` trained, and say which is better.",
)
@output_option("Folder for the bundle.  [default: bundles/… in the workspace]")
@cell_options
@click.pass_obj
def extract(
    workspace: Path | None,
    asked: Asked,
    plan: Plan,
    no_profile: bool,
    protocol: Protocol,
    front: Path | None,
    finetune: int | None,
    finetune_epochs: int | None,
    precisions: tuple[str, ...],
    embed_preprocessing: bool,
    baselines: bool,
    output: Path | None,
    cells: CellChoice | None,
) -> None:
    """Extract the most accurate subnet that meets a budget.

    The command searches by prediction, measures the best candidates (the finalists) on the device, exports the winner
    as ONNX, and writes a bundle with a report.

    With --finetune N, each of the N best finalists that meet the budget is fine-tuned, and the one that is most
    accurate on held-out images wins. Fine-tuning changes weights only, so the measured latencies stay valid.

    With --precision fp32,int8 the command searches and measures in each precision, and takes the network that is most
    accurate on held-out images.

    With --family darts the network consists of cells that `darts search` found. The command chooses its size, measures
    it, and trains it. With --random-weights it skips the training.

    \b
    Examples:
      ofa-deploy extract --target local --max-ms 2
      ofa-deploy extract --target local --max-ms 2 --max-params 2e6 --finetune 3
    """
    from ofa_deploy.api.extracting import deliver
    from ofa_deploy.deploy.request import KnownFront, Request
    from ofa_deploy.fleet import resolve_target
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    request = Request(
        target=resolve_target(asked.target, opened, measure=True),
        constraints=asked.constraints,
        precisions=precisions,
        source=asked.source(cells),
        plan=plan,
        seed=asked.seed,
        front=KnownFront.read(front, asked.target) if front else None,
        finetune=finetune or 0,
        finetune_epochs=finetune_epochs,
        may_profile=not no_profile,
        protocol=protocol,
        embed_preprocessing=embed_preprocessing,
        baselines=baselines,
        output=output,
    )
    with progress() as tell:
        bundle = deliver(request, opened, tell)
    if asked.as_json:
        emit({**bundle.report, "bundle": str(bundle.path)})
        return
    click.echo(summary(bundle.report, bundle.path))
    for note in bundle.report["notes"]:
        click.echo(f"note: {note}")


def summary(report: dict[str, Any], folder: Path) -> str:
    """A bundle in three lines."""
    from ofa_deploy.report.text import accuracy, within

    found, latency = report["accuracy"], report["latency"]
    measured = accuracy(found["measured"], found["n"])
    measured += f" on the {found['split']} split" if found["measured"] is not None else ""
    if found["posterior"] is not None:
        measured += f", expected {within(*(found[name] for name in ('posterior', 'low', 'high')))}"
    beside = f"hand-picked: {report['baselines']['text']}\n" if report.get("baselines") else ""
    subnet = report["subnet"]
    size = f"{subnet['macs'] / 1e6:.2f} M MACs, {subnet['params']:,} parameters, {subnet['memory_mb']:.3g} MB in memory"
    return (
        f"{report['verdict']['text']}  "
        f"(predicted {latency['predicted_ms']:.4g} ms, {latency['error_pct']:+.1f} %)\n"
        f"accuracy: {measured}   {size}\n"
        f"{beside}"
        f"bundle: {folder}   open {folder / 'report.html'}"
    )


@command(first=("arch_file", "supernet", "target", "precision", "output"))
@option(
    "--arch",
    "arch_file",
    type=click.Path(path_type=Path),
    group=SUBJECT,
    help="JSON file of the subnet. You can leave it out if the supernet has only one.",
)
@supernet_option()
@option(
    "--space",
    "space_name",
    group=SUBJECT,
    help="Search space for --random-weights.  [default: the one that the subnet's file names]",
)
@option("--random-weights", is_flag=True, group=SUBJECT, help="Use random weights instead of a supernet's.")
@option(
    "--target",
    default="local",
    show_default=True,
    group=BUDGET,
    help="Device that runs the file. Its profile decides batch size, opset and precision.",
)
@precision_option
@option("--seed", default=0, show_default=True, group=SUBJECT, help="Random seed of the random weights.")
@option(
    "--with-preprocessing",
    is_flag=True,
    group=OUTPUT,
    help="Write a file that takes images as they are read (uint8, NHWC) and pre-processes them itself.",
)
@output_option("ONNX file to write.", required=True)
@json_option
@click.pass_obj
def export(
    workspace: Path | None,
    arch_file: Path | None,
    supernet: Path | None,
    space_name: str | None,
    random_weights: bool,
    target: str,
    precision: str | None,
    seed: int,
    with_preprocessing: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Write one subnet as an ONNX file.

    The command runs the file and PyTorch on the same images, and prints the largest difference between their logits.
    In fp32 it writes nothing if the difference is too large. It calibrates int8 on training images, or on noise if
    there are none.

    The file's metadata describe how to pre-process images. With --with-preprocessing the file does it itself: it takes
    images of any size if the target's runtime is ONNX Runtime, else images of the network's input size.

    \b
    Example:
      ofa-deploy export --arch arch.json --random-weights -o model.onnx
    """
    arch = read_arch(arch_file) if arch_file else None
    from ofa_deploy.api.supernets import load_supernet
    from ofa_deploy.deploy.bundling import EXACT, MAX_DIFFERENCE
    from ofa_deploy.deploy.subject import INHERITED
    from ofa_deploy.deploy.verification import embeddable
    from ofa_deploy.errors import GateFailed
    from ofa_deploy.export import described, embed, parity, preprocessing
    from ofa_deploy.files import write_atomic
    from ofa_deploy.fleet import in_precision, resolve_target
    from ofa_deploy.graph import model_file, onnx_bytes
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    found = in_precision(resolve_target(target, opened), precision)
    name = (space_name or (arch or {}).get("space")) if random_weights else space_name
    check_space(name, random_weights)
    with progress() as tell:
        subject = load_supernet(supernet, space=name, seed=seed, workspace=opened, progress=tell)
        one = subject.space.canonical(arch) if arch else _only(subject.space)
        subnet = subject.subnet(one)
        if subject.source is not None:
            click.echo(f"note: {INHERITED}", err=True)
        images = subject.calibration(one) if found.precision == "int8" else None
        content = model_file(subject.space.network(one), subnet.weights(), found, images)
        checked = parity(subnet, content, subject.images(one, 8))
    if found.precision in EXACT and checked.max_abs > MAX_DIFFERENCE:
        raise GateFailed(
            f"the ONNX graph and PyTorch differ by {checked.max_abs:.2g} in a logit, more than "
            f"{MAX_DIFFERENCE:g}; no file was written"
        )
    how = subject.preprocessing(one)
    content, kind = described(content, how, subject.labels), embeddable(found, how) if with_preprocessing else None
    content = onnx_bytes(embed(content, how, kind)) if kind else content
    write_atomic(output, content)
    if as_json:
        emit(
            {
                "model": str(output),
                "key": one.key,
                "bytes": len(content),
                "precision": found.precision,
                "max_abs": checked.max_abs,
                "preprocessing": preprocessing(how, found.batch).to_json(),
                "takes": kind or "the program's tensors",
            }
        )
    else:
        click.echo(f"{output}: {len(content):,} bytes; logits differ from PyTorch's by at most {checked.max_abs:.2g}")


def _only(space: Family) -> Arch:
    if space.largest != space.smallest:
        raise click.UsageError(f"{space.name} has more than one subnet: choose one with --arch FILE")
    return space.largest


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def report(bundle: Path, as_json: bool) -> None:
    """Print a bundle's report as Markdown.

    \b
    Example:
      ofa-deploy report .ofa/bundles/local-ms2
    """
    from ofa_deploy.documents.report_document import Report
    from ofa_deploy.report import render_markdown

    data = read_arch(bundle / "report.json")
    if as_json:
        emit(data)
    else:
        click.echo(render_markdown(Report.read(data)))


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def verify(bundle: Path, as_json: bool) -> None:
    """Check a bundle: its files and its figures.

    The command compares every file with the manifest's hash, and computes every figure of the report again from the
    raw measurements in the bundle. If the test images are files on this machine, it reads up to 500 of them again and
    checks that the bundle's model gives the answers that the report counted. It exits with code 4 if anything differs.

    \b
    Example:
      ofa-deploy verify .ofa/bundles/local-ms2
    """
    from ofa_deploy.errors import GateFailed
    from ofa_deploy.export import repeat_answers, verify_bundle

    problems = verify_bundle(bundle)
    repeated = None if problems else repeat_answers(bundle)
    problems += repeated.problems if repeated else []
    if as_json:
        count = {"test_files": repeated.files, "repeated": repeated.repeated} if repeated else None
        emit({"bundle": str(bundle), "problems": problems, "answers": count})
    if problems:
        raise GateFailed(f"{bundle}: {'; '.join(problems)}")
    if not as_json:
        click.echo(f"{bundle}: every file matches its hash, and every figure follows from the evidence")
        click.echo(f"answers: {repeated}")


COMMANDS = (extract, export, report, verify)
