"""Hand-picked networks beside ours: the comparison that tells whether the search was worth it.

They are measured in the same shuffled rounds as the answers of earlier extractions, because a machine is not as fast
in every hour. Where an answer took longer in these rounds than when it was chosen, its budget stretches alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.config import TargetProfile, TrainRecipe
from ofa_deploy.deploy.baseline_training import keep_accuracy, train_baseline
from ofa_deploy.deploy.earlier_answers import ran_under
from ofa_deploy.deploy.finetuning import TEST
from ofa_deploy.deploy.kept_baselines import Baseline, known_baselines
from ofa_deploy.deploy.subject import Subject, TrainedSupernet
from ofa_deploy.documents.baselines_document import AnswerBeside, BaselinesFound, Beside, HandPicked, Skipped
from ofa_deploy.documents.report_document import Budget, Report
from ofa_deploy.errors import InfeasibleBudget, UsageError
from ofa_deploy.export import runner
from ofa_deploy.files import write_atomic
from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.graph import model_file
from ofa_deploy.latency import Measurement, confidence_interval
from ofa_deploy.notices import Numbers, Progress, Tell, silent
from ofa_deploy.report.baseline_verdict import compared
from ofa_deploy.space import (
    MULTIPLIERS,
    SearchSpace,
    families,
    handpicked,
    handpicked_subnet,
    load_space,
    network_macs,
    network_params,
    picked_name,
)
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import load_supernet
from ofa_deploy.training import Data

TESTED = "tested.json"  # beside a network's file: accuracies of what was exported from it


@dataclass(frozen=True)
class Picked:
    """A hand-picked network as it would ship.

    Attributes:
        onnx: the exported file's content.
        accuracy: of that file on ``n`` test images, a fraction.
    """

    baseline: Baseline
    onnx: bytes
    accuracy: float
    n: int

    @property
    def item(self) -> MeasureItem:
        """What is measured."""
        space = self.baseline.space
        return MeasureItem(space.network(space.largest), self.onnx, space.largest, "network")


@dataclass(frozen=True)
class Answer:
    """An answer of an earlier extraction: its bundle's folder and report."""

    folder: Path
    report: Report
    item: MeasureItem


def compare(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    recipe: TrainRecipe,
    data: Data,
    spaces: Sequence[SearchSpace],
    budgets: Sequence[float] = (),
    subject: Subject | None = None,
    epochs: int | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
    progress: Tell = silent,
) -> BaselinesFound:
    """Choose the hand-picked networks that fit, train them, and measure them beside ours.

    Args:
        recipe: the supernet's, by which they are trained too.
        data: its images.
        spaces: of one network each, as ``candidates`` gives them.
        budgets: in ms. Of networks that differ in their width multiplier alone, the widest that fits is taken for each
            budget; without any all are.
        subject: the supernet whose answers they stand beside; None for none.
        epochs: of both trainings; by default the recipe's own, and 15.

    Returns:
        The comparison; docs/how-to/baselines.md describes it.

    Raises:
        InfeasibleBudget: none fits any budget; names the fastest.
    """

    def measured(numbers: Numbers) -> None:
        progress(f"measure on {target.name}", numbers)

    fleet.fetch(target)
    skipped: list[Skipped] = []
    if budgets:
        items = [network_item(space.network(space.largest), space.largest, target) for space in spaces]
        records = fleet.measure(target, items, protocol, measured)
        latencies = dict(zip(spaces, (record.p50 for record in records), strict=True))
        spaces, skipped = _fitting(latencies, budgets)
    ordered = sorted(spaces, key=lambda space: network_macs(space.network(space.largest)))
    trained = [train_baseline(workspace, recipe, data, space, epochs, seed, progress) for space in ordered]
    picked = [exported(workspace, baseline, data, target) for baseline in trained]
    answers = answers_on(workspace, subject, target) if subject else []
    found = measure_together(fleet, target, picked, [one.item for one in answers], protocol, measured)
    networks, records = found.networks, [*found.records, *found.ours]
    return BaselinesFound(
        schema=1,
        target=ran_under(target.name, records[0].condition).to_json(),
        dataset=data.name,
        measured_at=max(record.measured_at for record in records),
        networks=networks,
        skipped=skipped,
        answers=[compared(networks, _beside(*pair)) for pair in zip(answers, found.ours, strict=True)],
        budgets=[compared(networks, Beside(budget_ms=budget)) for budget in budgets],
    )


