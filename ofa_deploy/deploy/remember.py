"""What a finished bundle leaves in the workspace's database: itself, and its subnet's accuracy on the test split."""

from __future__ import annotations

from pathlib import Path

from ofa_deploy.deploy.earlier_answers import answers_of
from ofa_deploy.deploy.extraction import Extraction
from ofa_deploy.documents.report_document import Report
from ofa_deploy.store import Workspace
from ofa_deploy.store.store import ONE_SHOT


def remember_bundle(workspace: Workspace, extraction: Extraction, report: Report, folder: Path) -> None:
    """Add a bundle to what is known of its architecture."""
    store, subject, chosen = workspace.store, extraction.subject, extraction.chosen
    meta = {"target": extraction.target.name, "answers": [one.to_json() for one in answers_of(report, subject.sha256)]}
    store.add_artefact("bundle", str(folder), chosen.point.arch.key, meta)
    found, arch = report.accuracy, chosen.point.arch
    if found.measured is not None and found.n and found.split and chosen.tuned is None:  # training on has kept its own
        args = (subject.sha256, arch.to_json(), arch.key, found.measured, found.n, found.split)
        store.add_evaluation(*args, "bundle", ONE_SHOT)
