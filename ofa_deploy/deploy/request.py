"""What is to be extracted, and how: one document for commands, pipelines and programs."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa_deploy.config import CellChoice, Constraints, Plan, TargetProfile
from ofa_deploy.deploy.budgets import Spread
from ofa_deploy.deploy.finetuning import tuning_of
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import Protocol, in_precision
from ofa_deploy.space import Arch


@dataclass(frozen=True)
class Source:
    """Which networks there are to choose from; by default those of the newest supernet.

    Attributes:
        supernet: a supernet's file or folder.
        space: a space with random weights instead: a preset's name or a YAML file.
        accuracy: the name of an imported accuracy predictor, in the place of the supernet's own.
        cells: networks of cells instead.
    """

    supernet: Path | None = None
    space: str | None = None
    accuracy: str | None = None
    cells: CellChoice | None = None

    def __post_init__(self) -> None:
        if self.cells and (self.supernet or self.accuracy or self.space):
            raise UsageError("--supernet, --accuracy and --space do not work with --family darts: leave them out")
        if self.supernet and self.space:
            raise UsageError("give a supernet or a space with random weights, not both")

    @property
    def words(self) -> list[str]:
        """The words of a command that chooses from the same; a supernet's are those of its file."""
        words = ["--accuracy", self.accuracy] if self.accuracy else []
        words += ["--space", self.space, "--random-weights"] if self.space else []
        return words + (self.cells.words if self.cells else [])


@dataclass(frozen=True)
class KnownFront:
    """A front that was searched before, from which the finalists are taken.

    Attributes:
        answer: as ``ofa-deploy pareto --json`` prints it.
        file: where it was read; None in a program.
    """

    answer: dict[str, Any]
    file: Path | None = None

    @classmethod
    def read(cls, file: Path, target: str) -> KnownFront:
        """The front in a JSON file that ``pareto`` wrote.

        Raises:
            UsageError: it cannot be read, or holds no front.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read {file}: {error}") from error
        if not isinstance(found, dict) or found.get("kind") != "front":
            raise UsageError(f"{file} holds no front; make one with: ofa-deploy pareto --target {target} -o {file}")
        return cls(found, file)

    def archs(self, request: Request, subject: Subject) -> tuple[Arch, ...]:
        """Its subnets.

        Raises:
            UsageError: it is of another supernet, target, predictor or percentile than the request.
        """
        found, target = self.answer, request.target.name
        asked = {
            "space": subject.space.name,
            "supernet_sha256": found.get("supernet_sha256") and subject.sha256,
            "accuracy": request.source.accuracy,
            "statistic": request.constraints.statistic,
        }
        other = next((name for name, value in asked.items() if found.get(name) != value), None)
        if other is not None or target not in found["fronts"]:
            what = f"{other} {found.get(other)}" if other else ", ".join(found["fronts"])
            raise UsageError(f"the front is of {what}, not of what is asked for; make one with: ofa-deploy pareto")
        return tuple(subject.space.canonical(point["arch"]) for point in found["fronts"][target])


@dataclass(frozen=True)
class Request:
    """What to extract, and how.

    Attributes:
        target: the device.
        constraints: what the network must meet.
        precisions: those of which the best network counts; by default the target's own.
        source: which networks there are to choose from.
        plan: how they are searched.
        seed: of the search, and of random weights.
        front: takes the place of a search.
        finetune: how many of the finalists that fit are fine-tuned; 0 for none.
        finetune_epochs: for how many epochs; by default a quarter of the recipe's.
        may_profile: whether a device without a latency table is profiled first.
        protocol: how it is measured.
        embed_preprocessing: whether the bundle also gets a model that pre-processes images itself.
        spread: derives the latency bound from the device as it is then.
        output: the bundle's folder; by default one of the request's name.
        baselines: whether the answer is measured beside the hand-picked networks that were trained on its images.
        options: further words of the command that repeats the request.
    """

    target: TargetProfile
    constraints: Constraints
    precisions: tuple[str, ...] = ()
    source: Source = field(default_factory=Source)
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    front: KnownFront | None = None
    finetune: int = 0
    finetune_epochs: int | None = None
    may_profile: bool = True
    protocol: Protocol = field(default_factory=Protocol)
    embed_preprocessing: bool = False
    spread: Spread | None = None
    output: Path | None = None
    baselines: bool = False
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        front = self.front is not None
        check_together(self.source.cells, self.precisions, self.finetune, self.finetune_epochs, front, self.baselines)
        self.targets  # noqa: B018 - a precision that the target cannot have is refused now

    @property
    def targets(self) -> tuple[TargetProfile, ...]:
        """The device, once for each precision."""
        return tuple(in_precision(self.target, name) for name in self.precisions) or (self.target,)

    def name(self, constraints: Constraints) -> str:
        """The name of the bundle of an answer, under its constraints."""
        return bundle_name(self.target, constraints, self.precisions, self.source.cells)

    def command(self, constraints: Constraints, subject: Subject) -> str:
        """The command that repeats the request: under these constraints, for what it was answered with."""
        words = ["ofa-deploy", "extract", "--target", self.target.name, *constraints.options]
        words += ["--seed", str(self.seed), *self.source.words]
        words += ["--se", f"{self.protocol.se:g}", "--cap-s", f"{self.protocol.cap_s:g}"]
        words += ["--precision", ",".join(self.precisions)] if self.precisions else []
        words += ["--front", str(self.front.file)] if self.front and self.front.file else []
        words += [*self.options, *self.plan.options]
        if tuning := tuning_of(subject, self.finetune, self.finetune_epochs):
            words += ["--finetune", str(self.finetune), "--finetune-epochs", str(tuning.epochs)]
        words += ["--with-preprocessing"] if self.embed_preprocessing else []
        words += ["--baselines"] if self.baselines else []
        words += ["--supernet", str(subject.path)] if subject.path else []
        return shlex.join(words)


def bundle_name(
    target: TargetProfile, constraints: Constraints, precisions: tuple[str, ...] = (), cells: CellChoice | None = None
) -> str:
    """The name of a bundle's folder: ``local-ms2``, ``local-ms2-fp32-int8``, ``local-ms2-darts``."""
    return "-".join([target.name, *constraints.names, *precisions, *(["darts"] if cells else [])])


def check_together(
    cells: CellChoice | None,
    precisions: tuple[str, ...],
    finetune: int,
    finetune_epochs: int | None,
    front: bool,
    baselines: bool = False,
) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: names it.
    """
    if finetune_epochs and not finetune:
        raise UsageError("--finetune-epochs needs --finetune")
    if cells and len(precisions) > 1:
        raise UsageError("--family darts takes a single --precision")
    if cells and (finetune or front or baselines):
        raise UsageError("--finetune, --front and --baselines work on a supernet's subnets, not with --family darts")
