"""From what an agent timed to the measurements that are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self, TypeVar

from device_agents.summary import (
    median,
    relative_error,
    sentinel_levels,
    summarise,
    switch_costs,
    undisturbed,
    used_rounds,
)
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.schemas import ItemResult, RunFailure, RunResult
from ofa_deploy.fleet.work import Asked
from ofa_deploy.json_types import read_record
from ofa_deploy.latency import Measurement
from ofa_deploy.store import Run

DIGITS = 7  # of a stored latency: finer than any timer, and half the bytes
CLOCK_SLACK_S = 5.0  # by which the clocks of server and device may differ, and the server's be set meanwhile
ROUNDS_AT_LEAST = 3
NO_TIME = "1970-01-01T00:00:00Z"  # when simulated devices measure: what they say holds at every time
SCALE_SIGMAS = 2.0  # chunks are put on one level where their sentinels differ by more than this
RoundT = TypeVar("RoundT")


@dataclass(frozen=True)
class SentinelLevel:
    """How fast a chunk's sentinel ran: milliseconds, and while nothing disturbs the device, with relative errors."""

    blob: str
    sentinel_ms: float
    se: float
    best_ms: float
    best_se: float

    @classmethod
    def of_run(cls, run: Run) -> Self | None:
        """The level of the first chunk of a run's job; None in that chunk itself."""
        return read_record(cls, run.reference) if run.reference else None


def check_result(run: Run, result: RunResult) -> None:
    """Whether a result answers exactly what the run was asked, as the protocol says.

    Raises:
        UsageError: items that were not asked, missing or double; another condition, protocol or sentinel than asked;
            simulated where the job asked for a measurement; rounds, bursts or times that the protocol cannot lead to.
    """
    wanted, got = [item.item for item in run.items], [item.item for item in result.items]
    if sorted(wanted) != sorted(got):
        odd = sorted(set(got) ^ set(wanted)) or sorted(got)
        raise UsageError(f"the result does not answer what run {run.run} was asked: {odd[0]} ({len(odd)} such items)")
    condition, asked = result.condition.model_dump(), Asked.of_run(run)
    for key, value in asked.runtime.model_dump().items():
        if key in condition and condition[key] != value:
            raise UsageError(f"measured under another condition than asked: {key} is {condition[key]!r}, not {value!r}")
    if result.condition.simulated and not asked.simulated:
        raise UsageError("the latencies are simulated, but the job asked for measured ones")
    if result.settings.model_dump() != asked.settings.model_dump():
        raise UsageError("measured with other protocol settings than asked")
    if result.sentinel.blob not in {sentinel.blob for sentinel in asked.sentinels}:
        raise UsageError("measured with another sentinel than asked")
    _check_series(result)
    had = (datetime.now(UTC) - datetime.fromisoformat(run.claimed_at)).total_seconds()
    _check_rounds(result, math.inf if asked.simulated else had)
    if not asked.simulated:
        _check_time_spent(run, result, had)


def _check_series(result: RunResult) -> None:
    """A series has equally many bursts in every round, and no more than the settings allow."""
    series = {item.item: item.timings for item in result.items if item.timings is not None}
    series["the sentinel"] = [bursts for visits in result.sentinel.visits for bursts in visits]
    for name, rounds in series.items():
        sizes = sorted({len(bursts) for bursts in rounds})
        if len(sizes) > 1:
            raise UsageError(f"{name} has {sizes[0]} bursts in one round and {sizes[-1]} in another")
        if sizes[0] > result.settings.timings:
            raise UsageError(f"{name} has {sizes[0]} bursts in a round; the settings allow {result.settings.timings}")


def _check_rounds(result: RunResult, had_s: float) -> None:
    """Whether there are as many rounds as the reason for their end says, and as much time where time was the reason."""
    settings, rounds = result.settings, len(result.sentinel.visits)
    least = {"settled": settings.rounds_min, "rounds": settings.rounds_max, "cap": ROUNDS_AT_LEAST}[result.stopped]
    if rounds < least:
        raise UsageError(f"it ended after {rounds} rounds as {result.stopped!r}; that takes {least} at least")
    needed = settings.cap_s * rounds / (rounds + 1)  # the next round would have gone beyond the cap
    if result.stopped == "cap" and needed > had_s + CLOCK_SLACK_S:
        raise UsageError(f"it ended as 'cap' after {had_s:.4g} s; that takes {needed:.4g} s at least")


