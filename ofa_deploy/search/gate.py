"""All constraints over a population in one pass, for millions of subnets.

What is bounded is a sum over blocks, but for a latency's deviation and the peak of the activations. So the genes of a
few slots that belong together become one number (a product of matrices), and one look-up in a table says what those
blocks add to everything that is bounded. Subnets whose verdict could hang on a deviation, on a peak, or on the rounding
of single precision, are then looked at again in double precision.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import floor, inf, prod
from statistics import NormalDist

import numpy as np

from ofa_deploy.search.problem import COUNTED, Latency, Problem
from ofa_deploy.search.separable import Separable, Slots, separate
from ofa_deploy.space import Population
from ofa_deploy.threads import one_thread

CHUNK = 8192  # subnets at a time: what they need stays in the caches, and two threads seldom wait for Python
ENTRIES = 1 << 12  # most entries of one table: all tables together stay in a cache
ROUNDING = 1e-5  # sums in single precision are surer than this
WIDEST = 2.0  # a subnet's relative deviation is taken to be at most so many times the largest of a random sample
SAMPLE = 512
SHOWN = ("macs", "params")
WHOLE = ("layers", "large_kernels")


@dataclass(frozen=True)
class Verdicts:
    """What a gate says of a population of N.

    Attributes:
        feasible: whether all constraints hold, ``bool[N]``.
        again: positions of the subnets that were looked at in double precision.
    """

    gate: Gate
    population: Population
    feasible: np.ndarray
    _values: np.ndarray
    again: np.ndarray
    _exact: np.ndarray

    @property
    def values(self) -> dict[str, np.ndarray]:
        """Means ``latency_ms`` (with a latency model; of further devices ``latency_ms@NAME``), ``macs`` and
        ``params``, each ``float32[N]``."""
        return {column.name: self._values[:, j] for j, column in enumerate(self.gate.columns) if column.shown}

    @cached_property
    def excess(self) -> np.ndarray:
        """By how much each constraint is exceeded, as a fraction of its bound (negative: room), ``float64[N, K]`` in
        the order of ``problem.names``. Where a mean alone rejects a subnet, its deviation is not counted."""
        names, sums = self.gate.problem.names, self.gate.sums(self.population)
        excess = np.zeros((len(self.feasible), len(names)))
        for j, column in enumerate(self.gate.columns):
            if column.constraint is not None:
                excess[:, names.index(column.constraint)] = sums[:, j] * column.scale + column.offset
        excess[self.again] = self._exact
        return excess

    def reasons(self, i: int) -> dict[str, float]:
        """Why one subnet is rejected: the excess of every constraint that it breaks."""
        return {name: float(e) for name, e in zip(self.gate.problem.names, self.excess[i], strict=True) if not e <= 0}

    @property
    def counts(self) -> dict[str, int]:
        """How many subnets break each constraint; one that breaks several counts for each."""
        broken = (~(self.excess <= 0)).sum(axis=0)
        return dict(zip(self.gate.problem.names, broken.tolist(), strict=True))


class Gate:
    """A problem's constraints as look-ups."""

    def __init__(self, problem: Problem, workers: int | None = None) -> None:
        """Build the tables.

        Args:
            workers: threads; as many as there are cores by default. The answer does not depend on it.

        Raises:
            OpNotProfiled: a block of the space was never measured.
        """
        self.problem, self.workers = problem, workers or os.cpu_count() or 1
        slots, self.columns = Slots(problem.codec), _columns(problem)
        sums = separate(slots, self._sums)
        self._additive = bool(sums.holds.all())
        groups = list(_groups(slots))
        self._weights = np.stack([_weights(slots, group) for group in groups], axis=1)
        width = 1 << (len(self.columns) - 1).bit_length()  # numpy copies entries of such sizes fastest
        self._tables = [_table(sums, group, width, first=i == 0) for i, group in enumerate(groups)]
        limits = np.full((2, width), inf, dtype=np.float32)
        limits[:, : len(self.columns)] = np.transpose([(column.sure, column.possible) for column in self.columns])
        self._limits = [np.repeat(row[None], CHUNK, axis=0) for row in limits]

    def _sums(self, population: Population) -> np.ndarray:
        ids = self.problem.codec.op_ids(population)
        return np.stack([column.sum(population, ids) for column in self.columns], axis=1)

    def check(self, population: Population, deviations: bool = False) -> Verdicts:
        """The verdict on every member.

        Args:
            population: encoded subnets, ``int16[N, G]``; canonical or not.
            deviations: whether every excess counts its deviation; slower, the verdicts are the same.
        """
        count, shown = len(population), sum(column.shown for column in self.columns)
        values = np.empty((count, shown), dtype=np.float32)
        feasible, possible = np.empty(count, dtype=bool), np.empty(count, dtype=bool)
        edges = np.linspace(0, count, self.workers + 1).astype(int) if count > CHUNK else np.array([0, count])

        def work(span: tuple[int, int]) -> None:
            buffers = self._buffers(min(CHUNK, count))
            for start in range(*span, CHUNK):
                part = slice(start, min(start + CHUNK, span[1]))
                sums = self._sum(population[part], buffers)
                values[part] = sums[:, :shown]
                for answer, limits in zip((feasible, possible), self._limits, strict=True):
                    answer[part] = _all(np.less_equal(sums, limits[: len(sums)], out=buffers.flags[: len(sums)]))

        if count <= CHUNK:
            work((0, count))
        else:  # a thread for each core is ours; the matrix product must not start its own
            with one_thread(), ThreadPoolExecutor(self.workers) as pool:
                list(pool.map(work, pairwise(edges.tolist())))
        everything = deviations or not self._additive
        again = np.arange(count) if everything else np.flatnonzero(possible & ~feasible)
        exact = self.problem.excess(population[again]) if len(again) else np.zeros((0, len(self.problem.names)))
        feasible[again] = (exact <= 0).all(axis=1)
        return Verdicts(self, population, feasible, values, again, exact)

    def sums(self, population: Population) -> np.ndarray:
        """What every member has in each column, ``float32[N, columns]``."""
        parts = [population[start : start + CHUNK] for start in range(0, max(len(population), 1), CHUNK)]
        sums = [self._sum(part, self._buffers(len(part)))[:, : len(self.columns)] for part in parts]
        return np.concatenate(sums)

    def _buffers(self, count: int) -> _Buffers:
        groups, width = len(self._tables), self._tables[0].shape[1]
        return _Buffers(
            genes=np.empty((count, len(self._weights)), dtype=np.float32),
            products=np.empty((count, groups), dtype=np.float32),
            places=np.empty((groups, count), dtype=np.intp),
            sums=np.empty((count, width), dtype=np.float32),
            part=np.empty((count, width), dtype=np.float32),
            flags=np.empty((count, width), dtype=bool),
        )

    def _sum(self, population: Population, buffers: _Buffers) -> np.ndarray:
        count = len(population)
        places, sums, part = buffers.places[:, :count], buffers.sums[:count], buffers.part[:count]
        np.copyto(buffers.genes[:count], population)
        np.matmul(buffers.genes[:count], self._weights, out=buffers.products[:count])
        np.copyto(places, buffers.products[:count].T, casting="unsafe")
        self._tables[0].take(places[0], axis=0, out=sums, mode="clip")
        for table, where in zip(self._tables[1:], places[1:], strict=True):
            table.take(where, axis=0, out=part, mode="clip")
            sums += part
        return sums


