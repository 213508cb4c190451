"""Audits that are kept: as pages to read, and in the workspace's database for the reports of later extractions."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ofa_deploy.config import TargetProfile
from ofa_deploy.documents.audit_document import Audit
from ofa_deploy.documents.ranking_document import Ranking
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.report import (
    render_audit_html,
    render_audit_markdown,
    render_ranking_html,
    render_ranking_markdown,
)
from ofa_deploy.space import PRESETS, Family
from ofa_deploy.store import Workspace

if TYPE_CHECKING:  # it loads torch, which an audit does not need
    from ofa_deploy.deploy.extraction import Extraction


def audit_folder(path: Path) -> Path:
    """Make the folder that an audit goes to, before minutes of measuring.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror}; name another with -o") from error
    return path


def keep_audit(workspace: Workspace, answer: Mapping[str, object], folder: Path) -> None:
    """Write ``audit.json``, ``audit.md`` and ``audit.html``, and remember the answer for ``newest_audit``.

    The files show the folder's newest audit; the database keeps all of them, so that an audit of one space does not
    hide that of another.
    """
    content = (json.dumps(answer, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    write_atomic(folder / "audit.json", content)
    audit = Audit.read(answer)
    write_atomic(folder / "audit.md", render_audit_markdown(audit).encode())
    write_atomic(folder / "audit.html", render_audit_html(audit).encode())
    digest = hashlib.sha256(content).hexdigest()
    workspace.store.add_artefact("audit", str(folder / "audit.json"), digest, answer)


def keep_ranking(workspace: Workspace, ranking: Ranking, file: Path | None) -> Path:
    """Keep a ranking audit's answer in the workspace's audits: ``ranking.json``, ``.md`` and ``.html``.

    Args:
        file: another place for the JSON, too.

    Returns:
        Its file in the workspace; the pages are beside it.
    """
    answer = ranking.to_json()
    content = (json.dumps(answer, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    kept = audit_folder(workspace.audits / f"ranking-{ranking.name}") / "ranking.json"
    for path in filter(None, (kept, file)):
        write_atomic(path, content)
    write_atomic(kept.with_suffix(".md"), render_ranking_markdown(ranking).encode())
    write_atomic(kept.with_suffix(".html"), render_ranking_html(ranking).encode())
    workspace.store.add_artefact("ranking", str(kept), hashlib.sha256(content).hexdigest(), answer)
    return kept


def newest_audit(workspace: Workspace, extraction: Extraction) -> Audit | None:
    """The newest audit of the predictions that an extraction rests on; None where there was none.

    The target, its condition and the statistic are the same, and the space at the chosen subnet's resolution, or the
    cells.
    """
    arch, space = extraction.chosen.point.arch, extraction.subject.space
    same = (extraction.target.name, space.name, extraction.chosen.record.condition)
    same_too = (extraction.constraints.statistic, space.to_json().get("genotype"))
    for artefact in reversed(workspace.store.artefacts("audit")):
        audit = Audit.read(artefact.meta)
        fits = (audit.target, audit.space, audit.condition) == same and (audit.statistic, audit.genotype) == same_too
        if fits and arch.resolution in audit.resolutions:
            return audit
    return None


def audit_command(
    target: TargetProfile, space: Family, statistic: str, options: Mapping[str, object] | None = None
) -> str:
    """The command that audits a target's predictions for a space; a space that is no preset is the supernet's.

    Args:
        options: further ones, by name; None leaves one out, a list repeats it.
    """
    preset = PRESETS.get(space.name)
    known = preset is not None and preset == space.with_resolutions(preset.resolutions)
    given = {"target": target.name, "space": space.name if known else None, "statistic": statistic, **(options or {})}
    words = ["ofa-deploy", "audit"]
    for name, value in given.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        words += [word for one in values if one is not None for word in (f"--{name}", str(one))]
    return shlex.join(words)
