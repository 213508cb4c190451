"""Where a bundle comes from, as an in-toto statement with SLSA provenance.

The shapes are those of in-toto's Statement v1 (https://in-toto.io/Statement/v1) and SLSA's provenance v1
(https://slsa.dev/provenance/v1). Nothing in it changes from run to run: it is not signed, and says no time.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from typing import Any

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:ofa-deploy:extract:1"


def statement(
    files: Mapping[str, bytes],
    parameters: Mapping[str, Any],
    materials: Mapping[str, str | None],
    versions: Mapping[str, str],
    commit: str | None,
) -> dict[str, Any]:
    """The provenance of a bundle's files.

    Args:
        parameters: what was asked for.
        materials: sha256 of what it was made from, by name; None leaves one out.
        versions: of the software.
        commit: of the repository that asked for it.
    """
    made_from = [{"name": name, "digest": {"sha256": sha}} for name, sha in sorted(materials.items()) if sha]
    if commit:
        made_from.append({"name": "repository", "digest": {"gitCommit": commit}})
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
            for name, content in sorted(files.items())
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(parameters),
                "resolvedDependencies": made_from,
            },
            "runDetails": {"builder": {"id": "urn:ofa-deploy", "version": dict(versions)}},
        },
    }


def git_commit() -> str | None:
    """The commit of the repository where the command stands; None outside of one, or without git."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
