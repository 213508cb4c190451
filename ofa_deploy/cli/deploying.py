"""`extract`, `export`, `report`, `verify`: from a budget to a verified bundle."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.cells import CellChoice, cell_options, cell_subject
from ofa_deploy.cli.measuring import protocol_options
from ofa_deploy.cli.options import (
    BUDGET,
    FINETUNING,
    MEASURING,
    OUTPUT,
    SEARCH,
    SUBJECT,
    command,
    option,
    supernet_option,
)
from ofa_deploy.cli.output import Tell, emit, progress
from ofa_deploy.cli.precision import precision_option, precisions_option
from ofa_deploy.cli.request import STRATEGY_NAMES, Request, plan_options, request_options
from ofa_deploy.cli.spaces import read_arch

if TYPE_CHECKING:
    from ofa_deploy.accuracy import Predictor
    from ofa_deploy.config import TargetProfile
    from ofa_deploy.deploy.extract import Extraction
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.search import Gradient, Plan
    from ofa_deploy.space import Arch, SearchSpace
    from ofa_deploy.store import Workspace


def the_subject(
    workspace: Workspace,
    supernet: Path | None,
    space_name: str | None,
    random_weights: bool,
    seed: int,
    tell: Tell,
    accuracy: str | None = None,
) -> Subject:
    """The subnets to choose from: those of a supernet, or those of a space with random weights.

    Args:
        accuracy: name of an imported predictor that judges them instead of the supernet's own.
    """
    from ofa_deploy.accuracy import load_predictor
    from ofa_deploy.deploy.subject import find_supernet, load_subject, random_subject
    from ofa_deploy.errors import UsageError
    from ofa_deploy.space import load_space

    if random_weights != bool(space_name):
        raise UsageError("--space and --random-weights go together: give both, or neither (a supernet has a space)")
    predictor = load_predictor(workspace, accuracy) if accuracy else None
    if space_name:
        subject = random_subject(load_space(space_name), seed, predictor)
    else:
        path = find_supernet(workspace, supernet)
        click.echo(f"supernet: {path}", err=True)
        subject = load_subject(workspace, path, lambda p: tell("evaluate subnets", p), predictor=predictor)
    if predictor:
        subject.accuracy(subject.codec)  # a predictor of another space must fail now, not after measuring
    return subject


def the_question(workspace: Workspace, request: Request, tell: Tell) -> tuple[SearchSpace, Predictor | None]:
    """The space to search and its predictor. A named predictor brings its own space if nothing else is named."""
    if request.accuracy and not (request.supernet or request.space_name or request.random_weights):
        from ofa_deploy.accuracy import load_predictor

        predictor = load_predictor(workspace, request.accuracy)
        click.echo(predictor.summary(), err=True)
        return predictor.codec.space, predictor
    subject = subject_of(workspace, request, tell)
    return subject.space, subject.predictor


def the_gradient(workspace: Workspace, request: Request, plan: Plan) -> Gradient:
    """What the strategy ``differentiable`` learns from, for a request that ``the_question`` accepted."""
    from ofa_deploy.deploy.gradient import gradient_of
    from ofa_deploy.deploy.subject import find_supernet, open_subject
    from ofa_deploy.errors import UsageError

    if request.space_name or (request.accuracy and not request.supernet):
        raise UsageError(
            "strategy differentiable learns on a supernet's images: give --supernet, or choose another --strategy"
        )
    return gradient_of(open_subject(workspace, find_supernet(workspace, request.supernet)), plan.gradient)


def subject_of(workspace: Workspace, request: Request, tell: Tell) -> Subject:
    """The subject that a request names."""
    named = (request.supernet, request.space_name, request.random_weights, request.seed)
    return the_subject(workspace, *named, tell, request.accuracy)


@command(first=("target", "max_ms", "supernet", "precisions", "finetune", "output"))
@request_options
@option(
    "--strategy",
    default="evolution",
    show_default=True,
    group=SEARCH,
    help=f"Search strategy: {', '.join(STRATEGY_NAMES)}.",
)
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
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    group=OUTPUT,
    help="Folder for the bundle.  [default: bundles/… in the workspace]",
)
@cell_options
@click.pass_obj
def extract(
    workspace: Path | None,
    request: Request,
    strategy: str,
    plan: Plan,
    no_profile: bool,
    se: float,
    cap_s: float,
    front: Path | None,
    finetune: int | None,
    finetune_epochs: int | None,
    precisions: tuple[str, ...],
    embed_preprocessing: bool,
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
    from ofa_deploy.deploy.answers import earlier_answers
    from ofa_deploy.deploy.audits import newest_audit
    from ofa_deploy.deploy.bundle import build_bundle
    from ofa_deploy.deploy.extract import extract as run
    from ofa_deploy.deploy.finetuning import tuning_of
    from ofa_deploy.deploy.precisions import extract_best
    from ofa_deploy.deploy.remember import remember_bundle
    from ofa_deploy.fleet import Fleet, Protocol, in_precision, resolve_target
    from ofa_deploy.search.strategies import find_strategy
    from ofa_deploy.store import Workspace

    find_strategy(strategy)
    plan = replace(plan, strategy=strategy)
    if finetune_epochs and not finetune:
        raise click.UsageError("--finetune-epochs needs --finetune")
    opened, asked = Workspace.open(workspace), request.constraints
    found = resolve_target(request.target, opened, measure=True)
    targets = [in_precision(found, precision) for precision in precisions] or [found]
    if cells and len(targets) > 1:
        raise click.UsageError("--family darts takes a single --precision")
    folder = output or opened.bundles / "-".join([found.name, *asked.names, *precisions])
    words = ["ofa-deploy", "extract", *request.options, "--se", f"{se:g}", "--cap-s", f"{cap_s:g}"]
    words += ["--precision", ",".join(precisions)] if precisions else []
    words += ["--with-preprocessing"] if embed_preprocessing else []
    with progress() as tell:

        def tell_of(p: dict[str, Any]) -> None:
            tell("fine-tune" if "loss" in p else f"measure on {found.name}", p)

        measuring = (not no_profile, Protocol(se=se, cap_s=cap_s), tell_of)
        with Fleet.open(opened) as fleet:
            tuning, candidates = None, []
            if cells is None:
                subject = subject_of(opened, request, tell)
                words += ["--supernet", str(subject.path)] if subject.path else []
                words += plan.options
                candidates = _front(front, request, subject, found.name) if front else []
                words += ["--front", str(front)] if front else []
                tuning = tuning_of(subject, finetune, finetune_epochs)
                words += ["--finetune", str(finetune), "--finetune-epochs", str(tuning.epochs)] if tuning else []
            elif finetune or front:
                raise click.UsageError("--finetune and --front work on a supernet's subnets, not with --family darts")
            else:
                words += cells.words

                def sized(family: Subject) -> Extraction:
                    return run(fleet, opened, family, targets[0], asked, request.seed, *measuring)

                subject = cell_subject(opened, cells, request, sized, tell)
            extra = (tuning, finetune or 0, candidates)

            def answer(one: TargetProfile) -> Extraction:
                earlier = [] if cells else earlier_answers(opened, subject, one, asked)
                return run(
                    fleet, opened, subject, one, asked, request.seed, *measuring, *extra, plan=plan, earlier=earlier
                )

            extraction = extract_best(targets, answer)
        tell("verify and report", {})
        report = build_bundle(
            extraction, folder, shlex.join(words), newest_audit(opened, extraction), embed_preprocessing
        )
    remember_bundle(opened, extraction, report, folder)
    if request.as_json:
        emit({**report, "bundle": str(folder)})
        return
    click.echo(summary(report, folder))
    for note in report["notes"]:
        click.echo(f"note: {note}")


def _front(file: Path, request: Request, subject: Subject, target: str) -> list[Arch]:
    """The subnets in a front's file. The front must be of the same supernet, target, predictor and percentile."""
    from ofa_deploy.errors import UsageError

    found = read_arch(file)
    if found.get("kind") != "front":
        raise UsageError(f"{file} holds no front; make one with: ofa-deploy pareto --target {target} -o {file}")
    asked = {
        "space": subject.space.name,
        "supernet_sha256": found.get("supernet_sha256") and subject.sha256,
        "accuracy": request.accuracy,
        "statistic": request.constraints.statistic,
    }
    other = next((name for name, value in asked.items() if found.get(name) != value), None)
    if other is not None or target not in found["fronts"]:
        what = f"{other} {found.get(other)}" if other else ", ".join(found["fronts"])
        raise UsageError(f"{file} is the front of {what}, not what is asked for; make one with: ofa-deploy pareto")
    return [subject.space.canonical(point["arch"]) for point in found["fronts"][target]]


