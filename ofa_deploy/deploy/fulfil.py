"""From a request to a bundle, as commands, pipelines and programs all come to it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ofa_deploy.config import TargetProfile
from ofa_deploy.deploy.audits import newest_audit
from ofa_deploy.deploy.baselines import beside_baselines, check_baselines
from ofa_deploy.deploy.bundling import build_bundle
from ofa_deploy.deploy.earlier_answers import earlier_answers
from ofa_deploy.deploy.extract import extract
from ofa_deploy.deploy.extraction import Extraction
from ofa_deploy.deploy.finetuning import tuning_of
from ofa_deploy.deploy.order import Order
from ofa_deploy.deploy.precisions import extract_best
from ofa_deploy.deploy.ready import covered_in
from ofa_deploy.deploy.remember import remember_bundle
from ofa_deploy.deploy.request import Request
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.answer_document import Answered
from ofa_deploy.documents.audit_document import Audit
from ofa_deploy.documents.report_document import Report
from ofa_deploy.fleet import Fleet, MeasureItem
from ofa_deploy.fleet.gauge import fresh_session
from ofa_deploy.latency import Measurement, differences
from ofa_deploy.latency_models import load_table
from ofa_deploy.notices import Numbers, Tell, silent
from ofa_deploy.store import Workspace


@dataclass(frozen=True)
class Past:
    """What a request that was begun before rested on then, so that it finds the same again.

    Attributes:
        workspace: as the target's profile and audit left it.
        after: the ``id`` of the newest measurement then; later ones are given as if they were measured now.
        answers: earlier answers, instead of those that the workspace remembers.
        session: what had been measured on the device within the seconds before.
        audit: of the target's predictions in its own precision, for the report.
    """

    workspace: Workspace
    after: int
    answers: list[Answered]
    session: list[Measurement]
    audit: Audit | None = None


@dataclass(frozen=True)
class Fulfilled:
    """An answer, delivered as a bundle.

    Attributes:
        report: the content of ``report.json``.
    """

    extraction: Extraction
    folder: Path
    report: Report


def fulfil(
    request: Request,
    subject: Subject,
    fleet: Fleet,
    workspace: Workspace,
    tell: Tell = silent,
    past: Past | None = None,
    parent: Path | None = None,
) -> Fulfilled:
    """Search, measure, choose, and deliver the bundle; the workspace remembers it.

    Of networks of cells the size is chosen first, and then the network of that size is trained and measured.

    Args:
        subject: what ``request.source`` stands for, loaded.
        past: what the request rested on when it was begun; by default what the workspace knows now.
        parent: the folder in which the bundle gets a folder of its name; by default the workspace's bundles.

    Raises:
        InfeasibleBudget: no subnet meets the constraints.
        GateFailed: every finalist was measured over the budget, or the bundle does not keep a promise.
        DeviceUnavailable: the device does not answer.
    """
    work = _Work(request, fleet, workspace, tell, past)
    with fleet.replaying(request.target.name, past.after) if past else nullcontext():
        extraction = work.best(subject)
        if finished := subject.finished(extraction.chosen.point.arch, workspace, tell):
            extraction = work.best(finished)
    tell("verify and report", {})
    folder = request.output or (parent or workspace.bundles) / request.name(extraction.constraints)
    own = past is not None and extraction.target == request.target
    audited = (past.audit if past and own else None) or newest_audit(workspace, extraction)
    command = request.command(extraction.constraints, extraction.subject)
    report = build_bundle(extraction, folder, command, audited, request.embed_preprocessing)
    remember_bundle(workspace, extraction, report, folder)
    return Fulfilled(extraction, folder, report)


@dataclass(frozen=True)
class _Work:
    """The searches and measurements of a request; see ``fulfil``."""

    request: Request
    fleet: Fleet
    workspace: Workspace
    tell: Tell
    past: Past | None

    def best(self, subject: Subject) -> Extraction:
        """The best of the request's precisions, and hand-picked networks beside it where they are asked for."""
        if self.request.baselines:
            check_baselines(self.workspace, subject, self.request.target)
        found = extract_best(self.request.targets, partial(self._in_one, subject))
        if not self.request.baselines or (data := subject.data) is None:
            return found
        arch, onnx = found.chosen.point.arch, found.chosen.onnx
        item = MeasureItem(subject.space.network(arch), onnx, arch, "network")
        protocol, workspace = self.request.protocol, self.workspace
        beside = beside_baselines(self.fleet, workspace, found.target, data, item, protocol, self._told)
        return replace(found, beside=beside)

    def _in_one(self, subject: Subject, target: TargetProfile) -> Extraction:
        """The answer in one precision."""
        workspace, may_profile, past = self.workspace, self.request.may_profile, self.past
        if past is None:
            return self._on(workspace, subject, target, may_profile)
        profiled = bool(covered_in(load_table(past.workspace, target), subject.space))
        then = past.workspace if profiled else workspace
        extraction = self._on(then, subject, target, may_profile and not profiled)
        if not differences(extraction.chosen.predictor.table.condition, extraction.chosen.record.condition):
            return extraction
        with self.fleet.replaying(target.name, workspace.store.newest_measurement(target.name)):
            return self._on(workspace, subject, target, may_profile)  # another version of its runtime since

    def _on(self, workspace: Workspace, subject: Subject, target: TargetProfile, may_profile: bool) -> Extraction:
        """The answer on what a workspace knows."""
        request, past = self.request, self.past
        asked = (workspace, subject, target, request.constraints, past.answers if past else None)
        order = Order(
            subject=subject,
            target=target,
            constraints=request.constraints,
            seed=request.seed,
            plan=request.plan,
            may_profile=may_profile,
            protocol=request.protocol,
            front=request.front.archs(request, subject) if request.front else (),
            tuning=tuning_of(subject, request.finetune, request.finetune_epochs),
            tuned=request.finetune,
            earlier=earlier_answers(*asked),
            spread=request.spread,
            session=past.session if past else fresh_session(workspace, target.name),
        )
        return extract(self.fleet, workspace, order, self._told)

    def _told(self, numbers: Numbers) -> None:
        """Say what is going on, and for which budget."""
        request = self.request
        spread = f"budget {request.spread.place + 1} of {request.spread.count}" if request.spread else None
        budget = spread or "-".join(request.constraints.names)
        what = "fine-tune" if "loss" in numbers else f"measure on {request.target.name}"
        self.tell(f"{what} for {budget}", numbers)
