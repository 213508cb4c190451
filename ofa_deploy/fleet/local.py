"""Measuring from a command: one code path, whether the server is inside this process or elsewhere."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import DeviceUnavailable, OfaDeployError, UsageError
from ofa_deploy.fleet.agents import AgentProcess, LocalServer
from ofa_deploy.fleet.client import Client
from ofa_deploy.fleet.items import MeasureItem, choose_sentinels
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.fleet.queues import Queue, end_abandoned
from ofa_deploy.fleet.server import create_app
from ofa_deploy.store import Workspace

LOCAL = "local"  # the target that is this machine, and needs no registration
CONDITION = {"runtime", "provider", "precision", "batch", "threads"}  # what a target asks of an agent
POLL_S = 0.5
Progress = Callable[[dict[str, Any]], None]


class Fleet:
    """Devices to measure on. A context manager; closing it ends the local agent and the server inside."""

    def __init__(self, workspace: Workspace, client: Client, token: str, inside: LocalServer | None) -> None:
        self._workspace, self._client, self._token, self._inside = workspace, client, token, inside
        self._agent: AgentProcess | None = None
        self._cleanup = contextlib.ExitStack()

    @classmethod
    def open(cls, workspace: Workspace, server: str | None = None) -> Fleet:
        """Talk to a server: ``server`` or ``OFA_SERVER`` with the token ``OFA_TOKEN``, else one inside this process.

        Raises:
            UsageError: a server without a token, or not a URL.
        """
        url = server or os.environ.get("OFA_SERVER")
        if url:
            token = os.environ.get("OFA_TOKEN")
            if not token:
                raise UsageError(f"the server {url} needs a token; put it in OFA_TOKEN")
            return cls(workspace, Client(url, token), token, None)
        end_abandoned(workspace)
        token, queue = secrets.token_urlsafe(32), Queue(workspace)
        inside = LocalServer(create_app(workspace.store, token, queue.folder, queue.name))
        fleet = cls(workspace, Client(inside.url, token), token, inside)
        fleet._cleanup.callback(queue.close)
        return fleet

    def measure(
        self,
        target: TargetProfile,
        items: Sequence[MeasureItem],
        protocol: Protocol | None = None,
        progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """Measure items on a device, together, in rounds. Returns their records in the items' order; all are stored.

        Args:
            progress: called with ``done``, ``total``, ``phase`` and, in the rounds, ``round`` and ``settled``.

        Raises:
            DeviceUnavailable: the device is not there, or its agent died.
            OfaDeployError: items could not be measured; names the first, and why. The others are stored.
        """
        if not items:
            return []
        self._require(target)
        job = {
            "id": uuid4().hex,
            "device": target.name,
            "runtime": target.model_dump(include={*CONDITION, "simulation"} if target.simulated else CONDITION),
            "settings": (protocol or Protocol()).model_dump(),
            "sentinels": [item.sha256 for item in choose_sentinels(items)],
            "items": [item.to_json() for item in items],
        }
        try:
            self._client.submit(job, {item.sha256: item.model for item in items})
            status = self._wait(str(job["id"]), target.name, progress or (lambda _: None))
        except BaseException:
            self._abandon(str(job["id"]))
            raise
        return self._collect(status)

    def _require(self, target: TargetProfile) -> None:
        """Make sure that the device has an agent; this machine and a simulated device get one."""
        device = target.name
        if device == LOCAL or target.simulated:
            if self._agent is not None and self._agent.device != device:
                self._stop_agent()
            if self._agent is None or not self._agent.alive:
                log = self._workspace.root / "agent.log"
                self._agent = AgentProcess(self._client.url, self._token, device, self._workspace.lock_file, log)
            while device not in self._known():  # until it has told how much memory there is, on its first start
                self._agent.check()
                time.sleep(POLL_S / 5)
        elif device not in self._known():
            raise DeviceUnavailable(
                f"no agent ever reported for device {device!r}; register one with: ofa-deploy device register NAME "
                f"--profile {device}, or use: --target local"
            )

    def _known(self) -> set[str]:
        return {device["name"] for device in self._client.devices()}

    def _wait(self, job: str, device: str, progress: Progress) -> dict[str, Any]:
        while True:
            status = self._client.status(job)
            progress(_progress(status))
            if status["state"] == "done":
                return status
            if status["state"] == "cancelled":
                raise OfaDeployError(f"the measurement on {device} was cancelled on the server")
            if self._agent is not None:
                self._agent.check()
            time.sleep(POLL_S)

    def _collect(self, status: dict[str, Any]) -> list[dict[str, Any]]:
        records = [
            {key: value for key, value in record.items() if key != "position"}
            for record in self._client.records(status["id"])
        ]
        if self._inside is None:
            self._workspace.store.add_measurements(records)
        if status["failed"]:
            first = status["errors"][0]
            raise OfaDeployError(
                f"{status['failed']} of {status['total']} items could not be measured on {status['device']}, first "
                f"{first['key']}: {first.get('reason')}: {first.get('message')}"
            )
        return records

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
        """End the local agent, and the server inside."""
        self._stop_agent()
        self._client.close()
        if self._inside is not None:
            self._inside.close()
        self._cleanup.close()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _progress(status: dict[str, Any]) -> dict[str, Any]:
    """A job's status for people: ``done`` grows within a chunk too."""
    now = status["progress"] or {"phase": "starting"}
    rounds = now.get("round", 0) / max(now.get("rounds_min", 1), 1)
    running = int(status["running"] * min(rounds, 0.99))
    shown = {key: now[key] for key in ("phase", "round", "settled") if key in now}
    return {"done": status["done"] + status["failed"] + running, "total": status["total"], **shown}
