"""Where a bundle comes from, as an in-toto statement with a SLSA v1 provenance predicate.

The shapes are those of https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.0/provenance. Nothing in it says
when or where it was written: dates are those of the measurement, so that equal inputs give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ofa_deploy.documents.report_document import Report

PROVENANCE = "provenance.json"


def git_commit(folder: Path) -> str | None:
    """The commit that a folder's repository is at; None outside of one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def statement(
    files: Mapping[str, bytes], report: Report, inputs: Mapping[str, str | None], measured_at: str
) -> dict[str, object]:
    """The provenance of a bundle's files.

    Args:
        inputs: sha256 of what it was made from, by name; those that are None were not used.
    """
    source = report.provenance
    depends = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(inputs.items()) if digest]
    if source.git_commit:
        depends.append({"name": "the repository it was built in", "digest": {"gitCommit": source.git_commit}})
    asked = {"command": report.command, "target": source.target, "arch": report.subnet.arch}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
            for name, content in sorted(files.items())
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:ofa-deploy:extract:1",
                "externalParameters": asked,
                "internalParameters": {"seed": source.seed},
                "resolvedDependencies": depends,
            },
            "runDetails": {
                "builder": {"id": "urn:ofa-deploy:cli", "version": source.versions},
                "metadata": {"startedOn": measured_at, "finishedOn": measured_at},
            },
        },
    }


def wrong_subjects(folder: Path) -> list[str]:
    """What a bundle's provenance says of its files that is not so; nothing where it has none."""
    file = folder / PROVENANCE
    if not file.is_file():
        return []
    try:
        subjects = {one["name"]: one["digest"]["sha256"] for one in json.loads(file.read_bytes())["subject"]}
    except (ValueError, KeyError, TypeError):
        return [f"{PROVENANCE} is damaged"]
    wrong = []
    for name, digest in sorted(subjects.items()):
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(f"{PROVENANCE} describes another {name}")
    return wrong
