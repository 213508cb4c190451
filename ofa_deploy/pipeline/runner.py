"""A pipeline: its stages over one workspace, divided into units that are remembered by the hash of their inputs.

A unit is what one stage does on one target for one budget. What fails on one target does not stop the others. An
extraction rests on what was known when its target had been profiled and audited: other extractions, or an attempt of
its own that was killed, do not change what it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import ofa_deploy
from ofa_deploy.config import TrainRecipe, find_file, read_document, shipped_folder
from ofa_deploy.deploy.subject import SUPERNET, find_supernet
from ofa_deploy.documents.report_document import Report
from ofa_deploy.errors import GateFailed, UsageError
from ofa_deploy.export import verify_bundle
from ofa_deploy.files import write_atomic
from ofa_deploy.notices import Tell
from ofa_deploy.pipeline.context import Context, file_sha256
from ofa_deploy.pipeline.document import (
    CompareStage,
    ExtractStage,
    ImportStage,
    PipelineDocument,
    TrainStage,
    VerifyStage,
)
from ofa_deploy.pipeline.extract_stage import check_extract, extract_stage
from ofa_deploy.pipeline.gates import judge
from ofa_deploy.pipeline.measure_stages import audit_stage, cross, profile_stage
from ofa_deploy.pipeline.outcome import Outcome, Unit
from ofa_deploy.pipeline.remembered import Begun
from ofa_deploy.report.comparison import Entry, There, render_comparison
from ofa_deploy.store import Workspace
from ofa_deploy.training import train_supernet


def train_stage(run: Context, stage: TrainStage) -> None:
    """The supernet, trained by a recipe."""
    recipe = stage.recipe
    if isinstance(recipe, str):
        recipe = read_document(TrainRecipe, find_file(recipe, "pipelines"))
    folder = run.workspace.supernets / recipe.name
    run.path = folder / SUPERNET
    inputs = {"recipe": recipe.model_dump(mode="json"), "version": ofa_deploy.__version__}

    def work(_: Begun) -> str:
        path = train_supernet(
            recipe, folder, resume=True, report=lambda p: run.tell(f"train supernet {recipe.name}", p)
        )
        if run.subject.predictor:
            run.tell(run.subject.predictor.summary(), {})
        return file_sha256(path)

    run.unit("train", None, lambda: inputs, work, lambda sha: run.path.exists() and file_sha256(run.path) == sha)


def import_stage(run: Context, stage: ImportStage) -> None:
    """The supernet, as it lies there."""
    run.path = find_supernet(run.workspace, _supernet(stage.supernet))
    run.unit("import", None, lambda: file_sha256(run.path), lambda _: run.subject.name)


def verify_stage(run: Context, stage: VerifyStage) -> None:
    """Every bundle, checked again from its files alone."""
    for report in run.outcome.reports:
        name = report["folder"]
        run.outcome.add(_verified(run.folder / name, name, report["target"]["name"]))


def compare_stage(run: Context, stage: CompareStage) -> None:
    """The page of all bundles."""
    crossed = cross(run, stage) if stage.cross else {}
    entries = [
        Entry(
            Report.read(report),
            f"{report['folder']}/report.html",
            {name: There(on["p50"], on["simulated"]) for name, on in crossed.get(report["subnet"]["key"], {}).items()},
        )
        for report in run.outcome.reports
    ]
    if not run.dry:
        run.outcome.page = run.folder / "index.html"
        write_atomic(run.outcome.page, render_comparison(entries, stage.title).encode())


def _verified(bundle: Path, name: str, target: str) -> Unit:
    began = monotonic()
    problems = verify_bundle(bundle)
    if not problems:
        return Unit(f"verify {name}", target, "done", "", monotonic() - began)
    error = GateFailed(f"{bundle}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))
    return Unit(f"verify {name}", target, "failed", str(error), monotonic() - began, error)


def _supernet(named: str) -> Path:
    """Where an import stage's supernet lies."""
    shipped = shipped_folder("supernets")
    for path in (Path(named), Path("supernets") / named, shipped / named):
        if path.exists():
            return path
    known = ", ".join(sorted(path.parent.name for path in shipped.glob(f"*/{SUPERNET}")))
    raise UsageError(f"import: there is no supernet {named!r} here; a path is expected, or one that ships: {known}")


STAGES: dict[str, Callable[[Context, Any], None]] = {
    "train": train_stage,
    "import": import_stage,
    "profile": profile_stage,
    "audit": audit_stage,
    "extract": extract_stage,
    "verify": verify_stage,
    "compare": compare_stage,
}


def run_pipeline(
    document: PipelineDocument, workspace: Workspace, tell: Tell, dry: bool = False, baseline: Path | None = None
) -> Outcome:
    """Run every stage in order, judge the gates, and write ``summary.json``, ``summary.md`` and ``junit.xml``.

    Args:
        tell: called with what is going on and its progress.
        dry: only say what would be done.
        baseline: bundles of an earlier run; by default the document's.

    Raises:
        UsageError: the document asks for what there is not.
    """
    for stage in document.stages:
        if isinstance(stage, ExtractStage):
            check_extract(stage)
    run = Context(document, workspace, tell, dry)
    try:
        for stage in document.stages:
            STAGES[stage.stage](run, stage)
    finally:
        run.close()
    if not dry:
        run.outcome.compare_with(baseline or (Path(document.baseline) if document.baseline else None))
        run.outcome.verdicts = [
            judge(gate.check, report["folder"], report)
            for gate in document.gates
            for report in run.outcome.reports
            if not gate.targets or report["target"]["name"] in gate.targets
        ]
        run.outcome.write()
    return run.outcome
