"""What goes into the database and comes out of it, but for the measurement records, which the store keeps as they are.

Where a JSON document shows one of these, its keys are the fields' names. Times are UTC, ISO 8601.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ofa_deploy.arch_record import ArchFacts
from ofa_deploy.json_types import JSON

if TYPE_CHECKING:
    from ofa_deploy.store.database import Encoded


@dataclass(frozen=True)
class Device:
    """A device that measures.

    Attributes:
        profile: as what it was registered; None where it never was.
        facts: what its agent last said about it.
        seen_at: when it was last heard of; None for never.
    """

    name: str
    profile: dict[str, JSON] | None
    facts: dict[str, JSON]
    created_at: str
    seen_at: str | None
    revoked_at: str | None


@dataclass(frozen=True)
class MeasuredDevice(Device):
    """A device beside what was measured on it.

    Attributes:
        measured: how many records it has; the newest of them gives the other two.
        measured_facts: what it said about itself then.
        simulated: None where nothing was measured yet.
    """

    measured: int
    measured_facts: dict[str, JSON]
    simulated: bool | None


@dataclass(frozen=True)
class Token:
    """When a token was made, and when it ended."""

    created_at: str
    revoked_at: str | None


@dataclass(frozen=True)
class NewItem:
    """One thing to be measured, at a place in its job; ``blob`` is the sha256 of its model."""

    position: int
    blob: str
    payload: Mapping[str, JSON] | Encoded


@dataclass(frozen=True)
class RunItem:
    """The same as an agent gets it, by the id ``item``."""

    item: str
    position: int
    blob: str
    payload: dict[str, JSON]


@dataclass(frozen=True)
class Run:
    """One attempt at a chunk of a job by one agent.

    Attributes:
        run: its id; ``attempt`` counts from 1.
        state: ``running``, ``done``, ``returned``, ``expired`` or ``cancelled``.
        queue: of the job; "" for registered devices.
        chunk: the chunk's place in the job.
        run_s: the attempt expires after this many seconds.
        request: what the job asks for.
        reference: what the job's first finished chunk left for the others.
    """

    run: str
    attempt: int
    state: str
    device: str
    claimed_at: str
    job: str
    queue: str
    chunk: int
    run_s: float
    request: dict[str, JSON]
    reference: dict[str, JSON] | None
    items: tuple[RunItem, ...]


@dataclass(frozen=True)
class RunUnderWay:
    """A running attempt as the dashboard shows it; ``items`` counts them, ``progress`` is what its agent last said."""

    run: str
    job: str
    device: str
    attempt: int
    claimed_at: str
    progress: dict[str, JSON] | None
    items: int


@dataclass(frozen=True)
class ItemFailure:
    """Which item of a job could not be measured, and why."""

    position: int
    key: str | None
    reason: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        state: ``active``, ``done`` or ``cancelled``.
        quiet_since: when something was last heard of an active job that no agent is at; else None.
        total, done, failed, running: counts of items.
        progress: what the agent of the running chunk last said.
    """

    id: str
    device: str
    queue: str
    state: str
    quiet_since: str | None
    total: int
    done: int
    failed: int
    errors: tuple[ItemFailure, ...]
    running: int
    progress: dict[str, JSON] | None


@dataclass(frozen=True)
class JobTimes:
    """When a job began and ended."""

    id: str
    state: str
    created_at: str
    finished_at: str | None


@dataclass(frozen=True)
class JobSummary(JobTimes):
    """A job as the dashboard shows it; ``runtime`` is what it asks for, ``items`` counts them by state."""

    device: str
    runtime: dict[str, JSON] | None
    items: dict[str, int]


@dataclass(frozen=True)
class MeasuredCondition:
    """A condition that a device was measured under, by its ``hash``; how many records there are, and the newest."""

    hash: str
    condition: dict[str, JSON]
    records: int
    measured_at: str


@dataclass(frozen=True)
class NewestRow:
    """What was last measured of a block or a network, in milliseconds but for ``se``, a fraction; ``spec`` is that of
    its first block, None where a record has none."""

    kind: str
    key: str
    measured_at: str
    p50: float
    p90: float
    p99: float
    se: float
    n: int
    flags: list[str]
    arch: dict[str, JSON] | None
    spec: dict[str, JSON] | None


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of a subnet on one split: a fraction, over ``n`` images; see ``EvaluationRow`` for the others."""

    supernet: str
    key: str
    split: str
    role: str
    state: str
    weights: str
    arch: dict[str, JSON]
    accuracy: float
    n: int
    created_at: str


@dataclass(frozen=True)
class Artefact:
    """A file that the project made, with the sha256 of its content; a bundle's is its subnet's key.

    ``meta`` is whatever those who made it know of it, and they alone read it.
    """

    kind: str
    path: str
    sha256: str
    meta: dict[str, Any]
    created_at: str


@dataclass(frozen=True)
class MeasuredNetwork:
    """The newest measurement of a network on one device under one condition, in milliseconds; ``se`` is a fraction."""

    device: str
    condition: dict[str, JSON]
    p50: float
    p90: float
    p99: float
    se: float
    measured_at: str


@dataclass(frozen=True)
class KnownArch(ArchFacts):
    """All that is known of a subnet."""

    space: str = ""
    created_at: str = ""
    evaluations: tuple[Evaluation, ...] = ()
    measurements: tuple[MeasuredNetwork, ...] = ()
    bundles: tuple[Artefact, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        about = {name: getattr(self, name) for name in ("key", "space", "arch", "network", "macs", "params")}
        own = ("key", "arch")  # an evaluation's, which are the subnet's
        return {
            **about,
            "created_at": self.created_at,
            "evaluations": [
                {name: value for name, value in vars(one).items() if name not in own} for one in self.evaluations
            ],
            "measurements": [vars(one) for one in self.measurements],
            "bundles": [{"path": one.path, **one.meta, "created_at": one.created_at} for one in self.bundles],
        }
