"""Jobs that wait at a server for a device that went away, so that a command that is repeated measures nothing twice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.fleet.client import Client
from ofa_deploy.fleet.schemas import JobItem, JobRequest
from ofa_deploy.json_types import JSON, read_record
from ofa_deploy.latency import Measurement
from ofa_deploy.store import Workspace


@dataclass(frozen=True)
class KeptJob:
    """A job at a server. Another one that is alike in ``device``, ``runtime`` and ``settings`` can stand for it."""

    server: str
    id: str
    device: str
    runtime: JSON
    settings: JSON
    items: list[str]

    @classmethod
    def of(cls, job: JobRequest, server: str) -> Self:
        """What is kept of a job; its settings are those that it was made with."""
        runtime, settings = (one.model_dump(mode="json", exclude_unset=True) for one in (job.runtime, job.settings))
        return cls(server, job.id, job.device, runtime, settings, [_name(item) for item in job.items])

    def is_like(self, other: KeptJob) -> bool:
        """Whether one of them can stand for the other."""
        names = ("server", "device", "runtime", "settings")
        return all(getattr(self, name) == getattr(other, name) for name in names)


class KeptJobs:
    """The jobs at one server that this workspace's commands gave up waiting for."""

    def __init__(self, workspace: Workspace, client: Client) -> None:
        self._file, self._client = workspace.root / "kept-jobs.json", client

    def keep(self, job: JobRequest) -> None:
        """Remember a job whose device is lost; the server measures it when the device is back."""
        entry = KeptJob.of(job, self._client.url)
        self._write([one for one in self._all() if one.id != job.id] + [entry])

    def instead_of(self, job: JobRequest) -> str | None:
        """The id of a kept job that measures all items of a new one: wait for it. None: queue the new one.

        A kept job is cancelled where the new one measures all that is left of it. One that measures other items stays.
        """
        asked = KeptJob.of(job, self._client.url)
        wanted = set(asked.items)
        for kept in self._all():
            if (kept.server, kept.device) != (asked.server, asked.device):
                continue
            left = self._left(kept)
            if left and wanted <= left and kept.is_like(asked):
                return kept.id
            if left and left <= wanted and kept.runtime == asked.runtime:
                self._client.cancel(kept.id)
                left = set()
            if not left:
                self._write([one for one in self._all() if one.id != kept.id])
        return None

    def _left(self, kept: KeptJob) -> set[str]:
        """The items of a kept job that nobody has measured yet; none where it is over."""
        try:
            if self._client.status(kept.id).state != "active":
                return set()
            measured = self._client.records(kept.id)
        except UsageError:  # the server does not know it any more
            return set()
        return {name for place, name in enumerate(kept.items) if place not in measured}

    def _all(self) -> list[KeptJob]:
        try:
            return [read_record(KeptJob, entry) for entry in json.loads(self._file.read_bytes())]
        except (OSError, ValueError, TypeError, AttributeError):
            return []

    def _write(self, entries: list[KeptJob]) -> None:
        write_atomic(self._file, json.dumps([vars(entry) for entry in entries]).encode())


def _name(item: JobItem | Measurement) -> str:
    return f"{item.kind} {item.key}"


def records_of(job: JobRequest, records: list[Measurement]) -> list[Measurement]:
    """Those of a kept job's records that a new job asked for, in its order.

    Raises:
        OfaDeployError: one is missing: it could not be measured.
    """
    found = {_name(record): record for record in records}
    missing = next((item.key for item in job.items if _name(item) not in found), None)
    if missing is not None:
        raise OfaDeployError(f"{missing} could not be measured on {job.device}; run the command again")
    return [found[_name(item)] for item in job.items]
