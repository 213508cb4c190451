"""How a device is doing, from what the database says of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeGuard

from ofa_deploy.fleet.device_facts import DeviceFacts, is_number
from ofa_deploy.fleet.service import SEEN_S
from ofa_deploy.json_types import JSON
from ofa_deploy.store import MeasuredDevice

log = logging.getLogger(__name__)
SHOWN_FACTS = 60
SHOWN_CHARACTERS = 200
HOTTEST_C = 10_000  # what is beyond is no temperature


@dataclass(frozen=True)
class DeviceStatus:
    """What is shown of a device.

    Attributes:
        measured: how many records it has.
        profile: the name of what it was registered as.
        seen_s: seconds since it was heard of, None for never.
        simulated: None where nothing says.
        facts: what it said last, cut to a size that a page can show.
        temperatures: by sensor, in degrees Celsius: what it told last, or those at its last measurement's start and
            end.
    """

    name: str
    created_at: str
    seen_at: str | None
    measured: int
    profile: JSON
    revoked_at: str | None
    seen_s: float | None
    online: bool
    simulated: bool | None
    facts: dict[str, str]
    temperatures: dict[str, list[float]]


def device_statuses(devices: Iterable[MeasuredDevice], now: datetime | None = None) -> list[DeviceStatus]:
    """What is shown of devices. One that cannot be shown is left out: what it said must not hide all others."""
    shown = []
    for device in devices:
        try:
            status = device_status(device, now)
            json.dumps(vars(status), allow_nan=False, ensure_ascii=False).encode()
        except Exception:
            log.exception("cannot show a device", extra={"device": device.name})
        else:
            shown.append(status)
    return shown


def device_status(device: MeasuredDevice, now: datetime | None = None) -> DeviceStatus:
    """What is shown of a device, at a moment."""
    seen_s = _seconds_since(device.seen_at, now or datetime.now(UTC))
    return DeviceStatus(
        name=device.name,
        created_at=device.created_at,
        seen_at=device.seen_at,
        measured=device.measured,
        profile=(device.profile or {}).get("name"),
        revoked_at=device.revoked_at,
        seen_s=seen_s,
        online=seen_s is not None and seen_s <= SEEN_S and not device.revoked_at,
        simulated=_simulated(device),
        facts=_shortened(device.facts),
        temperatures=_temperatures({**device.measured_facts, **device.facts}),
    )


def _seconds_since(moment: str | None, now: datetime) -> float | None:
    return None if moment is None else round(max((now - datetime.fromisoformat(moment)).total_seconds(), 0.0), 1)


def _simulated(device: MeasuredDevice) -> bool | None:
    told = DeviceFacts.read(device.facts).simulated
    return device.simulated if told is None else told


def _shortened(facts: Mapping[str, JSON]) -> dict[str, str]:
    shown = list(facts.items())[:SHOWN_FACTS]
    return {name[:SHOWN_CHARACTERS]: _text(value)[:SHOWN_CHARACTERS] for name, value in shown}


def _text(value: JSON) -> str:
    return ", ".join(map(str, value[:SHOWN_FACTS])) if isinstance(value, list) else str(value)


def _temperatures(facts: Mapping[str, JSON]) -> dict[str, list[float]]:
    """Facts whose name begins with ``temperature``: a number, or those at a measurement's start and end."""
    found = {}
    for name, value in list(facts.items())[:SHOWN_FACTS]:
        readings = value if isinstance(value, list) else [value]
        degrees = [float(each) for each in readings if _is_temperature(each)]
        if name.startswith("temperature") and degrees:
            sensor = name.removeprefix("temperature").removesuffix("_c").strip("_")
            found[sensor[:SHOWN_CHARACTERS]] = degrees[:2]
    return found


def _is_temperature(reading: JSON) -> TypeGuard[float]:
    return is_number(reading) and abs(reading) < HOTTEST_C
