"""What a pipeline remembers: of every unit of work, the hash of its inputs and what it left."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from threading import Lock
from typing import Any

from ofa_deploy.files import write_atomic


def digest(value: Any) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


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

    def begin(self, unit: str, inputs: Any, since: int) -> int:
        """Note where a unit begins; one that was begun with the same inputs before begins where it did then.

        Args:
            since: the ``id`` of the newest measurement now.

        Returns:
            The ``id`` of the newest measurement when it was begun first.
        """
        known = self._units.get(unit)
        if known and known["inputs"] == digest(inputs) and "since" in known:
            return int(known["since"])
        self._write(unit, {"inputs": digest(inputs), "since": since})
        return since

    def keep(self, unit: str, inputs: Any, outputs: Any) -> None:
        """Remember a completed unit."""
        since = self._units.get(unit, {}).get("since")  # so that a bundle that is lost is made again as it was
        self._write(unit, {"inputs": digest(inputs), "outputs": outputs, **({} if since is None else {"since": since})})

    def _write(self, unit: str, entry: dict[str, Any]) -> None:
        with self._lock:
            self._units[unit] = entry
            write_atomic(self._path, json.dumps(self._units, indent=1, sort_keys=True).encode())
