"""The stages of a pipeline over one workspace, each remembered by the hash of its inputs."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ofa_deploy
from ofa_deploy.config import (
    CompareStage,
    ExtractStage,
    PipelineDocument,
    ProfileStage,
    TargetProfile,
    TrainRecipe,
    TrainStage,
    find_file,
    read_document,
)
from ofa_deploy.deploy.audits import newest_audit
from ofa_deploy.deploy.bundle import build_bundle
from ofa_deploy.deploy.extract import budgets_between, extract
from ofa_deploy.deploy.finetuning import tuning_of
from ofa_deploy.deploy.ready import ready_model
from ofa_deploy.deploy.remember import remember_bundle
from ofa_deploy.deploy.subject import SUPERNET, Subject, load_subject
from ofa_deploy.errors import UsageError
from ofa_deploy.export import verify_bundle
from ofa_deploy.files import write_atomic
from ofa_deploy.fleet import Fleet, Protocol, resolve_target
from ofa_deploy.fleet.models import load_table
from ofa_deploy.fleet.profiling import profile
from ofa_deploy.latency import LatencyTable
from ofa_deploy.report import render_comparison
from ofa_deploy.search import Constraints, GradientSettings, Plan
from ofa_deploy.search.problem import BOUNDS
from ofa_deploy.search.strategies import find_strategy
from ofa_deploy.store import Workspace
from ofa_deploy.training import train_supernet

Tell = Callable[[str, dict[str, Any]], None]  # (what is going on, numbers of its progress)


@dataclass
class PipelineResult:
    """What a run left behind.

    Attributes:
        reports: report of every bundle, with its folder under ``bundle``.
        page: the page that compares them; None without a compare stage.
        skipped: names of the stages that had not changed.
    """

    reports: list[dict[str, Any]] = field(default_factory=list)
    page: Path | None = None
    skipped: list[str] = field(default_factory=list)


class _Memory:
    """Hash of the inputs and list of the outputs of every stage that was completed, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages: dict[str, Any] = {}
        if path.exists():
            try:
                self._stages = json.loads(path.read_text())
            except ValueError:  # without its memory a pipeline only repeats work
                path.unlink()

    def outputs(self, stage: str, inputs: Any) -> Any | None:
        """What a stage left, if it ran with these inputs."""
        known = self._stages.get(stage)
        return known["outputs"] if known and known["inputs"] == _hash(inputs) else None

    def keep(self, stage: str, inputs: Any, outputs: Any) -> None:
        """Remember a completed stage."""
        self._stages[stage] = {"inputs": _hash(inputs), "outputs": outputs}
        write_atomic(self._path, json.dumps(self._stages, indent=1, sort_keys=True).encode())


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class _Run:
    """One pass over a pipeline's stages."""

    def __init__(self, document: PipelineDocument, workspace: Workspace, tell: Tell) -> None:
        self.document, self.workspace, self.tell = document, workspace, tell
        self.folder = workspace.bundles / document.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.memory = _Memory(self.folder / "pipeline.json")
        self.result = PipelineResult()
        self._fleet: Fleet | None = None
        self._path: Path | None = None
        self._subject: Subject | None = None

    @property
    def fleet(self) -> Fleet:
        """Started when the first stage needs a device."""
        self._fleet = self._fleet or Fleet.open(self.workspace)
        return self._fleet

    @property
    def path(self) -> Path:
        """The supernet's file."""
        if self._path is None:
            raise UsageError(f"pipeline {self.document.name}: a train stage must come before the others")
        return self._path

    @property
    def subject(self) -> Subject:
        """The supernet, loaded when the first stage needs it."""
        if self._subject is None:
            self._subject = load_subject(self.workspace, self.path, lambda p: self.tell("evaluate subnets", p))
        return self._subject

    def close(self) -> None:
        """Stop what was started."""
        if self._fleet is not None:
            self._fleet.close()

    def train(self, stage: TrainStage) -> None:
        recipe = stage.recipe
        if isinstance(recipe, str):
            recipe = read_document(TrainRecipe, find_file(recipe, "pipelines"))
        folder = self.workspace.supernets / recipe.name
        inputs = {"recipe": recipe.model_dump(mode="json"), "version": ofa_deploy.__version__}
        self._path = folder / SUPERNET
        if self._path.exists() and self.memory.outputs("train", inputs) == _sha256(self._path):
            self._skip("train")
            return
        self._path = train_supernet(recipe, folder, resume=True, report=lambda p: self.tell("train the supernet", p))
        if self.subject.predictor:
            self.tell(self.subject.predictor.summary(), {})
        self.memory.keep("train", inputs, _sha256(self._path))

    def profile(self, stage: ProfileStage) -> None:
        target, name = resolve_target(stage.target, self.workspace, measure=True), f"profile {stage.target}"
        inputs = {"supernet": _sha256(self.path), "target": target.model_dump(), "networks": stage.networks}
        table = load_table(self.workspace, target)
        if table.rows and self.memory.outputs(name, inputs) == _rows_hash(table):
            self._skip(name)
            return
        table = profile(
            self.fleet,
            self.workspace,
            target,
            self.subject.space,
            networks=stage.networks,
            protocol=read_document(Protocol, stage.protocol),
            progress=lambda p: self.tell(f"profile {target.name}", p),
        )
        self.memory.keep(name, inputs, _rows_hash(table))

    def extract(self, stage: ExtractStage) -> None:
        target = resolve_target(stage.target, self.workspace, measure=True)
        name = " ".join(["extract", stage.target, *_constraints(stage, None).names])
        folders = self.memory.outputs(name, self._inputs(stage, target))
        if folders is not None and not any(verify_bundle(self.folder / folder) for folder in folders):
            self._skip(name)
        else:
            folders = [self._bundle(stage, budget) for budget in self._budgets(stage)]
            self.memory.keep(name, self._inputs(stage, target), folders)  # it may have profiled the target
        for folder in folders:
            report = json.loads((self.folder / folder / "report.json").read_text())
            self.result.reports.append({**report, "bundle": str(self.folder / folder), "folder": folder})

    def _inputs(self, stage: ExtractStage, target: TargetProfile) -> dict[str, Any]:
        table = load_table(self.workspace, target)
        return {"supernet": _sha256(self.path), "stage": stage.model_dump(), "table": _rows_hash(table)}

    def _budgets(self, stage: ExtractStage) -> list[float | None]:
        budgets: list[float | None] = list(stage.max_ms)
        if stage.spread:
            target = resolve_target(stage.target, self.workspace, measure=True)
            model, codec = ready_model(self.fleet, self.workspace, target, self.subject.space, stage.statistic)
            budgets += budgets_between(self.subject, model, codec, stage.spread, stage.confidence)
        return budgets or [None]

    def _bundle(self, stage: ExtractStage, budget: float | None) -> str:
        target = resolve_target(stage.target, self.workspace, measure=True)
        constraints = _constraints(stage, budget)
        folder = "-".join([stage.target, *constraints.names])
        tuning = tuning_of(self.subject, stage.finetune, stage.finetune_epochs)
        extraction = extract(
            self.fleet,
            self.workspace,
            self.subject,
            target,
            constraints,
            stage.seed,
            protocol=read_document(Protocol, stage.protocol),
            progress=lambda p: self.tell(f"extract {folder}", p),
            tuning=tuning,
            tuned=stage.finetune,
            plan=_plan(stage),
        )
        words = ["ofa-deploy", "extract", "--target", target.name, *constraints.options, "--seed", str(stage.seed)]
        words += _plan(stage).options
        words += ["--finetune", str(stage.finetune), "--finetune-epochs", str(tuning.epochs)] if tuning else []
        command = shlex.join([*words, "--supernet", str(self.path)])
        report = build_bundle(extraction, self.folder / folder, command, newest_audit(self.workspace, extraction))
        remember_bundle(self.workspace, extraction, report, self.folder / folder)
        return folder

    def compare(self, stage: CompareStage) -> None:
        linked = [
            {
                **report,
                "links": {"report": f"{report['folder']}/report.html", "model": f"{report['folder']}/model.onnx"},
            }
            for report in self.result.reports
        ]
        self.result.page = self.folder / "index.html"
        write_atomic(self.result.page, render_comparison(linked, stage.title).encode())

    def _skip(self, name: str) -> None:
        self.result.skipped.append(name)
        self.tell(f"{name}: unchanged, skipped", {})