def candidates(
    names: Sequence[str],
    resolution: int,
    data: Data,
    budgets: Sequence[float] = (),
    space: SearchSpace | None = None,
) -> list[SearchSpace]:
    """Hand-picked networks by their names; with budgets, those that have a multiplier at every width that is tried.

    Args:
        resolution: of the images in pixels; a subnet's file has its own.
        space: the one that files of subnets are of where they are of no preset.

    Raises:
        UsageError: there is no such network, or a file is none of a subnet.
    """
    found: list[SearchSpace] = []
    for name in names:
        if name.endswith(".json"):
            found.append(_subnet(Path(name), data, space))
            continue
        widths = [f"@{width:g}" for width in MULTIPLIERS] if budgets and name in families() else [""]
        wanted = (f"{name}{width}" for width in widths)
        found += [handpicked(one, resolution, data.in_channels, data.num_classes) for one in wanted]
    return list({one.network(one.largest).key: one for one in found}.values())


def _subnet(path: Path, data: Data, space: SearchSpace | None) -> SearchSpace:
    try:
        arch = json.loads(path.read_text(encoding="utf-8"))
        name = arch["space"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} is no subnet's file, such as the arch.json of a bundle: {error}") from error
    of = space if space is not None and space.name == name else load_space(str(name))
    return handpicked_subnet(of, arch, data.in_channels, data.num_classes)


def _fitting(latencies: dict[SearchSpace, float], budgets: Sequence[float]) -> tuple[list[SearchSpace], list[Skipped]]:
    """For each budget the widest of each family that fits, and what has none that does."""
    of: dict[str, list[SearchSpace]] = {}
    for space in latencies:
        of.setdefault(picked_name(space).partition("@")[0], []).append(space)
    chosen, skipped = dict[SearchSpace, None](), list[Skipped]()
    for spaces in of.values():
        for budget in budgets:
            fitting = [space for space in spaces if latencies[space] <= budget]
            if fitting:
                chosen[max(fitting, key=lambda space: network_macs(space.network(space.largest)))] = None
        fastest = min(spaces, key=latencies.__getitem__)
        if latencies[fastest] > max(budgets):
            skipped.append(Skipped(name=picked_name(fastest), measured_ms=latencies[fastest]))
    if not chosen:
        fastest = min(latencies, key=latencies.__getitem__)
        raise InfeasibleBudget(
            f"no hand-picked network fits {max(budgets):g} ms: the fastest, {picked_name(fastest)}, takes "
            f"{latencies[fastest]:.4g} ms; ask for more, or name a smaller one such as resnet-4-8-16"
        )
    return list(chosen), skipped


def exported(workspace: Workspace, baseline: Baseline, data: Data, target: TargetProfile) -> Picked:
    """A network as its target runs it, with the accuracy of that file on the test images."""
    space, arch = baseline.space, baseline.space.largest
    supernet, _ = load_supernet(baseline.file)
    subnet = supernet.eval().extract(arch)  # its file has batch norm's statistics for this network
    subject = TrainedSupernet(space, baseline.name, "", supernet, baseline.file, data=data)
    images = subject.calibration(arch) if target.precision == "int8" else None
    onnx = model_file(space.network(arch), subnet.weights(), target, images)
    digest, kept = hashlib.sha256(onnx).hexdigest(), baseline.file.with_name(TESTED)
    known: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if digest not in known:
        _, run = runner(target)
        found = subject.test(lambda batches: run(onnx, batches), arch) or {"labels": [], "predicted": []}
        known[digest] = {
            "accuracy": float(np.mean(np.equal(found["labels"], found["predicted"]))),
            "n": len(found["labels"]),
        }
        write_atomic(kept, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode())
        keep_accuracy(workspace, baseline, known[digest]["accuracy"], known[digest]["n"], TEST)
    return Picked(baseline, onnx, **known[digest])


