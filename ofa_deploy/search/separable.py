"""Functions of a subnet that add up over its blocks, as tables: what a block at a slot contributes.

Latency means, multiply-accumulates and parameters are such sums, at every resolution and width: a constant for what
no other gene changes, and a value for each slot that the subnet has and the choice it makes there. A table is found by
asking the function for a few hundred subnets that differ in one slot, so it need not be known how it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from ofa_deploy.space import GENE, Population, PopulationCodec

ADDITIVE = 1e-6  # a function is a sum over blocks if it differs from one by no more, as a fraction of its range


@dataclass(frozen=True)
class Slot:
    """A place where a subnet may have a block.

    Attributes:
        stage: whose depth decides whether the block is there.
        genes: its own genes.
        sizes: their numbers of choices. All together they are one choice; the last gene changes fastest.
        present: for each choice of the stage's depth, whether the slot is used.
    """

    stage: int
    genes: tuple[int, ...]
    sizes: tuple[int, ...]
    present: tuple[bool, ...]

    @property
    def choices(self) -> int:
        """How many different blocks it may hold."""
        return prod(self.sizes)

    def split(self, choice: int) -> tuple[int, ...]:
        """What each gene is for a choice."""
        return tuple(int(place) for place in np.unravel_index(choice, self.sizes))

    @property
    def changes(self) -> list[dict[int, int]]:
        """Each choice as its genes."""
        return [dict(zip(self.genes, self.split(choice), strict=True)) for choice in range(self.choices)]


class Slots:
    """The genes of a family, slot by slot. ``C`` is the most choices that a slot has; choice C is an absent block.

    Attributes:
        depth0: number of the first stage's depth among the genes; those before it make up a network's size.
        stages: for every depth the slots that it decides on; none of a family whose genes all make up the size.
        shape: their numbers of choices.
    """

    def __init__(self, codec: PopulationCodec) -> None:
        slots = [(place, place.depth) for place in codec.space.places if place.depth is not None]
        depths = sorted({depth for _, depth in slots})
        self.codec, self.depth0 = codec, depths[0] if depths else len(codec.choices)
        self.kernel0 = self.depth0 + len(depths)
        self.shape = tuple(int(count) for count in codec.choices[: self.depth0])
        self.all: list[Slot] = []
        for place, depth in slots:
            sizes = tuple(int(codec.choices[gene]) for gene in place.own)
            self.all.append(Slot(depth - self.depth0, place.own, sizes, place.present))
        self.stages = [[i for i, slot in enumerate(self.all) if slot.stage == s] for s in range(len(depths))]
        self.C = max((slot.choices for slot in self.all), default=1)
        self._units = np.array(_units(self.shape))
        # the slots' own genes: of which slots, which genes, what a step counts, how many choices
        self._digits = [tuple(map(np.array, zip(*batch, strict=True))) for batch in _batches(self.all)]

    @property
    def sizes(self) -> int:
        """Combinations of resolution and widths."""
        return prod(self.shape)

    def size(self, population: Population) -> np.ndarray:
        """Number of the combination of resolution and widths, ``int64[N]``."""
        return population[:, : self.depth0].astype(np.intp) @ self._units

    def size_genes(self, size: np.ndarray) -> np.ndarray:
        """Resolution and widths of such numbers, ``int64[N, depth0]``."""
        return np.asarray(size)[:, None] // self._units % self.shape

    def picks(self, population: Population) -> np.ndarray:
        """Choice at every slot, ``int64[N, slots]``; C where there is no block."""
        picks = np.zeros((len(population), len(self.all)), dtype=np.intp)
        for having, genes, units, _ in self._digits:
            picks[:, having] += population[:, genes] * units
        return np.where(self.codec.active(population), picks, self.C)

    def rows(self, picks: np.ndarray, depths: np.ndarray) -> Population:
        """Subnets of the first size, from their choices at every slot and their depths' genes."""
        population = np.zeros((len(depths), len(self.codec.choices)), dtype=GENE)
        population[:, self.depth0 : self.kernel0] = depths
        chosen = np.where(self.codec.active(population) & (picks != self.C), picks, 0)
        for having, genes, units, counts in self._digits:  # of slots that share a gene, one is there
            population[:, genes] += (chosen[:, having] // units % counts).astype(GENE)
        return population

    @cached_property
    def growth(self) -> list[tuple[int, list[tuple[int, int, int]]]]:
        """For every stage its smallest depth; and for each other one, the smaller depths first, the largest depth whose
        slots it has and more (the smallest depth where it has other slots), and the first slot that it has besides."""
        found = []
        for stage, members in enumerate(self.stages):
            count = self.codec.choices[self.depth0 + stage]
            has = [{i for i in members if self.all[i].present[depth]} for depth in range(count)]
            order = sorted(range(count), key=lambda depth: len(has[depth]))
            steps = []
            for n, depth in enumerate(order[1:], 1):
                smaller = [before for before in order[:n] if has[before] < has[depth]]
                before = smaller[-1] if smaller else order[0]
                steps.append((depth, before, min(has[depth] - has[before])))
            found.append((order[0], steps))
        return found

    def path(self, stage: int, depth: int) -> tuple[int, ...]:
        """The slots that a stage has at a depth, in order."""
        return tuple(i for i in self.stages[stage] if self.all[i].present[depth])


def _batches(slots: Sequence[Slot]) -> list[list[tuple[int, int, int, int]]]:
    """Slot, gene, what a step of it counts, and choices of all slots' own genes; in a batch none comes twice."""
    entries = [
        (position, i, slot.genes[position], _units(slot.sizes)[position], slot.sizes[position])
        for i, slot in enumerate(slots)
        for position in range(len(slot.genes))
    ]
    batches: list[list[tuple[int, int, int, int]]] = []
    for _, *entry in sorted(entries):
        i, gene, unit, count = entry
        free = (b for b in batches if all(i != one and gene != other for one, other, _, _ in b))
        if (batch := next(free, None)) is None:
            batches.append(batch := [])
        batch.append((i, gene, unit, count))
    return batches


def _units(sizes: Sequence[int]) -> list[int]:
    """What a step of each gene counts in the number of a choice; the last one changes fastest."""
    return [prod(sizes[i + 1 :]) for i in range(len(sizes))]


@dataclass(frozen=True)
class Separable:
    """A function of a subnet that is a sum over its slots, with ``K`` values.

    Attributes:
        constant: ``float64[sizes, K]``.
        value: ``float64[sizes, slots, C + 1, K]``; 0 at choice C, the absent block.
        error: the largest deviation from the function it was made from, on random subnets, ``float64[K]``.
        spread: the range of the function there.
    """

    slots: Slots
    constant: np.ndarray
    value: np.ndarray
    error: np.ndarray
    spread: np.ndarray

    def __call__(self, population: Population) -> np.ndarray:
        """The function of every subnet, ``float64[N, K]``."""
        size, picks = self.slots.size(population), self.slots.picks(population)
        total = self.constant[size]
        for i in range(picks.shape[1]):
            total += self.value[size, i, picks[:, i]]
        return total

    def only(self, k: int) -> Separable:
        """One of the K values by itself."""
        parts = (part[..., [k]] for part in (self.constant, self.value, self.error, self.spread))
        return Separable(self.slots, *parts)

    def shifted(self, by: np.ndarray) -> Separable:
        """The sum plus a constant, ``[K]``."""
        return replace(self, constant=self.constant + by)

    @property
    def holds(self) -> np.ndarray:
        """Which of the K values are sums over blocks indeed."""
        return self.error <= ADDITIVE * np.maximum(self.spread, 1e-12)


class Sweep:
    """The subnets that a function must be asked for to find its sum over slots: some that differ in one slot, at every
    resolution and width, and random ones to try the sum on.

    Attributes:
        population: the subnets.
    """

    def __init__(self, slots: Slots, samples: int = 256) -> None:
        rows, self._marks = _sweep(slots)
        asked = np.repeat(rows[None], slots.sizes, axis=0)
        for size, part in enumerate(asked):
            part[:, : slots.depth0] = slots.size_genes(np.array([size]))
        self.slots, self._count = slots, len(rows)
        random = slots.codec.sample(samples, np.random.default_rng(0))
        self.population: Population = np.concatenate([slots.codec.canonicalise(np.concatenate(asked)), random])

    def read(self, answers: np.ndarray) -> Separable:
        """The sum, from the function's ``[N, K]`` values of the population."""
        asked = self.slots.sizes * self._count
        truth, got = answers[asked:], answers[:asked].reshape(self.slots.sizes, self._count, -1)
        value = np.zeros((self.slots.sizes, len(self.slots.all), self.slots.C + 1, got.shape[2]))
        for j, mark in enumerate(self._marks, 1):
            if mark is not None:
                value[:, mark.slot, mark.choices] += (got[:, j] - got[:, mark.base]).reshape(self.slots.sizes, 1, -1)
        nothing = np.zeros(got.shape[2])
        made = Separable(self.slots, got[:, 0], value, nothing, nothing)
        error = np.nan_to_num(np.abs(made(self.population[asked:]) - truth).max(axis=0), nan=np.inf)
        return replace(made, error=error, spread=np.ptp(truth, axis=0))


def separate(slots: Slots, function: Callable[[Population], np.ndarray]) -> Separable:
    """The sum over slots that agrees with a function ``[N] → [N, K]`` on subnets that differ in one slot; ``holds``
    tells whether it agrees on random ones."""
    sweep = Sweep(slots)
    return sweep.read(function(sweep.population))


@dataclass(frozen=True)
class _Mark:
    """What the difference between two subnets of a sweep says: the value of some choices at a slot."""

    slot: int
    choices: slice
    base: int


def _sweep(slots: Slots) -> tuple[Population, list[_Mark | None]]:
    """Subnets at the first resolution and width, and what each but the first tells.

    The first has every depth at its smallest. Then come all other depths, one at a time: each adds to the value of the
    first slot that it uses and the one that it grew from did not. Then, for every slot, the deepest subnet that uses
    it, and it with another choice there.
    """
    rows = [np.zeros(len(slots.codec.choices), dtype=GENE)]
    marks: list[_Mark | None] = []
    deepest = rows[0].copy()
    for stage, (least, steps) in enumerate(slots.growth):
        gene = slots.depth0 + stage
        rows[0][gene], deepest[gene] = least, steps[-1][0] if steps else least
    for stage, (least, steps) in enumerate(slots.growth):
        at = {least: 0}
        for depth, before, slot in steps:
            rows.append(rows[0].copy())
            rows[-1][slots.depth0 + stage] = depth
            marks.append(_Mark(slot, slice(0, slots.C), at[before]))
            at[depth] = len(rows) - 1
    bases = dict[bytes, int]()
    for i, one in enumerate(slots.all):
        using, gene = deepest.copy(), slots.depth0 + one.stage
        if not one.present[deepest[gene]]:
            having = [depth for depth, present in enumerate(one.present) if present]
            _, using[gene] = max((len(slots.path(one.stage, depth)), depth) for depth in having)
        if using.tobytes() not in bases:
            bases[using.tobytes()] = len(rows)
            rows.append(using)
            marks.append(None)
        for choice in range(1, one.choices):
            rows.append(using.copy())
            rows[-1][list(one.genes)] = one.split(choice)
            marks.append(_Mark(i, slice(choice, choice + 1), bases[using.tobytes()]))
    return np.array(rows), marks
