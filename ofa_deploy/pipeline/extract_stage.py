"""The stage that extracts: a bundle for every target and budget."""

from __future__ import annotations

import json
from math import inf
from typing import Any

from ofa_deploy.config import CellChoice, Constraints, TargetProfile, read_document
from ofa_deploy.deploy.budgets import Spread
from ofa_deploy.deploy.earlier_answers import answers_of
from ofa_deploy.deploy.fulfil import Past, fulfil
from ofa_deploy.deploy.request import KnownFront, Request, Source, bundle_name, check_together
from ofa_deploy.deploy.weight_sources import load_source
from ofa_deploy.differentiable.found_cells import read_genotype, read_recipe
from ofa_deploy.documents.answer_document import Answered
from ofa_deploy.documents.audit_document import Audit
from ofa_deploy.documents.report_document import Report
from ofa_deploy.errors import UsageError
from ofa_deploy.export import changed_files
from ofa_deploy.fleet import Protocol, in_precision
from ofa_deploy.fleet.gauge import fresh_session
from ofa_deploy.latency_models import load_table
from ofa_deploy.pipeline.context import Context, file_sha256, rows_hash, shared
from ofa_deploy.pipeline.document import ExtractStage
from ofa_deploy.pipeline.remembered import Begun, digest


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
    folder = bundle_name(target, constraints, stage.precision, stage.darts)
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
        " ".join(["extract", target.name, str(spread.place + 1), "of", str(spread.count), *_kind(stage)]),
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
    known: dict[str, Any] = {"answers": [one.to_json() for one in answers]} if answers else {}
    known |= {"front": file_sha256(stage.front)} if stage.front else {}
    known |= {"cells": _cells(run, stage.darts)} if stage.darts else {}
    if stage.precision:
        then = run.known(target)
        known["tables"] = [rows_hash(load_table(then, in_precision(target, name))) for name in stage.precision]
    return {**run.rests_on(target), "stage": shared(stage), **asked, **known}


def _kind(stage: ExtractStage) -> list[str]:
    """What tells a stage's units from those of another stage on the same targets."""
    return [*stage.precision, *(["darts"] if stage.darts else [])]


def _cells(run: Context, choice: CellChoice) -> str:
    """The hash of a cell search's recipe, and of the cells."""
    recipe = read_recipe(choice.config)
    genotype = read_genotype(choice.genotype or run.workspace.root / "darts" / recipe.name)
    return digest([recipe.model_dump(mode="json"), genotype.to_json()])


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
    request = _request(stage, target, constraints, spread)
    then = run.workspace.as_of(target.name, begun.newest)
    past = Past(
        workspace=run.known(target, begun.newest),
        after=begun.newest,
        answers=answers,
        session=fresh_session(then, target.name, begun.at),
        audit=Audit.read(audited) if (audited := run.audits.get(target.name)) else None,
    )
    subject = load_source(request.source, run.workspace, stage.seed, run.tell) if stage.darts else run.subject
    done = fulfil(request, subject, run.fleet(), run.workspace, run.tell, past, run.folder)
    return {"folder": done.folder.name, "budget": done.extraction.constraints.max_ms}


def _request(
    stage: ExtractStage, target: TargetProfile, constraints: Constraints, spread: Spread | None = None
) -> Request:
    return Request(
        target=target,
        constraints=constraints,
        precisions=stage.precision,
        source=Source(cells=stage.darts),
        plan=stage.plan,
        seed=stage.seed,
        front=KnownFront.read(stage.front, target.name) if stage.front else None,
        finetune=stage.finetune,
        finetune_epochs=stage.finetune_epochs,
        protocol=read_document(Protocol, stage.protocol),
        embed_preprocessing=stage.embed_preprocessing,
        spread=spread,
    )


def check_extract(stage: ExtractStage) -> None:
    """Before anything slow happens."""
    check_together(stage.darts, stage.precision, stage.finetune, stage.finetune_epochs, stage.front is not None)
    others = stage.constraints(None).bounds
    if not (stage.max_ms or stage.spread or others):
        where = ", ".join(stage.named) or "all targets"
        raise UsageError(f"extract for {where}: give max_ms, spread, max_macs, max_params or max_memory_mb")
