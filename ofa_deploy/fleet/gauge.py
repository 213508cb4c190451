"""The anchor: a few networks of a target's profile, measured again to know how fast the device is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np

from device_agents.summary import summarise
from ofa_deploy.config import PUBLISHED, TargetProfile
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.device_facts import DeviceFacts
from ofa_deploy.fleet.items import MeasureItem
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.latency import LatencyModel, Measurement, Row, differences
from ofa_deploy.latency.level import Curve, LevelNow, curve_through, without_each
from ofa_deploy.notices import Progress
from ofa_deploy.space import Arch, Family
from ofa_deploy.store import Workspace

ANCHORS = 7  # networks, from the fastest to the slowest that were profiled
SHARED = 12  # where they share the rounds of others
FEWEST = 3  # tell a curve
QUICK = Protocol(rounds_min=3, min_s=1.0, cap_s=2.0, se=0.02, visit_ms=40.0)  # where nothing else is measured with it
USUAL = 40  # networks of the profile that tell its own level
FRESH_S = 20.0  # for so long after a session its level is that of now
FORECAST = 0.02  # by which a level moves at least, from one minute to the next


class Gauge:
    """Tells how fast a target is now, from networks that were measured when it was profiled.

    Attributes:
        rows: the anchor's networks as they were measured then, the fastest first; none of a simulated device, nor of
            one whose networks were not measured. Their undisturbed latencies are on the model's level: it learns from
            several sessions, of which this is one.
    """

    def __init__(
        self,
        workspace: Workspace,
        target: TargetProfile,
        space: Family,
        model: LatencyModel,
        count: int = ANCHORS,
    ) -> None:
        self._workspace, self._target, self._space, self.statistic = workspace, target, space, model.statistic
        self._condition = model.table.condition
        fixed = target.simulated or model.table.simulated or target.runtime == PUBLISHED
        self._profiled, self._archs = list[Row](), dict[str, Arch]()
        for rows in () if fixed else _sessions(model):
            self._archs = self._of_space(rows)
            self._profiled = _levelled(model, [row for row in rows if row.key in self._archs])
            if len(self._profiled) >= FEWEST:
                break
        self.rows = _spread(self._profiled, count)

    def __bool__(self) -> bool:
        return len(self.rows) >= FEWEST

    def _of_space(self, rows: Sequence[Row]) -> dict[str, Arch]:
        """The subnets behind the profile's networks that are of this space, by the networks' keys.

        A table may hold networks of other spaces and resolutions, too.
        """
        if not rows:
            return {}
        stored = self._workspace.store.measurements(self._target.name, keys=[row.key for row in rows])
        found = dict[str, Arch]()
        for record in map(Measurement.from_json, stored):
            if record.kind != "network" or not record.arch or record.key in found:
                continue
            with suppress(UsageError):
                arch = self._space.canonical(record.arch)
                if self._space.network(arch).key == record.key:
                    found[record.key] = arch
        return found

    @cached_property
    def items(self) -> list[MeasureItem]:
        """The anchor, to be measured in the rounds of other items."""
        found = []
        for row in self.rows:
            arch = self._archs[row.key]
            made = network_item(self._space.network(arch), arch, self._target)
            found.append(MeasureItem(made.network, made.model, arch, "anchor"))
        return found

    @cached_property
    def usual(self) -> Curve:
        """The level when the target was profiled."""
        rows = self._profiled
        ratios = [getattr(row, self.statistic) / row.best for row in rows]
        return curve_through([row.best for row in rows], ratios, [row.se for row in rows])

    def measure(self, fleet: Fleet, progress: Progress | None = None) -> LevelNow | None:
        """The level in the next two seconds, as a forecast for the minutes after them; None without an anchor."""
        if not self:
            return None
        return _forecast(self.read(fleet.measure(self._target, self.items, QUICK, progress)))

    def seen_in(self, session: Sequence[Measurement]) -> LevelNow | None:
        """The level that a session shows, as such a forecast; None where the whole anchor was not part of it."""
        networks = {record.key: record for record in session if record.kind != "op"}
        if not self or any(row.key not in networks for row in self.rows):
            return None
        anchored = [networks.pop(row.key) for row in self.rows]
        return _forecast(self.read(anchored, list(networks.values())))

    def read(self, records: Sequence[Measurement], beside: Sequence[Measurement] = ()) -> LevelNow | None:
        """The level of the rounds in which the anchor was measured; None where the device's condition is another one
        than when it was profiled: that is no matter of speed.

        Args:
            records: of ``items``, in their order.
            beside: records of other networks of the same rounds: how much longer they took than undisturbed shows the
                level too, whatever they are.
        """
        if differences(self._condition, records[0].condition):
            return None
        return self._level(records, curve_through(*self._points(records, beside)))

    def read_without_each(self, records: Sequence[Measurement], beside: Sequence[Measurement]) -> list[Curve]:
        """For each of the networks beside the anchor, the level of the rounds as all others show it."""
        return without_each(*self._points(records, beside))[len(records) :]

    def _points(
        self, records: Sequence[Measurement], beside: Sequence[Measurement]
    ) -> tuple[list[float], list[float], list[float]]:
        """Undisturbed latencies when the target was profiled, ratios of the statistic now to them, relative errors."""
        now, others = (list(map(Row.of, part)) for part in (records, beside))
        quiet = [row.best for row in self.rows]
        if others:
            clock, _ = self._clock(now).at([one.best for one in others])
            quiet += [one.best / ratio for one, ratio in zip(others, clock.tolist(), strict=True)]
        every = [*now, *others]
        ratios = [getattr(one, self.statistic) / ms for one, ms in zip(every, quiet, strict=True)]
        return quiet, ratios, [_bounded(one.se) for one in every]

    def _clock(self, now: Sequence[Row]) -> Curve:
        """By how much what counts as undisturbed now differs from what did in the profile, over latency: the clock
        may be another one, and a busy machine leaves less in the caches."""
        ratios = [one.best / row.best for one, row in zip(now, self.rows, strict=True)]
        errors = [_bounded(float(np.hypot(one.best_se, row.best_se))) for one, row in zip(now, self.rows, strict=True)]
        return curve_through([one.best for one in now], ratios, errors)

    def _level(self, records: Sequence[Measurement], curve: Curve) -> LevelNow:
        return LevelNow(
            now=curve,
            then=self.usual,
            anchors=tuple(row.best for row in self.rows),
            repeats=_repeats(records, self.statistic),
            profiled_at=max(row.measured_at for row in self.rows),
            measured_at=max(record.measured_at for record in records),
            reasons=tuple(DeviceFacts.read(records[0].facts).reasons),
        )


def fresh_session(workspace: Workspace, device: str, at: datetime | None = None) -> list[Measurement]:
    """What was measured on a device last, together; nothing where that was longer ago than ``FRESH_S``.

    Args:
        at: the moment that counts as now.
    """
    session = [Measurement.from_json(record) for record in workspace.store.newest_session(device)]
    ended = [datetime.fromisoformat(record.measured_at) for record in session]
    if not ended or (at or datetime.now(UTC)) - max(ended) > timedelta(seconds=FRESH_S):
        return []
    return session


@contextmanager
def looking(
    workspace: Workspace, target: TargetProfile, progress: Progress | None = None
) -> Iterator[Callable[[Family, LatencyModel], LevelNow | None]]:
    """Within it, a function that measures a target's level now by the networks of a space that its model knows."""
    with ExitStack() as stack:
        opened: list[Fleet] = []

        def look(space: Family, model: LatencyModel) -> LevelNow | None:
            gauge = Gauge(workspace, target, space, model)
            if not gauge:
                return None
            if not opened:  # a device is asked only where there is something to measure
                opened.append(stack.enter_context(Fleet.open(workspace)))
            return gauge.measure(opened[0], progress)

        yield look


