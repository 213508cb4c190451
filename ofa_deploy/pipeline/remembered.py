"""What a pipeline remembers: of every unit of work, the hash of its inputs and what it left."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ofa_deploy.files import write_atomic
from ofa_deploy.json_types import JSON, read_record


def digest(value: object) -> str:
    """sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class Begun(NamedTuple):
    """When a unit was begun first: the ``id`` of the newest measurement then, and the time."""

    newest: int
    at: datetime


@dataclass(frozen=True)
class Remembered:
    """A unit of work.

    Attributes:
        inputs: their digest.
        outputs: what it left; None while it is not completed.
        since, at: when it was begun first; earlier versions did not note the time.
    """

    inputs: str
    outputs: JSON = None
    since: int | None = None
    at: str | None = None

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object, without what is not known."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Memory:
    """One JSON file; written whole after every change. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        self._units: dict[str, Remembered] = {}
        if path.exists():
            try:
                kept = dict(json.loads(path.read_text()))
                self._units = {name: read_record(Remembered, unit) for name, unit in kept.items()}
            except (ValueError, TypeError, AttributeError):  # without its memory a pipeline only repeats work
                path.unlink()

    def outputs(self, unit: str, inputs: object) -> JSON:
        """What a unit left, if it was completed with these inputs; else None."""
        known = self._known(unit, inputs)
        return known.outputs if known else None

    def begin(self, unit: str, inputs: object, since: int) -> Begun:
        """Note where a unit begins; one that was begun with the same inputs before begins where it did then.

        Args:
            since: the ``id`` of the newest measurement now.

        Returns:
            When it was begun first.
        """
        known, now = self._known(unit, inputs), datetime.now(UTC)
        if known and known.since is not None:
            return Begun(known.since, datetime.fromisoformat(known.at) if known.at else now)
        self._write(unit, Remembered(digest(inputs), since=since, at=now.isoformat()))
        return Begun(since, now)

    def keep(self, unit: str, inputs: object, outputs: JSON) -> None:
        """Remember a completed unit, and when it began: so that a bundle that is lost is made again as it was."""
        known = self._units.get(unit)
        begun = (known.since, known.at) if known else (None, None)
        self._write(unit, Remembered(digest(inputs), outputs, *begun))

    def _known(self, unit: str, inputs: object) -> Remembered | None:
        known = self._units.get(unit)
        return known if known and known.inputs == digest(inputs) else None

    def _write(self, unit: str, entry: Remembered) -> None:
        with self._lock:
            self._units[unit] = entry
            units = {name: one.to_json() for name, one in self._units.items()}
            write_atomic(self._path, json.dumps(units, indent=1, sort_keys=True).encode())