def summary(report: dict[str, Any], folder: Path) -> str:
    """A bundle in three lines."""
    accuracy, latency = report["accuracy"], report["latency"]
    known = accuracy["measured"] is not None
    measured = f"{100 * accuracy['measured']:.2f} % ({accuracy['split']} split)" if known else "not measured"
    subnet = report["subnet"]
    size = f"{subnet['macs'] / 1e6:.2f} M MACs, {subnet['params']:,} parameters, {subnet['memory_mb']:.3g} MB in memory"
    return (
        f"{report['verdict']['text']}  "
        f"(predicted {latency['predicted_ms']:.4g} ms, {latency['error_pct']:+.1f} %)\n"
        f"accuracy: {measured}   {size}\n"
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
@option("-o", "--output", required=True, type=click.Path(path_type=Path), group=OUTPUT, help="ONNX file to write.")
@option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON document.")
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
    from ofa_deploy.deploy.bundle import EXACT, MAX_DIFFERENCE
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
    with progress() as tell:
        subject = the_subject(opened, supernet, name, random_weights, seed, tell)
        one = subject.space.canonical(arch) if arch else _only(subject.space)
        subnet = subject.subnet(one)
        if subject.source is not None:
            click.echo(f"note: {INHERITED}", err=True)
        images = subject.calibration(one) if found.precision == "int8" else None
        content = model_file(subject.space.network(one), subnet.weights(), found, images)
        checked = parity(subnet, content, subject.images(one, 8))
    if found.precision in EXACT and checked["max_abs"] > MAX_DIFFERENCE:
        raise GateFailed(
            f"the ONNX graph and PyTorch differ by {checked['max_abs']:.2g} in a logit, more than "
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
                "max_abs": checked["max_abs"],
                "preprocessing": preprocessing(how, found.batch),
                "takes": kind or "the program's tensors",
            }
        )
    else:
        click.echo(
            f"{output}: {len(content):,} bytes; logits differ from PyTorch's by at most {checked['max_abs']:.2g}"
        )


def _only(space: SearchSpace) -> Arch:
    if space.largest != space.smallest:
        raise click.UsageError(f"{space.name} has more than one subnet: choose one with --arch FILE")
    return space.largest


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON document.")
def report(bundle: Path, as_json: bool) -> None:
    """Print a bundle's report as Markdown.

    \b
    Example:
      ofa-deploy report .ofa/bundles/local-ms2
    """
    from ofa_deploy.report import render_markdown

    data = read_arch(bundle / "report.json")
    if as_json:
        emit(data)
    else:
        click.echo(render_markdown(data))


@command()
@click.argument("bundle", type=click.Path(path_type=Path))
@option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON document.")
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
