"""What the server keeps of a job's request, and what an agent gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ofa_deploy.config import SIMULATED
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.fleet.schemas import JobItem, JobRequest, Runtime
from ofa_deploy.json_types import JSON, objects, read_record
from ofa_deploy.store import Run

SENTINEL = "sentinel"  # the name of an item that only shows a device's drift


@dataclass(frozen=True)
class WorkItem:
    """What an agent needs to know of an item; ``item`` is its id in the job, ``blob`` the sha256 of its model."""

    item: str
    blob: str
    key: JSON
    kind: JSON
    specs: JSON
    counts: JSON

    @classmethod
    def of(cls, name: str, blob: str, payload: Mapping[str, JSON]) -> Self:
        """An item from its id, its model, and what is stored of it."""
        return cls(name, blob, payload["key"], payload["kind"], payload["specs"], payload["counts"])


@dataclass(frozen=True)
class Asked:
    """What all runs of a job share; the device takes the first sentinel that it can run."""

    runtime: Runtime
    settings: Protocol
    sentinels: tuple[WorkItem, ...]

    @classmethod
    def of_job(cls, job: JobRequest) -> Self:
        """The request of a new job."""
        by_blob = {item.blob: item for item in reversed(job.items)}
        sentinels = (WorkItem.of(SENTINEL, blob, payload_of(by_blob[blob])) for blob in job.sentinels)
        return cls(job.runtime, job.settings, tuple(sentinels))

    @classmethod
    def of_run(cls, run: Run) -> Self:
        """The request that a run's job was stored with."""
        data = run.request
        sentinels = tuple(read_record(WorkItem, one) for one in objects(data["sentinels"]))
        return cls(Runtime.model_validate(data["runtime"]), Protocol.model_validate(data["settings"]), sentinels)

    @property
    def simulated(self) -> bool:
        """Whether a simulation is asked for. It decides, not what the device says: the same agent does both."""
        return self.runtime.runtime == SIMULATED

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        sentinels = [vars(one) for one in self.sentinels]
        return {
            "runtime": self.runtime.model_dump(),
            "settings": self.settings.model_dump(),
            "sentinels": sentinels,
        }


def payload_of(item: JobItem) -> dict[str, JSON]:
    """What is stored of an item, beside its model."""
    return item.model_dump(exclude={"blob"})
