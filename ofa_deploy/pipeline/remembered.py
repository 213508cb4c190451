"""What a pipeline remembers: of every unit of work, the hash of its inputs and what it left."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ofa_deploy.files import write_atomic


def digest(value: Any) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class Begun(NamedTuple):
    """When a unit was begun first: the ``id`` of the newest measurement then, and the time."""

    newest: int
    at: datetime


class Memory:
    """One JSON file; written whole after every change. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._units: dict[str, Any] = {}
        if path.exists():
            try:
                self._units = dict(json.loads(path.read_text()))
            except (ValueError, TypeError):  # without its memory a pipeline only repeats work
                path.unlink()

    def outputs(self, unit: str, inputs: Any) -> Any | None:
        """What a unit left, if it was completed with these inputs."""
        known = self._units.get(unit)
        return known.get("outputs") if known and known["inputs"] == digest(inputs) else None

    def begin(self, unit: str, inputs: Any, since: int) -> Begun:
        """Note where a unit begins; one that was begun with the same inputs before begins where it did then.

        Args:
            since: the ``id`` of the newest measurement now.

        Returns:
            When it was begun first.
        """
        known, now = self._units.get(unit), datetime.now(UTC)
        if known and known["inputs"] == digest(inputs) and "since" in known:
            at = known.get("at")  # earlier versions did not note it
            return Begun(int(known["since"]), datetime.fromisoformat(at) if at else now)
        self._write(unit, {"inputs": digest(inputs), "since": since, "at": now.isoformat()})
        return Begun(since, now)

    def keep(self, unit: str, inputs: Any, outputs: Any) -> None:
        """Remember a completed unit."""
        known = self._units.get(unit, {})  # when it began: so that a bundle that is lost is made again as it was
        begun = {name: known[name] for name in ("since", "at") if name in known}
        self._write(unit, {"inputs": digest(inputs), "outputs": outputs, **begun})

    def _write(self, unit: str, entry: dict[str, Any]) -> None:
        with self._lock:
            self._units[unit] = entry
            write_atomic(self._path, json.dumps(self._units, indent=1, sort_keys=True).encode())
