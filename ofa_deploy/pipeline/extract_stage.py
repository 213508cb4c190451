"""The stage that extracts: a bundle for every target and budget."""

from __future__ import annotations

import json
from functools import partial
from math import inf
from typing import Any

from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.deploy.budgets import Spread
from ofa_deploy.deploy.earlier_answers import answers_of
from ofa_deploy.deploy.extract import Extraction
from ofa_deploy.deploy.orders import Order
from ofa_deploy.documents.answer_document import Answered
from ofa_deploy.documents.report_document import Report
from ofa_deploy.errors import UsageError
from ofa_deploy.export import changed_files
from ofa_deploy.fleet import Protocol
from ofa_deploy.fleet.gauge import fresh_session
from ofa_deploy.latency import differences
from ofa_deploy.latency_models import load_table
from ofa_deploy.pipeline.context import Context, shared
from ofa_deploy.pipeline.document import ExtractStage
from ofa_deploy.pipeline.remembered import Begun
from ofa_deploy.search import Constraints
from ofa_deploy.store import Workspace


def extract_stage(run: Context, stage: ExtractStage) -> None:
    """A bundle for every target and budget."""
    for name in run.names(stage):
        target = run.target(name)
        unbound: list[float | None] = [] if stage.spread else [None]
        for budget in sorted(stage.max_ms) or unbound:
            _extract(run, stage, target, budget)
        above = 0.0
        for place in range(stage.spread):
            above = _derived(run, stage, target, Spread(place, stage.spread, above)) or above


def _extract(run: Context, stage: ExtractStage, target: TargetProfile, budget: float | None) -> None:
    """One bundle, for a budget that was given."""
    constraints = stage.constraints(budget)
    folder = "-".join([target.name, *constraints.names])
    answers = _answers(run, target, budget)
    outputs = run.unit(
        f"extract {folder}",
        target.name,
        lambda: _inputs(run, stage, target, {"budget": budget}, answers),
        lambda begun: _bundle(run, stage, target, constraints, begun, answers)["folder"],
        lambda _: not changed_files(run.folder / folder),
    )
    if outputs:
        _report(run, folder)


def _derived(run: Context, stage: ExtractStage, target: TargetProfile, spread: Spread) -> float | None:
    """One bundle, for a budget that is derived from how fast the device is now: that budget in ms.

    Smaller ones come first: their answers are candidates for larger ones.
    """
    answers = _answers(run, target, None)
    outputs = run.unit(
        f"extract {target.name} {spread.place + 1} of {spread.count}",
        target.name,
        lambda: _inputs(run, stage, target, {"spread": [spread.place, spread.count, spread.above]}, answers),
        lambda begun: _bundle(run, stage, target, stage.constraints(None), begun, answers, spread),
        lambda outputs: not changed_files(run.folder / outputs["folder"]),
    )
    if not outputs:
        return None
    _report(run, outputs["folder"])
    return float(outputs["budget"])


def _inputs(
    run: Context, stage: ExtractStage, target: TargetProfile, asked: dict[str, Any], answers: list[Answered]
) -> dict[str, Any]:
    known = {"answers": [one.to_json() for one in answers]} if answers else {}
    return {**run.rests_on(target), "stage": shared(stage), **asked, **known}


def _report(run: Context, folder: str) -> None:
    report = json.loads((run.folder / folder / "report.json").read_text())
    run.outcome.reports.append({**report, "bundle": str(run.folder / folder), "folder": folder})


def _answers(run: Context, target: TargetProfile, budget: float | None) -> list[Answered]:
    """What this run has answered on the target so far: not what else the workspace knows, so that a run that is
    resumed or repeated elsewhere finds the same."""
    reports, most = map(Report.read, run.outcome.reports), inf if budget is None else budget
    here = [report for report in reports if report.target.name == target.name]
    answers = [one for report in here for one in answers_of(report, report.provenance.supernet_sha256)]
    return [one for one in answers if one.measured_ms <= most]


def _bundle(
    run: Context,
    stage: ExtractStage,
    target: TargetProfile,
    constraints: Constraints,
    begun: Begun,
    answers: list[Answered],
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Extract and write the bundle: its folder and budget."""
    which = f"budget {spread.place + 1} of {spread.count}" if spread else "-".join([target.name, *constraints.names])
    order = Order(
        subject=run.subject,
        targets=(target,),
        constraints=constraints,
        seed=stage.seed,
        plan=stage.plan,
        protocol=read_document(Protocol, stage.protocol),
        finetune=stage.finetune,
        finetune_epochs=stage.finetune_epochs,
        embed_preprocessing=stage.embed_preprocessing,
        spread=spread,
    )

    def attempt(workspace: Workspace, may_profile: bool) -> Extraction:
        progress = partial(run.tell, f"measure finalists for {which}")
        return order.extraction(run.fleet(), workspace, may_profile, progress, answers, session)

    known, then = run.known(target, begun.newest), run.workspace.as_of(target.name, begun.newest)
    session = fresh_session(then, target.name, begun.at)
    profiled = bool(load_table(known, target).rows)
    with run.fleet().replaying(target.name, begun.newest):
        extraction = attempt(known if profiled else run.workspace, may_profile=not profiled)
    if differences(extraction.chosen.predictor.table.condition, extraction.chosen.record.condition):
        extraction = attempt(run.workspace, may_profile=True)  # another version of its runtime since
    folder = "-".join([target.name, *extraction.constraints.names])
    order.deliver(extraction, run.workspace, run.folder / folder, run.audits.get(target.name))
    return {"folder": folder, "budget": extraction.constraints.max_ms}


def check_extract(stage: ExtractStage) -> None:
    """Before anything slow happens."""
    others = stage.constraints(None).bounds
    if not (stage.max_ms or stage.spread or others):
        where = ", ".join(stage.named) or "all targets"
        raise UsageError(f"extract for {where}: give max_ms, spread, max_macs, max_params or max_memory_mb")