@dataclass(frozen=True)
class _Buffers:
    """What a thread needs for a chunk: fresh memory for every chunk would cost more than the work in it."""

    genes: np.ndarray
    products: np.ndarray
    places: np.ndarray
    sums: np.ndarray
    part: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True)
class Column:
    """Something that adds up over blocks, and what it must stay below.

    Attributes:
        name: the value's, or the constraint's where the value is not one that is told.
        sum: from a population and its blocks' numbers to the values, ``float64[N]``.
        sure: with less the constraint holds for certain; ``possible``: with more it is broken for certain.
        shown: whether it is one of ``Verdicts.values``; those come first.
        constraint: the one it decides, if any; its ``excess`` is at least the value times ``scale`` plus ``offset``.
    """

    name: str
    sum: Callable[[Population, np.ndarray], np.ndarray]
    sure: float = inf
    possible: float = inf
    constraint: str | None = None
    shown: bool = True
    scale: float = 0.0
    offset: float = 0.0


def _columns(problem: Problem) -> list[Column]:
    columns, bounds, counted = [], problem.constraints.bounds, [*SHOWN, *problem.counted]
    if problem.latency is not None:
        columns.append(_latency(problem, "", problem.latency, problem.constraints.max_ms, problem.deviations))
    for device in problem.others:
        deviations = NormalDist().inv_cdf(device.confidence)
        columns.append(_latency(problem, f"@{device.name}", device.latency, device.max_ms, deviations))
    for name in dict.fromkeys(counted):
        what = name.removeprefix("max_")
        if name in SHOWN or what not in SHOWN:
            bound = name if name in bounds else f"max_{name}" if f"max_{name}" in bounds else None
            columns.append(_count(problem, name, bound))
    return columns


def _latency(problem: Problem, suffix: str, latency: Latency, bound: float | None, deviations: float) -> Column:
    def mean(population: Population, _: np.ndarray) -> np.ndarray:
        return latency(population)[0]

    if bound is None:
        return Column(f"latency_ms{suffix}", mean)
    means, stds = latency(problem.codec.sample(SAMPLE, np.random.default_rng(0)))
    stretched = np.nan_to_num(1 + deviations * WIDEST * (stds / means).max(), nan=inf)
    other = bound / stretched if stretched > 0 else inf
    limits = _rounded(min(bound, other), max(bound, other))
    return Column(f"latency_ms{suffix}", mean, *limits, f"max_ms{suffix}", True, 1 / bound, -1.0)