def _constraints(stage: ExtractStage, budget: float | None) -> Constraints:
    bounds = stage.model_dump(include=set(BOUNDS) - {"max_ms"})
    return Constraints(max_ms=budget, confidence=stage.confidence, statistic=stage.statistic, **bounds)


def _plan(stage: ExtractStage) -> Plan:
    gradient = GradientSettings(stage.relaxation, stage.gradient_steps, stage.train_weights)
    return Plan(stage.strategy, stage.evaluations, stage.population, stage.time_limit, gradient)


def _check(stage: ExtractStage) -> None:
    """Before anything slow happens."""
    others = _constraints(stage, None).bounds
    if not (stage.max_ms or stage.spread or others):
        raise UsageError(f"extract for {stage.target}: give max_ms, spread, max_macs, max_params or max_memory_mb")
    find_strategy(stage.strategy)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows_hash(table: LatencyTable) -> str:
    """Of the blocks alone: measuring finalists adds networks to a table, and must not make it count as changed."""
    return _hash([vars(row) for row in table.rows.values()])


def run_pipeline(document: PipelineDocument, workspace: Workspace, tell: Tell) -> PipelineResult:
    """Run every stage in order.

    Args:
        tell: called with what is going on and its progress.
    """
    for stage in document.stages:
        if isinstance(stage, ExtractStage):
            _check(stage)
    run = _Run(document, workspace, tell)
    try:
        for stage in document.stages:
            getattr(run, stage.stage)(stage)
    finally:
        run.close()
    return run.result
