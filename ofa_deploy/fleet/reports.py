"""The reports that audits and extractions left in the workspace."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KINDS = {"audits": "audit", "bundles": "report"}  # a folder of the workspace: the name of its reports' files


class Reports:
    """The pages under a workspace's ``audits`` and ``bundles``; one that is not listed cannot be opened."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def listed(self) -> list[dict[str, Any]]:
        """``kind, path, changed_at, target, simulated, verdict`` of every report, the newest first."""
        found = [self._entry(kind, path, page) for kind in KINDS for path, page in self._pages(kind).items()]
        return sorted(found, key=lambda entry: entry["changed_at"], reverse=True)

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

    def _entry(self, kind: str, path: str, page: Path) -> dict[str, Any]:
        about = {"kind": kind, "path": path, "changed_at": _moment(page.stat().st_mtime)}
        try:
            return about | _summary(json.loads(page.with_suffix(".json").read_text(encoding="utf-8")))
        except (OSError, ValueError):  # the page can still be read
            return about | _summary({})


def _summary(report: Any) -> dict[str, Any]:
    """What the list says of a report, or of an audit; None for what it does not say."""
    target, verdict = _get(report, "target"), _get(report, "verdict")
    return {
        "target": target if isinstance(target, str) else _get(target, "name"),
        "simulated": _get(report, "condition", "simulated") or _get(target, "simulated"),
        "verdict": verdict if isinstance(verdict, str) else _get(verdict, "text"),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _get(document: Any, *names: str) -> Any:
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document