def _forecast(level: LevelNow | None) -> LevelNow | None:
    return level and level.widened(max(FORECAST, level.repeats))


def _sessions(model: LatencyModel) -> Iterator[list[Row]]:
    """Sessions that measured networks, by their undisturbed latency: first the one that measured most blocks beside
    them, which was the profile; audits measure networks alone."""
    blocks = Counter(row.measured_at for row in model.table.rows.values())
    known, sessions = set(model.keys), dict[str, list[Row]]()
    for row in sorted(model.table.networks.values(), key=lambda row: row.best):
        if known >= set(row.ops):
            sessions.setdefault(row.measured_at, []).append(row)
    for session in sorted(sessions, key=lambda at: (blocks[at], len(sessions[at])), reverse=True):
        yield _spread(sessions[session], USUAL)


def _levelled(model: LatencyModel, rows: Sequence[Row]) -> list[Row]:
    """Rows of one session with undisturbed latencies on the model's level."""
    if not rows:
        return []
    level = float(np.median(model.undisturbed_ops([row.ops for row in rows]) / np.array([row.best for row in rows])))
    return [replace(row, best=level * row.best) for row in rows]


def _bounded(error: float) -> float:
    """A relative standard error as a curve takes it: that of a few rounds may be infinite, that of equal timings 0."""
    return min(max(error, 0.002), 1.0)


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    """So many of the rows, at equal distances in the logarithm of their latencies, the ends among them."""
    if len(rows) <= count:
        return list(rows)
    at = np.log([row.best for row in rows])
    wanted = np.linspace(at[0], at[-1], count)
    chosen: list[int] = []
    for place in wanted:
        free = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(min(free, key=lambda i: abs(at[i] - place)))
    return [rows[i] for i in sorted(chosen)]


def _repeats(records: Sequence[Measurement], statistic: str) -> float:
    """The median over the anchor of how far the odd rounds are from the even ones."""
    apart = []
    for record in records:
        timings = record.timings
        odd, even = (summarise(timings, range(start, len(timings), 2))[statistic] for start in (0, 1))
        apart.append(abs(odd / even - 1))
    return float(np.median(apart))
