"""Measuring from a command: one code path, whether the server is inside this process or elsewhere."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import DeviceUnavailable, OfaDeployError, UsageError
from ofa_deploy.fleet.agents import AgentProcess
from ofa_deploy.fleet.blobs import Blobs
from ofa_deploy.fleet.client import LOOPBACK, Client
from ofa_deploy.fleet.items import MeasureItem, choose_sentinels
from ofa_deploy.fleet.kept import KeptJobs, records_of
from ofa_deploy.fleet.presence import running
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.fleet.queues import Queue, end_abandoned
from ofa_deploy.fleet.schemas import JobRequest, JobStatus, Runtime
from ofa_deploy.fleet.tokens import FILE as TOKEN_FILE
from ofa_deploy.fleet.tokens import admin_token
from ofa_deploy.latency import Measurement
from ofa_deploy.notices import Numbers, Progress
from ofa_deploy.space import arch_facts
from ofa_deploy.store import Workspace

if TYPE_CHECKING:
    from ofa_deploy.fleet.serving import LocalServer

CONDITION = {"runtime", "provider", "precision", "batch", "threads"}  # what a target asks of an agent
POLL_S = 1.0  # how often a command hears how far its job is
PHASES = {  # what an agent says that it is at, for people
    "starting": "waiting for the device",
    "waiting": "waiting for other measurements here",
    "loading": "loading models",
    "warm-up": "warming up",
    "rounds": "measuring",
}
ENROL_POLL_S = 0.1
ENROL_S = 120.0  # in which the agent that a command starts tells of itself
OVERLAP = 100  # measurements asked for again: several servers over one database may finish them out of order


class _Lost(DeviceUnavailable):
    """A device went away while a command waited for it; the server keeps the job for when it is back."""


class Fleet:
    """Devices to measure on. A context manager; closing it ends the local agent and the server inside."""

    def __init__(self, workspace: Workspace, client: Client, queue: str, inside: LocalServer | None) -> None:
        self._workspace, self._client, self._queue, self._inside = workspace, client, queue, inside
        self._agent: AgentProcess | None = None
        self._alone: Fleet | None = None
        self._models: Blobs | None = None  # of the server inside
        self._replay: dict[str, list[Measurement]] = {}
        self._cleanup = contextlib.ExitStack()

    @classmethod
    def open(cls, workspace: Workspace, server: str | None = None) -> Fleet:
        """Talk to a server: ``server`` or ``OFA_SERVER``; else the one that serves the workspace now; else one inside.

        Raises:
            UsageError: a server without a token, or not a URL.
        """
        if elsewhere := server_elsewhere(workspace, server):
            return cls(workspace, elsewhere, uuid4().hex, None)
        return cls._inside_of(workspace)

    @classmethod
    def _inside_of(cls, workspace: Workspace) -> Fleet:
        from ofa_deploy.fleet.server import create_app  # half a second that commands which measure nothing do not need
        from ofa_deploy.fleet.serving import LocalServer

        end_abandoned(workspace)
        token, queue = secrets.token_urlsafe(32), Queue(workspace)
        inside = LocalServer(create_app(workspace.store, token, queue.folder))
        fleet = cls(workspace, Client(inside.url, token), queue.name, inside)
        fleet._models = Blobs(queue.folder)
        fleet._cleanup.callback(queue.close)
        return fleet

    @property
    def client(self) -> Client:
        """The server."""
        return self._client

    @property
    def lasts(self) -> bool:
        """Whether the server will be there when this process has ended."""
        return self._inside is None

    def fetch(self, target: TargetProfile) -> None:
        """Copy what the server knows of a device to the workspace, so that what others measured is used here too.

        This machine is another one there, and is left out.
        """
        if self._inside is not None or target.here:
            return
        device, store, url = target.name, self._workspace.store, self._client.url
        known = store.cursor(url, device)
        after = max(0, known - OVERLAP)
        while True:
            page = self._client.measurements(device, after)
            if page.newest < known:  # another database than the last time
                known = after = 0
            elif page.records:
                store.add_measurements(page.records)
                after = page.last
            else:
                break
        store.move_cursor(url, device, after)

    def measure(
        self,
        target: TargetProfile,
        items: Sequence[MeasureItem],
        protocol: Protocol | None = None,
        progress: Progress | None = None,
    ) -> list[Measurement]:
        """Measure items on a device, together, in rounds. Returns them in the items' order; all are stored.

        Args:
            progress: called with ``done``, ``total``, ``phase`` in words and, in the rounds, ``round`` and ``steady``:
                how many items are measured well enough.

        Raises:
            DeviceUnavailable: the device is not there, or goes away: says who, since when, and the remedy.
            OfaDeployError: items could not be measured; names the first, and why. The others are stored.
        """
        if not items:
            return []
        known = [arch_facts(item.arch, item.network) for item in items if item.arch]
        self._workspace.store.architectures.add(known)
        if (measured := self._replayed(target, items)) is not None:
            return measured
        if target.here and self._is_shared():
            return self._for_local().measure(target, items, protocol, progress)
        own = self._is_own(target)
        if own:
            self._start_agent(target)
        runtime = target.model_dump(mode="json", include={*CONDITION, "simulation"} if target.simulated else CONDITION)
        job = JobRequest(
            id=uuid4().hex,
            device=target.name,
            queue=self._queue if own else "",
            runtime=Runtime(**runtime),
            settings=Protocol(
                **(protocol or Protocol()).model_dump()
            ),  # all of them: a server's defaults may be others
            sentinels=[item.sha256 for item in choose_sentinels(items)],
            items=[item.asked for item in items],
        )
        models = {item.sha256: item.model for item in items}
        kept = KeptJobs(self._workspace, self._client) if self.lasts and not own else None
        waiting = kept.instead_of(job) if kept else None
        job_id = waiting or job.id
        try:
            if self._models is not None:
                self._models.keep(models)
            if waiting is None:
                self._client.submit(job, models)
            status = self._wait(job_id, target.name, progress or (lambda _: None))
        except _Lost:
            if kept is None:
                self._abandon(job_id)
            elif waiting is None:
                kept.keep(job)
            raise
        except BaseException:
            self._abandon(job_id)
            raise
        records = self._collect(status)
        return records_of(job, records) if waiting else records

    @contextlib.contextmanager
    def replaying(self, device: str, after: int) -> Iterator[None]:
        """Within it, what was measured on a device after the record of that ``id`` answers for equal items, once.

        An attempt that was killed is so repeated as it was, down to its timings, and goes on where it ended.
        """
        stored = self._workspace.store.measurements_after(device, after)
        self._replay = {device: [Measurement.from_json(record) for record in stored]}
        try:
            yield
        finally:
            self._replay = {}

    def _replayed(self, target: TargetProfile, items: Sequence[MeasureItem]) -> list[Measurement] | None:
        """The first record of every item that has not been given yet; None where an item has none left."""
        left = list(self._replay.get(target.name, ()))
        found = []
        for item in items:
            record = next((r for r in left if (r.kind, r.key) == (item.kind, item.key)), None)
            if record is None:
                return None
            left.remove(record)
            found.append(record)
        if found:
            self._replay[target.name] = left
        return [record.without("id") for record in found]

    def _is_shared(self) -> bool:
        """Whether others measure at this server, for each of whom ``local`` is another machine."""
        return self._client.url == os.environ.get("OFA_SERVER", "").rstrip("/")

    def _for_local(self) -> Fleet:
        """A fleet of this command's own, which stores nothing of this machine at the shared server."""
        if self._alone is None:
            self._alone = self._inside_of(self._workspace)
            self._cleanup.callback(self._alone.close)
        return self._alone

    def _is_own(self, target: TargetProfile) -> bool:
        """Whether this command has to start the agent: for this machine, and for simulations that nobody registered.

        Whether another device has one, the server says when it gets the job.
        """
        if target.simulated:
            return not any(device.name == target.name and device.profile for device in self._client.devices())
        return target.here

    def _start_agent(self, target: TargetProfile) -> None:
        if self._agent is not None and not (self._agent.alive and self._agent.device == target.name):
            self._stop_agent()
        if self._agent is None:
            code = self._client.register(target.name, target.model_dump(mode="json"), self._queue).code
            self._agent = AgentProcess(self._client.url, code, target.name, self._queue, self._workspace)
        end = time.monotonic() + ENROL_S
        while not self._told(target.name):  # how much memory there is, on its first start
            self._agent.check()
            if time.monotonic() > end:
                raise DeviceUnavailable(
                    f"the agent of {target.name!r} was started {ENROL_S:.0f} s ago and has not reported; its log is "
                    f"{self._agent.log}"
                )
            time.sleep(ENROL_POLL_S)

    def _told(self, name: str) -> bool:
        return any(device.name == name and device.facts for device in self._client.devices())

    def _wait(self, job: str, device: str, progress: Progress) -> JobStatus:
        wait_s = 0.0
        while True:
            asked = time.monotonic()
            status = self._client.status(job, wait_s)
            progress(_progress(status))
            if status.state == "done":
                return status
            if status.state == "cancelled":
                raise OfaDeployError(f"the measurement on {device} was cancelled on the server")
            if self._agent is not None:
                self._agent.check()
            if status.lost:
                raise _Lost(self._what_is_lost(status))
            time.sleep(max(0.0, wait_s - (time.monotonic() - asked)))
            wait_s = POLL_S

    def _what_is_lost(self, status: JobStatus) -> str:
        """Why a command stops waiting, and what becomes of its job."""
        measured = f"{status.done} of {status.total} items are measured"
        if self._agent is not None:
            return f"{status.lost}; {measured}; its log is {self._agent.log}"
        if self._inside is not None:
            return f"{status.lost}; {measured}, and the job is cancelled: no server runs to which it could come back"
        return f"{status.lost}; {measured}, and the job goes on when it is back"

    def _collect(self, status: JobStatus) -> list[Measurement]:
        records = list(self._client.records(status.id).values())
        if self._inside is None:
            self._workspace.store.add_measurements(records)
        if status.failed:
            first = status.errors[0]
            raise OfaDeployError(
                f"{status.failed} of {status.total} items could not be measured on {status.device}, first "
                f"{first.key}: {first.reason}: {first.message}"
            )
        return [Measurement.from_json(record) for record in records]

    def _abandon(self, job: str) -> None:
        """After an error or Ctrl-C: nobody waits for this job, so nobody should measure it."""
        self._stop_agent()
        with contextlib.suppress(OfaDeployError):
            self._client.cancel(job)

    def _stop_agent(self) -> None:
        if self._agent is not None:
            self._agent.stop()
            self._agent = None

    def close(self) -> None:
        """End the local agent and its queue, and the server inside."""
        if self._agent is not None:
            self._stop_agent()
            with contextlib.suppress(OfaDeployError):
                self._client.end_queue(self._queue)
        self._client.close()
        if self._inside is not None:
            self._inside.close()
        self._cleanup.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def server_elsewhere(workspace: Workspace, server: str | None = None) -> Client | None:
    """The server that a command should use: ``server`` or ``OFA_SERVER``, else the one that serves the workspace now.

    Raises:
        UsageError: it needs a token, or is not a URL.
    """
    serves = running(workspace.root)
    url = server or os.environ.get("OFA_SERVER") or serves
    return Client(url, _token_for(url, serves, workspace)) if url else None


def _token_for(url: str, serves: str | None, workspace: Workspace) -> str:
    """The workspace's token goes to the server that serves the workspace, and issued it; never to another address."""
    if serves and _address(url) == _address(serves):
        return admin_token(workspace.root)
    if token := os.environ.get("OFA_TOKEN"):
        return token
    raise UsageError(
        f"the server {url} needs a token: put it in OFA_TOKEN; it is in the file {TOKEN_FILE} of the server's workspace"
    )


def _address(url: str) -> tuple[str, str | None, int | None]:
    """What tells servers apart; every name of this machine's loopback is the same."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    return parts.scheme, "localhost" if parts.hostname in LOOPBACK else parts.hostname, port


def _progress(status: JobStatus) -> Numbers:
    """A job's status for people: ``done`` grows within a chunk too."""
    now = status.running_chunk
    rounds = (now.round or 0) / max(now.rounds_min or 1, 1)
    running = int(status.running * min(rounds, 0.99))
    shown: Numbers = {"done": status.done + status.failed + running, "total": status.total}
    shown["phase"] = PHASES.get(now.phase, now.phase)
    if now.round is not None:
        shown["round"] = now.round
    if now.settled is not None:
        shown["steady"] = now.settled
    return shown