def _count(problem: Problem, name: str, constraint: str | None) -> Column:
    """A count of the blocks; a lower bound is an upper bound of the negative count."""
    what, sign = name.removeprefix("max_").removeprefix("min_"), -1.0 if name.startswith("min_") else 1.0
    scale = sign * (problem.value_bytes / 1e6 if what == "memory_mb" else 1.0)
    table = scale * problem.codec.counts(COUNTED[what])

    def total(_: Population, ids: np.ndarray) -> np.ndarray:
        return table.take(ids).sum(axis=0)

    if constraint is None:
        return Column(name, total, shown=name in SHOWN)
    bound = sign * problem.constraints.bounds[constraint]
    unit = 1 / (abs(bound) or 1.0)
    if what in WHOLE:  # small whole numbers have no rounding
        middle = floor(bound) + 0.5
        return Column(name, total, middle, middle, constraint, False, unit, -bound * unit)
    least, most = _peaks(problem) if what == "memory_mb" else (0.0, 0.0)
    return Column(name, total, *_rounded(bound - most, bound - least), constraint, name in SHOWN, unit, -bound * unit)


def _peaks(problem: Problem) -> tuple[float, float]:
    """Between which bounds the working set of any subnet's activations lies, in MB."""
    codec = problem.codec
    always = [t for t, place in zip(codec.peaks, codec.space.places, strict=True) if place.depth is None]
    least = np.max([table.reshape(*table.shape[:2], -1).min(axis=2) for table in always], axis=0)
    unit = problem.value_bytes * problem.batch / 1e6
    return unit * float(least.min()), unit * max(float(table.max()) for table in codec.peaks)


def _rounded(sure: float, possible: float) -> tuple[float, float]:
    return sure - ROUNDING * abs(sure), possible + ROUNDING * abs(possible)


def _groups(slots: Slots) -> Iterator[list[int]]:
    """Slots of one stage, as many together as a table may have entries; no slots where only the size is chosen."""
    if not slots.stages:
        yield []
    for stage, members in enumerate(slots.stages):
        room = ENTRIES // (slots.sizes * int(slots.codec.choices[slots.depth0 + stage]))
        group: list[int] = []
        for i in members:
            if group and prod(_own(slots, [*group, i]).values()) > room:
                yield group
                group = []
            group.append(i)
        yield group


def _own(slots: Slots, group: list[int]) -> dict[int, int]:
    """The slots' own genes and how many choices each has. Slots of which one at most is there may share genes."""
    return {gene: n for i in group for gene, n in zip(slots.all[i].genes, slots.all[i].sizes, strict=True)}


def _weights(slots: Slots, group: list[int]) -> np.ndarray:
    """What each gene counts in the number of a group's entry: resolution, widths, depth, then the slots' choices."""
    weights, unit = np.zeros(len(slots.codec.choices), dtype=np.float32), 1
    own = _own(slots, group)
    depth = [slots.depth0 + slots.all[i].stage for i in group[:1]]
    for gene in (*reversed(own), *depth, *reversed(range(slots.depth0))):
        weights[gene] = unit
        unit *= int(slots.codec.choices[gene])
    return weights


def _table(sums: Separable, group: list[int], width: int, first: bool) -> np.ndarray:
    """``float32[entries, width]``: what a group's blocks add; the first group's has what all subnets share, too."""
    slots, own = [sums.slots.all[i] for i in group], _own(sums.slots, group)
    depths, columns = len(slots[0].present) if slots else 1, sums.constant.shape[1]
    total = np.zeros((len(sums.constant), depths, *own.values(), columns))
    if first:
        total += sums.constant.reshape(-1, *[1] * (1 + len(own)), columns)
    for i, slot in zip(group, slots, strict=True):
        values = sums.value[:, i, : slot.choices].reshape(-1, 1, *slot.sizes, columns)
        order = sorted(range(len(slot.genes)), key=lambda place: [*own].index(slot.genes[place]))
        values = values.transpose(0, 1, *(2 + place for place in order), 2 + len(order))
        shape = [n if gene in slot.genes else 1 for gene, n in own.items()]
        present = np.array(slot.present).reshape(-1, *[1] * (1 + len(own)))
        total = total + values.reshape(-1, 1, *shape, columns) * present
    table = np.zeros((total.size // columns, width), dtype=np.float32)
    table[:, :columns] = total.reshape(-1, columns)
    return table


def _all(flags: np.ndarray) -> np.ndarray:
    """Which rows of ``bool[N, W]`` are true throughout; W a power of two, so that a row is read as whole numbers."""
    word = np.dtype(f"u{min(flags.shape[1], 8)}")
    true = np.frombuffer(b"\x01" * word.itemsize, dtype=word)[0]
    whole = flags.view(word) == true
    return whole[:, 0] if whole.shape[1] == 1 else whole.all(axis=1)
