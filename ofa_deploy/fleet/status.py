"""How a device is doing, from what the database says of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ofa_deploy.fleet.service import SEEN_S

log = logging.getLogger(__name__)
SHOWN_FACTS = 60
SHOWN_CHARACTERS = 200
HOTTEST_C = 10_000  # what is beyond is no temperature


def device_statuses(devices: Iterable[Mapping[str, Any]], now: datetime | None = None) -> list[dict[str, Any]]:
    """What is shown of devices. One that cannot be shown is left out: what it said must not hide all others."""
    shown = []
    for device in devices:
        try:
            status = device_status(device, now)
            json.dumps(status, allow_nan=False, ensure_ascii=False).encode()
        except Exception:
            log.exception("cannot show a device", extra={"device": device.get("name")})
        else:
            shown.append(status)
    return shown


def device_status(device: Mapping[str, Any], now: datetime | None = None) -> dict[str, Any]:
    """What is shown of a device.

    Args:
        device: one of ``Overview.devices``.

    Returns:
        Its name, profile and times; ``seen_s``: seconds since it was heard of, None for never; ``online``;
        ``simulated``: None where nothing says; its ``facts``, cut to a size that a page can show; ``temperatures`` by
        sensor, in degrees Celsius: what it told last, or those at its last measurement's start and end.
    """
    seen_s = _seconds_since(device["seen_at"], now or datetime.now(UTC))
    revoked = device.get("revoked_at")
    return {
        **{name: device[name] for name in ("name", "created_at", "seen_at", "measured")},
        "profile": (device.get("profile") or {}).get("name"),
        "revoked_at": revoked,
        "seen_s": seen_s,
        "online": seen_s is not None and seen_s <= SEEN_S and not revoked,
        "simulated": _simulated(device),
        "facts": _shortened(device["facts"]),
        "temperatures": _temperatures({**device["measured_facts"], **device["facts"]}),
    }


def _seconds_since(moment: str | None, now: datetime) -> float | None:
    return None if moment is None else round(max((now - datetime.fromisoformat(moment)).total_seconds(), 0.0), 1)


def _simulated(device: Mapping[str, Any]) -> bool | None:
    told = device["facts"].get("simulated")
    return told if isinstance(told, bool) else device["simulated"]


def _shortened(facts: Mapping[str, Any]) -> dict[str, str]:
    shown = list(facts.items())[:SHOWN_FACTS]
    return {name[:SHOWN_CHARACTERS]: _text(value)[:SHOWN_CHARACTERS] for name, value in shown}


def _text(value: Any) -> str:
    return ", ".join(map(str, value[:SHOWN_FACTS])) if isinstance(value, list) else str(value)


def _temperatures(facts: Mapping[str, Any]) -> dict[str, list[float]]:
    """Facts whose name begins with ``temperature``: a number, or those at a measurement's start and end."""
    found = {}
    for name, value in list(facts.items())[:SHOWN_FACTS]:
        readings = value if isinstance(value, list) else [value]
        degrees = [float(each) for each in readings if _is_temperature(each)]
        if name.startswith("temperature") and degrees:
            sensor = name.removeprefix("temperature").removesuffix("_c").strip("_")
            found[sensor[:SHOWN_CHARACTERS]] = degrees[:2]
    return found


def _is_temperature(reading: Any) -> bool:
    return isinstance(reading, (int, float)) and not isinstance(reading, bool) and abs(reading) < HOTTEST_C
