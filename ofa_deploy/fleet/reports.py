"""The reports that audits and extractions left in the workspace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ofa_deploy.json_types import JSON

KINDS = {"audits": "audit", "bundles": "report"}  # a folder of the workspace: the name of its reports' files


@dataclass(frozen=True)
class ListedReport:
    """The page of an audit or a bundle, and what its JSON says: None for what it does not say."""

    kind: str
    path: str
    changed_at: str
    target: JSON = None
    simulated: JSON = None
    verdict: JSON = None


class Reports:
    """The pages under a workspace's ``audits`` and ``bundles``; one that is not listed cannot be opened."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def listed(self) -> list[ListedReport]:
        """Every report, the newest first."""
        found = [self._entry(kind, path, page) for kind in KINDS for path, page in self._pages(kind).items()]
        return sorted(found, key=lambda entry: entry.changed_at, reverse=True)

    def page(self, kind: str, path: str) -> Path | None:
        """The HTML file of a listed report; None for anything else."""
        return self._pages(kind).get(path) if kind in KINDS else None

    def _pages(self, kind: str) -> dict[str, Path]:
        if self._root is None:
            return {}
        folder = (self._root / kind).resolve()
        pages = sorted(folder.rglob(f"{KINDS[kind]}.html"))
        inside = [page for page in pages if page.resolve().is_relative_to(folder)]  # a link may lead elsewhere
        return {page.parent.relative_to(folder).as_posix(): page for page in inside}

    def _entry(self, kind: str, path: str, page: Path) -> ListedReport:
        changed_at = _moment(page.stat().st_mtime)
        try:
            report = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # the page can still be read
            return ListedReport(kind, path, changed_at)
        target, verdict = _get(report, "target"), _get(report, "verdict")
        return ListedReport(
            kind,
            path,
            changed_at,
            target=target if isinstance(target, str) else _get(target, "name"),
            simulated=_get(report, "condition", "simulated") or _get(target, "simulated"),
            verdict=verdict if isinstance(verdict, str) else _get(verdict, "text"),
        )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _get(document: JSON, *names: str) -> JSON:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document