def answers_on(workspace: Workspace, subject: Subject, target: TargetProfile) -> list[Answer]:
    """The bundles of a supernet for a target, as far as their folders are still there; of one folder the newest."""
    found: dict[str, Answer] = {}
    for bundle in workspace.store.artefacts("bundle"):
        folder, answers = Path(bundle.path), bundle.meta.get("answers", ())
        of = {(answer["supernet"], answer["target"]["name"], answer["target"]["precision"]) for answer in answers}
        if of != {(subject.sha256, target.name, target.precision)}:
            continue
        try:
            report = Report.read(json.loads((folder / "report.json").read_text(encoding="utf-8")))
            onnx = (folder / "model.onnx").read_bytes()
            arch = subject.space.canonical(report.subnet.arch)
        except (OSError, ValueError, UsageError):
            continue  # moved, removed or replaced since
        item = MeasureItem(subject.space.network(arch), onnx, arch, "network")
        found[bundle.path] = Answer(folder, report, item)
    return list(found.values())


@dataclass(frozen=True)
class Together:
    """Hand-picked networks and ours, measured in the same rounds.

    Attributes:
        networks: the hand-picked ones.
        records, ours: the measurements, in the order of what was given.
    """

    networks: list[HandPicked]
    records: list[Measurement]
    ours: list[Measurement]


def measure_together(
    fleet: Fleet,
    target: TargetProfile,
    picked: Sequence[Picked],
    ours: Sequence[MeasureItem],
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> Together:
    """Measure hand-picked networks and ours in the same rounds."""
    records = fleet.measure(target, [*(one.item for one in picked), *ours], protocol, progress)
    theirs, own = records[: len(picked)], records[len(picked) :]
    return Together([_row(one, record) for one, record in zip(picked, theirs, strict=True)], theirs, own)


def check_baselines(workspace: Workspace, subject: Subject, target: TargetProfile) -> None:
    """Say before minutes of measuring what would be in the way after them.

    Raises:
        UsageError: the subject has no images, or no hand-picked network was trained on them.
    """
    if subject.data is None:
        raise UsageError(f"{subject.name} has no images here, by which hand-picked networks could be compared")
    if not known_baselines(workspace, subject.data.fingerprint):
        raise UsageError(
            f"no hand-picked network was trained on {subject.data.name} here: train some first with "
            f"ofa-deploy baseline --target {target.name}"
        )


def beside_baselines(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    data: Data,
    ours: MeasureItem,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> Together:
    """An answer beside all hand-picked networks that were trained here on its images, of which there may be none."""
    picked = [exported(workspace, one, data, target) for one in known_baselines(workspace, data.fingerprint)]
    return measure_together(fleet, target, picked, [ours], protocol, progress)


def _row(picked: Picked, record: Measurement) -> HandPicked:
    baseline, network = picked.baseline, picked.item.network
    return HandPicked(
        name=baseline.name,
        key=baseline.space.largest.key,
        macs=network_macs(network),
        params=network_params(network),
        size_bytes=len(picked.onnx),
        recipe=baseline.recipe,
        epochs=baseline.epochs,
        seconds=baseline.seconds,
        valid=baseline.valid,
        valid_n=baseline.valid_n,
        accuracy=picked.accuracy,
        n=picked.n,
        **timed(record),
        file=str(baseline.file),
    )


def _beside(answer: Answer, record: Measurement) -> AnswerBeside:
    report = answer.report
    return AnswerBeside(
        bundle=str(answer.folder),
        key=report.subnet.key,
        macs=report.subnet.macs,
        params=report.subnet.params,
        accuracy=report.accuracy.measured,
        n=report.accuracy.n,
        **budget_now(report.budget, report.latency.measured(report.budget.statistic), record),
    )


def budget_now(budget: Budget, then: float | None, record: Measurement) -> dict[str, Any]:
    """What a later measurement says of an answer: its latency, and the budget in the same proportion to it as then.

    Args:
        then: the budget's statistic when the answer was chosen, ms.
    """
    now, asked = record.ms(budget.statistic), budget.max_ms
    stretched = None if asked is None or not then else asked * now / then
    return {**timed(record), "asked_ms": asked, "answered_ms": then, "budget_ms": stretched}


def timed(record: Measurement) -> dict[str, Any]:
    """The median latency of a measurement with its 95 % interval in ms, and its relative standard error."""
    low, high = confidence_interval(record.timings, "p50", 0.0)
    return {"measured_ms": record.p50, "low_ms": low, "high_ms": high, "se": record.se}
