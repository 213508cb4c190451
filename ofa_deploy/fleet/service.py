"""What the server's routes share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from ofa_deploy.config import BROWSER
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.fleet.bells import Bells, Line
from ofa_deploy.fleet.blobs import Blobs
from ofa_deploy.json_types import JSON
from ofa_deploy.store import Device, JobState, Store

SEEN_S = 90.0  # a device that was not heard of for so long is not there
LOST_S = 45.0  # beyond a lease; an idle agent asks every 20 s, and what is heard is written every 10 s
OWN_LOST_S = 30.0  # beyond a lease; the agent of a command asks every second
SILENT_S = 600.0  # a command whose own agent was not at work for so long is gone
UNFINISHED_S = 3600.0  # after which a job that is not written in full never will be
SEEN_PAUSE_S = 10.0  # that a device was heard of is not written more often


class Missing(OfaDeployError):
    """What was asked for does not exist."""


class Conflict(OfaDeployError):
    """The request does not fit to what the server has; ``code`` tells a program why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Forbidden(OfaDeployError):
    """Somebody else's."""


class Unauthorized(OfaDeployError):
    """A code that lets nobody in."""


@dataclass(frozen=True)
class Service:
    """The store, the model files, and the bells of waiting agents.

    Attributes:
        lease_s: a run that is not heard of for so long is given to the next agent.
    """

    store: Store
    files: Blobs
    lease_s: float

    @cached_property
    def bells(self) -> Bells:
        """Ring when there is work."""
        return Bells(self.look)

    def look(self) -> Iterable[Line]:
        """Take back what is late, and say for whom there is work."""
        self.expire()
        return self.store.jobs.waiting()

    def expire(self) -> None:
        """Take back what is late."""
        for job in self.store.runs.expire():
            self.tidy(job)
        for queue in self.store.jobs.abandoned_queues(SILENT_S):
            self.end_queue(queue)

    def lost(self, job: JobState) -> str | None:
        """Why nobody will go on with an active job for now; None while somebody is at it, or may come."""
        quiet_since = job.quiet_since
        if quiet_since is None:
            return None
        name = job.device
        if job.queue:  # other commands' agents may say that they are this device
            gone = _age_s(quiet_since) > OWN_LOST_S
            return f"the agent of {name!r} was not heard of since {quiet_since}" if gone else None
        return unavailable(name, self.store.device(name), min(SEEN_S, self.lease_s + LOST_S))

    def end_queue(self, queue: str) -> None:
        """A command is over: so are its jobs, and the tokens of the agents that it started."""
        for job in self.store.jobs.cancel_queue(queue):
            self.tidy(job)

    def sweep(self) -> None:
        """Delete what is left of jobs that never arrived in full, and models that no job needs any more."""
        self.store.jobs.drop_unfinished(UNFINISHED_S)
        self.files.drop_old(self.store.jobs.needed_models())

    def tidy(self, job: str) -> None:
        """Delete the models of a job if it is over, but for those that another one needs; tell who waits for it."""
        self.files.drop(self.store.jobs.unneeded_models(job))
        self.bells.ring(ending(job))

    def heard_of(self, device: str, facts: Mapping[str, JSON] | None = None) -> None:
        """Note that a device lives."""
        self.store.touch_device(device, facts, SEEN_PAUSE_S)


def ending(job: str) -> Line:
    """The bell that rings when something ends in a job; no device has an empty name."""
    return "", job


def is_online(device: Device, silent_s: float | None = None) -> bool:
    """Whether a device was heard of lately (default: within ``SEEN_S``), and may come in."""
    silent_s = SEEN_S if silent_s is None else silent_s
    return not device.revoked_at and device.seen_at is not None and _age_s(device.seen_at) < silent_s


def unavailable(name: str, device: Device | None, silent_s: float | None = None) -> str | None:
    """Why a device cannot be given work: who, since when, and what brings it back; None where it is there."""
    again = f"ofa-deploy device register {name} --profile PROFILE"
    if device is None:
        return f"device {name!r} is not registered; let it in with: {again}"
    if device.revoked_at:
        return f"device {name!r} was revoked at {device.revoked_at}; let it in again with: {again}"
    if not device.seen_at:
        return (
            f"device {name!r} was registered at {device.created_at}, but no agent ever reported for it; start the "
            f"agent there, a new code for it comes from: {again}"
        )
    if not is_online(device, silent_s):
        age, runtime = _age_s(device.seen_at), str((device.profile or {}).get("runtime", ""))
        page, agent = (
            "open this server's page /agent there again",
            "start its agent there again with: python3 ofa-agent.pyz",
        )
        return (
            f"device {name!r} is not there: last heard of at {device.seen_at}, {age:.0f} s ago; "
            f"{page if runtime.startswith(BROWSER) else agent}"
        )
    return None


def _age_s(moment: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
