"""From what an agent measured to the records that are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from device_agents.summary import median, relative_error, sentinel_levels, summarise, undisturbed, used_rounds
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.schemas import ItemResult, RunResult

DIGITS = 7  # of a stored latency: finer than any timer, and half the bytes
CLOCK_SLACK_S = 5.0  # that the server's clock may be set back while a device measures
NO_TIME = "1970-01-01T00:00:00Z"  # when simulated devices measure: what they say holds at every time
SCALE_SIGMAS = 2.0  # chunks are put on one level where their sentinels differ by more than this


def check_result(run: Mapping[str, Any], result: RunResult) -> None:
    """Whether a result answers exactly what the run was asked.

    Raises:
        UsageError: items that were not asked, missing or double; another condition, protocol or sentinel than asked.
    """
    asked, got = [item["item"] for item in run["items"]], [item.item for item in result.items]
    if sorted(asked) != sorted(got):
        odd = sorted(set(got) ^ set(asked)) or sorted(got)
        raise UsageError(
            f"the result does not answer what run {run['run']} was asked: {odd[0]} ({len(odd)} such items)"
        )
    condition = result.condition.model_dump()
    for key, value in run["request"]["runtime"].items():
        if key in condition and condition[key] != value:
            raise UsageError(f"measured under another condition than asked: {key} is {condition[key]!r}, not {value!r}")
    if result.settings.model_dump() != run["request"]["settings"]:
        raise UsageError("measured with other protocol settings than asked")
    if result.sentinel.blob not in {sentinel["blob"] for sentinel in run["request"]["sentinels"]}:
        raise UsageError("measured with another sentinel than asked")
    if not result.condition.simulated:
        _check_time_spent(run, result)


def _check_time_spent(run: Mapping[str, Any], result: RunResult) -> None:
    """No device can have timed for longer than it had the run: such timings are in another unit than milliseconds."""
    spent = {item.item: _seconds(item.burst or 0, item.timings or []) for item in result.items}
    spent["the sentinel"] = sum(_seconds(result.sentinel.burst, visits) for visits in result.sentinel.visits)
    total, had = sum(spent.values()), (datetime.now(UTC) - datetime.fromisoformat(run["claimed_at"])).total_seconds()
    if total > had + CLOCK_SLACK_S:
        most = max(spent, key=lambda item: spent[item])
        raise UsageError(
            f"the timings add up to {total:.4g} s, but run {run['run']} began only {had:.4g} s ago: they are not in "
            f"milliseconds; {most} alone claims {spent[most]:.4g} s"
        )


def _seconds(calls: int, timings: list[list[float]]) -> float:
    return calls * sum(map(sum, timings)) / 1000


def make_records(
    run: Mapping[str, Any], result: RunResult
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], dict[str, Any]]:
    """Records by item id, errors by item id, and the sentinel's level that later chunks of the job are compared with.

    The sentinel decides which rounds count for all items of the chunk. A later chunk whose sentinel ran at another
    level than the first one's, by more than noise, has its latencies scaled to the first level: ``scale`` says by how
    much, and ``best_scale`` for the undisturbed ones. These are two levels: a neighbour that slows the device down for
    the whole of one chunk and now and then in another moves the second further than the first.
    """
    settings = result.settings
    levels = sentinel_levels(result.sentinel.visits)
    used, throttled = used_rounds(levels, settings.drift, max(3, settings.rounds_min // 2))
    counted = [levels[i] for i in used]
    best, best_error = undisturbed([visit for i in used for visit in result.sentinel.visits[i]])
    reference = {"blob": result.sentinel.blob, "sentinel_ms": median(counted), "se": relative_error(counted)}
    reference |= {"best_ms": best, "best_se": best_error}
    scales = tuple(
        _scale(run.get("reference"), reference, *of) for of in (("sentinel_ms", "se"), ("best_ms", "best_se"))
    )
    flags = ["throttled"] * throttled + ["short"] * (len(used) < settings.rounds_min)
    shared = {
        "device": run["device"],
        "run": run["run"],
        "condition": result.condition.model_dump(),
        "facts": result.facts,
        "settings": settings.model_dump(),
        "stopped": result.stopped,
        "sentinel_ms": _round(reference["sentinel_ms"]),
        "scale": scales[0],
        "best_scale": scales[1],
        "started_at": NO_TIME if result.condition.simulated else result.started_at,
        "measured_at": NO_TIME if result.condition.simulated else result.finished_at,
    }
    asked = {item["item"]: item["payload"] for item in run["items"]}
    records, errors = {}, {}
    for item in result.items:
        if item.error is not None:
            errors[item.item] = item.error.model_dump()
        else:
            records[item.item] = {**shared, **asked[item.item], **_statistics(item, used, scales, flags, settings.se)}
    return records, errors, reference


def _scale(first: Mapping[str, Any] | None, this: Mapping[str, Any], level: str, error: str) -> float:
    if not first or first["blob"] != this["blob"]:
        return 1.0
    ratio = first[level] / this[level]
    noise = math.hypot(first[error], this[error])
    return ratio if abs(ratio - 1) > SCALE_SIGMAS * noise else 1.0


def _statistics(
    item: ItemResult, used: list[int], scales: tuple[float, ...], flags: list[str], bound: float
) -> dict[str, Any]:
    timings = [[value * scales[0] for value in bursts] for bursts in item.timings or []]
    found = summarise(timings, used)
    found["best"] *= scales[1] / scales[0]
    numbers = {key: _round(value) for key, value in found.items()}
    noisy = ["noisy"] if numbers["se"] >= bound else []
    kept = set(used)
    return {
        **numbers,
        "item": item.item,
        "burst": item.burst,
        "timings": _round([timings[i] for i in used]),
        "excluded": _round([timings[i] for i in range(len(timings)) if i not in kept]),
        "flags": flags + noisy,
        **({"details": item.details} if item.details else {}),
    }


def _round(value: Any) -> Any:
    if isinstance(value, list):
        return [_round(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
