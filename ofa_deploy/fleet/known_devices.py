"""Devices as the server describes them: the answer of ``/api/devices`` is written and read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ofa_deploy.fleet.service import is_online
from ofa_deploy.json_types import JSON, objects, read_record
from ofa_deploy.store import Device, JobTimes, Token


@dataclass(frozen=True)
class KnownDevice(Device):
    """A device of a server, and whether its agent was heard of lately."""

    online: bool

    @classmethod
    def of(cls, device: Device) -> Self:
        """A device as it is now."""
        return cls(**vars(device), online=is_online(device))

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> Self:
        """Read what ``to_json`` wrote, on a server of this or another version."""
        return read_record(cls, data)

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {**vars(self)}


@dataclass(frozen=True)
class DeviceDetails:
    """A device with its tokens, and its newest jobs; newest first."""

    device: KnownDevice
    tokens: tuple[Token, ...]
    jobs: tuple[JobTimes, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> Self:
        """Read what ``to_json`` wrote, on a server of this or another version."""
        tokens = tuple(read_record(Token, one) for one in objects(data["tokens"]))
        jobs = tuple(read_record(JobTimes, one) for one in objects(data["jobs"]))
        return cls(KnownDevice.from_json(data), tokens, jobs)

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        tokens, jobs = [vars(one) for one in self.tokens], [vars(one) for one in self.jobs]
        return {**self.device.to_json(), "tokens": tokens, "jobs": jobs}
