"""The stage that extracts: a bundle for every target and budget."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.deploy.answers import answer_of
from ofa_deploy.deploy.extract import Extraction, budgets_between
from ofa_deploy.deploy.orders import Order
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.errors import UsageError
from ofa_deploy.export import changed_files
from ofa_deploy.fleet import Protocol
from ofa_deploy.fleet.models import load_table
from ofa_deploy.latency import differences
from ofa_deploy.pipeline.context import Context, shared
from ofa_deploy.pipeline.document import ExtractStage
from ofa_deploy.search import Constraints, GradientSettings, Plan
from ofa_deploy.search.problem import BOUNDS
from ofa_deploy.search.strategies import find_strategy
from ofa_deploy.store import Workspace


def extract_stage(run: Context, stage: ExtractStage) -> None:
    """A bundle for every target and budget."""
    for name in run.names(stage):
        target, budgets = run.target(name), list[float | None](stage.max_ms)
        if stage.spread:
            budgets += _spread(run, stage, target)
        for budget in sorted(budgets, key=_size) or ([] if stage.spread else [None]):
            _extract(run, stage, target, budget)


def _size(budget: float | None) -> float:
    """Smaller budgets come first: their answers are candidates for larger ones."""
    return float("inf") if budget is None else budget


def _spread(run: Context, stage: ExtractStage, target: TargetProfile) -> list[float]:
    """Budgets over the feasible range; none where an earlier unit on the target has failed."""
    asked = stage.model_dump(include={"spread", "confidence", "statistic"})

    def work(_: int) -> list[float]:
        model, codec = ready_model(run.fleet(), run.known(target), target, run.subject.space, stage.statistic)
        return budgets_between(run.subject, model, codec, stage.spread, stage.confidence)

    return run.unit(f"budgets {target.name}", target.name, lambda: {**run.rests_on(target), **asked}, work) or []


def _extract(run: Context, stage: ExtractStage, target: TargetProfile, budget: float | None) -> None:
    constraints = _constraints(stage, budget)
    folder = "-".join([target.name, *constraints.names])
    answers = _answers(run, target, constraints)
    outputs = run.unit(
        f"extract {folder}",
        target.name,
        lambda: {
            **run.rests_on(target),
            "stage": shared(stage),
            "budget": budget,
            **({"answers": answers} if answers else {}),
        },
        lambda since: _bundle(run, stage, target, constraints, folder, since, answers),
        lambda _: not changed_files(run.folder / folder),
    )
    if outputs:
        report = json.loads((run.folder / folder / "report.json").read_text())
        run.outcome.reports.append({**report, "bundle": str(run.folder / folder), "folder": folder})


def _answers(run: Context, target: TargetProfile, constraints: Constraints) -> list[dict[str, Any]]:
    """What this run has answered on the target so far: not what else the workspace knows, so that a run that is
    resumed or repeated elsewhere finds the same."""
    answers = [answer_of(report, report["provenance"]["supernet_sha256"]) for report in run.outcome.reports]
    budget = _size(constraints.max_ms)
    return [a for a in answers if a["target"]["name"] == target.name and a["measured_ms"] <= budget]


def _bundle(
    run: Context,
    stage: ExtractStage,
    target: TargetProfile,
    constraints: Constraints,
    folder: str,
    since: int,
    answers: list[dict[str, Any]],
) -> str:
    order = Order(
        subject=run.subject,
        targets=(target,),
        constraints=constraints,
        seed=stage.seed,
        plan=_plan(stage),
        protocol=read_document(Protocol, stage.protocol),
        finetune=stage.finetune,
        finetune_epochs=stage.finetune_epochs,
        embed_preprocessing=stage.embed_preprocessing,
    )

    def attempt(workspace: Workspace, may_profile: bool) -> Extraction:
        progress = partial(run.tell, f"measure finalists for {folder}")
        return order.extraction(run.fleet(), workspace, may_profile, progress, answers)

    known = run.known(target, since)
    profiled = bool(load_table(known, target).rows)
    with run.fleet().replaying(target.name, since):
        extraction = attempt(known if profiled else run.workspace, may_profile=not profiled)
    if differences(extraction.chosen.predictor.table.condition, extraction.chosen.record["condition"]):
        extraction = attempt(run.workspace, may_profile=True)  # another version of its runtime since
    order.deliver(extraction, run.workspace, run.folder / folder, run.audits.get(target.name))
    return folder


def _plan(stage: ExtractStage) -> Plan:
    gradient = GradientSettings(stage.relaxation, stage.gradient_steps, stage.train_weights)
    return Plan(stage.strategy, stage.evaluations, stage.population, stage.time_limit, gradient)


def _constraints(stage: ExtractStage, budget: float | None) -> Constraints:
    bounds = stage.model_dump(include=set(BOUNDS) - {"max_ms"})
    return Constraints(max_ms=budget, confidence=stage.confidence, statistic=stage.statistic, **bounds)


def check_extract(stage: ExtractStage) -> None:
    """Before anything slow happens."""
    others = _constraints(stage, None).bounds
    if not (stage.max_ms or stage.spread or others):
        where = ", ".join(stage.named) or "all targets"
        raise UsageError(f"extract for {where}: give max_ms, spread, max_macs, max_params or max_memory_mb")
    find_strategy(stage.strategy)