def _check_time_spent(run: Run, result: RunResult, had: float) -> None:
    """No device can have timed for longer than it had the run: such timings are in another unit than milliseconds."""
    spent = {item.item: _seconds(item.burst or 0, item.timings or []) for item in result.items}
    spent["the sentinel"] = sum(_seconds(result.sentinel.burst, visits) for visits in result.sentinel.visits)
    total = sum(spent.values())
    if total > had + CLOCK_SLACK_S:
        most = max(spent, key=lambda item: spent[item])
        raise UsageError(
            f"the timings add up to {total:.4g} s, but run {run.run} began only {had:.4g} s ago: they are not in "
            f"milliseconds; {most} alone claims {spent[most]:.4g} s"
        )


def _seconds(calls: int, timings: list[list[float]]) -> float:
    return calls * sum(map(sum, timings)) / 1000


def _times(run: Run, result: RunResult) -> tuple[str, str]:
    """When a run began and ended: as the device says where that lies between the claim and now.

    Many devices have no clock that outlives a reboot. What they say then is replaced by the server's own time of the
    claim, and what the run took.
    """
    began, ended = map(datetime.fromisoformat, (result.started_at, result.finished_at))
    claimed, now = datetime.fromisoformat(run.claimed_at), datetime.now(UTC)
    slack = timedelta(seconds=CLOCK_SLACK_S)
    if claimed - slack <= began <= ended <= now + slack:
        return result.started_at, result.finished_at
    took, had = ended - began, now - claimed
    end = claimed + (took if timedelta(0) <= took <= had else had)
    return _second(claimed), _second(end)


def _second(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def make_records(run: Run, result: RunResult) -> tuple[dict[str, Measurement], dict[str, RunFailure], SentinelLevel]:
    """Measurements and errors by item id, and the sentinel's level that later chunks of the job are compared with.

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
    level = SentinelLevel(result.sentinel.blob, median(counted), relative_error(counted), best, best_error)
    scales = _scales(SentinelLevel.of_run(run), level)
    flags = ["throttled"] * throttled + ["short"] * (len(used) < settings.rounds_min)
    simulated = Asked.of_run(run).simulated
    started_at, finished_at = (NO_TIME, NO_TIME) if simulated else _times(run, result)
    shared = {
        "device": run.device,
        "run": run.run,
        "condition": {**result.condition.model_dump(), "simulated": simulated},
        "facts": result.facts,
        "settings": settings.model_dump(),
        "stopped": result.stopped,
        "sentinel_ms": _round(level.sentinel_ms),
        "scale": scales[0],
        "best_scale": scales[1],
        "started_at": started_at,
        "measured_at": finished_at,
    }
    asked = {item.item: item.payload for item in run.items}
    switch_ms = switch_costs(
        [(item.burst or 1, _at(item.cpu, used), _at(item.switches, used)) for item in result.items]
    )
    records, errors = dict[str, Measurement](), dict[str, RunFailure]()
    for item, cost in zip(result.items, switch_ms, strict=True):
        if item.error is not None:
            errors[item.item] = item.error
        else:
            statistics = _statistics(item, used, scales, flags, settings.se, cost)
            records[item.item] = Measurement.from_json({**shared, **asked[item.item], **statistics})
    return records, errors, level


def _scales(first: SentinelLevel | None, this: SentinelLevel) -> tuple[float, float]:
    if first is None or first.blob != this.blob:
        return 1.0, 1.0
    usual = _scale(first.sentinel_ms / this.sentinel_ms, first.se, this.se)
    return usual, _scale(first.best_ms / this.best_ms, first.best_se, this.best_se)


def _scale(ratio: float, *errors: float) -> float:
    return ratio if abs(ratio - 1) > SCALE_SIGMAS * math.hypot(*errors) else 1.0


def _statistics(
    item: ItemResult, used: list[int], scales: tuple[float, ...], flags: list[str], bound: float, switch_ms: float
) -> dict[str, object]:
    timings = [[value * scales[0] for value in bursts] for bursts in item.timings or []]
    cpu = [[value * scales[0] for value in bursts] for bursts in item.cpu or []]
    switches = item.switches or []
    found = summarise(timings, used, cpu, switches, scales[0] * switch_ms / (item.burst or 1))
    found["best"] *= scales[1] / scales[0]
    numbers = {key: _round(value) for key, value in found.items()}
    noisy = ["noisy"] if found["se"] >= bound else []
    kept = set(used)
    spent = {"cpu": _round([cpu[i] for i in used]), "switches": [switches[i] for i in used]} if cpu else {}
    return {
        **numbers,
        "item": item.item,
        "burst": item.burst,
        "timings": _round([timings[i] for i in used]),
        **spent,
        "excluded": _round([timings[i] for i in range(len(timings)) if i not in kept]),
        "flags": flags + noisy,
        **({"details": item.details} if item.details else {}),
    }


def _at(rounds: list[RoundT] | None, used: list[int]) -> list[RoundT]:
    return [rounds[i] for i in used] if rounds else []


def _round(value: object) -> object:
    if isinstance(value, list):
        return [_round(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
