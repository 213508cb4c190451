"""An extraction from the question to the bundle, as commands, pipelines and programs all run it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ofa_deploy import notices
from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.audits import newest_audit
from ofa_deploy.deploy.baselines import beside_baselines
from ofa_deploy.deploy.budgets import Spread
from ofa_deploy.deploy.bundling import build_bundle
from ofa_deploy.deploy.earlier_answers import earlier_answers
from ofa_deploy.deploy.extract import BY_DEFAULT, Extraction, extract
from ofa_deploy.deploy.finetuning import Tuning, tuning_of
from ofa_deploy.deploy.kept_baselines import known_baselines
from ofa_deploy.deploy.precisions import extract_best
from ofa_deploy.deploy.remember import remember_bundle
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.answer_document import Answered
from ofa_deploy.documents.audit_document import Audit
from ofa_deploy.documents.report_document import Report
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import Fleet, MeasureItem, Protocol
from ofa_deploy.fleet.gauge import fresh_session
from ofa_deploy.latency import Measurement
from ofa_deploy.search import Constraints, Plan
from ofa_deploy.space import Arch
from ofa_deploy.store import Workspace


@dataclass(frozen=True)
class Order:
    """What to extract, and how.

    Attributes:
        targets: the device, once for each precision.
        finetune: how many of the finalists that fit are fine-tuned; 0 for none.
        finetune_epochs: for how many epochs; by default a quarter of the recipe's.
        front: the subnets of a front that was searched before; without any, the order searches.
        embed_preprocessing: whether the bundle also gets a model that pre-processes images itself.
        spread: derives the latency bound from the device as it is then.
        baselines: whether the answer is measured beside the hand-picked networks that were trained on its images.
        options: words of the command that repeats the order, beside those that follow from the other attributes.
    """

    subject: Subject
    targets: tuple[TargetProfile, ...]
    constraints: Constraints
    seed: int = 0
    plan: Plan = BY_DEFAULT
    protocol: Protocol | None = None
    finetune: int = 0
    finetune_epochs: int | None = None
    front: tuple[Arch, ...] = ()
    embed_preprocessing: bool = False
    options: tuple[str, ...] = ()
    spread: Spread | None = None
    baselines: bool = False

    @cached_property
    def tuning(self) -> Tuning | None:
        """How finalists are fine-tuned; None if they are not."""
        return tuning_of(self.subject, self.finetune, self.finetune_epochs)

    @property
    def command(self) -> str:
        """The command that repeats the order."""
        words = ["ofa-deploy", "extract", "--target", self.targets[0].name, *self.constraints.options]
        words += ["--seed", str(self.seed), *self.options, *self.plan.options]
        if self.tuning:
            words += ["--finetune", str(self.finetune), "--finetune-epochs", str(self.tuning.epochs)]
        words += ["--with-preprocessing"] if self.embed_preprocessing else []
        words += ["--baselines"] if self.baselines else []
        words += ["--supernet", str(self.subject.path)] if self.subject.path else []
        return shlex.join(words)

    def extraction(
        self,
        fleet: Fleet,
        workspace: Workspace,
        may_profile: bool = True,
        progress: notices.Report | None = None,
        answers: list[Answered] | None = None,
        session: list[Measurement] | None = None,
    ) -> Extraction:
        """Search, measure and choose; see ``extract`` and ``extract_best``.

        Args:
            answers: earlier answers, which are candidates too; by default all that the workspace knows.
            session: what was measured on the device within the last seconds; by default as the workspace knows it.
        """

        def one(target: TargetProfile) -> Extraction:
            asked = (workspace, self.subject, target, self.constraints, answers)
            return extract(
                fleet,
                workspace,
                self.subject,
                target,
                self.constraints,
                self.seed,
                may_profile,
                self.protocol,
                progress,
                self.tuning,
                self.finetune,
                self.front,
                self.plan,
                earlier_answers(*asked),
                self.spread,
                fresh_session(workspace, target.name) if session is None else session,
            )

        if self.baselines:
            self._check_baselines(workspace)
        found = extract_best(self.targets, one)
        return self._beside(found, fleet, workspace, progress) if self.baselines else found

    def _check_baselines(self, workspace: Workspace) -> None:
        """Say before minutes of measuring what would be in the way after them."""
        if self.subject.data is None:
            raise UsageError(f"{self.subject.name} has no images here, by which hand-picked networks could be compared")
        if not known_baselines(workspace, self.subject.data.fingerprint):
            raise UsageError(
                f"no hand-picked network was trained on {self.subject.data.name} here: train some first with "
                f"ofa-deploy baseline --target {self.targets[0].name}"
            )

    def _beside(
        self, found: Extraction, fleet: Fleet, workspace: Workspace, progress: notices.Report | None
    ) -> Extraction:
        """The extraction with the hand-picked networks beside its answer."""
        if (data := self.subject.data) is None:
            return found
        chosen = found.chosen
        arch = chosen.point.arch
        item = MeasureItem(self.subject.space.network(arch), chosen.onnx, arch, "network")
        beside = beside_baselines(fleet, workspace, found.target, data, item, self.protocol, progress)
        return replace(found, beside=beside)

    def deliver(
        self,
        extraction: Extraction,
        workspace: Workspace,
        folder: Path,
        audited: Mapping[str, object] | None = None,
    ) -> Report:
        """Write the bundle, and remember it in the workspace.

        Args:
            audited: the audit that the report shows; by default the newest that fits.

        Returns:
            The report.
        """
        audit = Audit.read(dict(audited)) if audited else newest_audit(workspace, extraction)
        command = replace(self, constraints=extraction.constraints).command
        report = build_bundle(extraction, folder, command, audit, self.embed_preprocessing)
        remember_bundle(workspace, extraction, report, folder)
        return report
