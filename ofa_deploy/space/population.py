"""A population as one integer array, so that search, latency and accuracy work on all of its members at once.

Row of an ``int16[N, G]`` population: the place of what was chosen in every gene's choices, in the order of the family's
genes. Canonical rows hold 0 in the genes that mean nothing, as those of slots beyond a stage's depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ofa_deploy.blocks import OpSpec, Unit
from ofa_deploy.blocks.network_counts import VALUE_BYTES
from ofa_deploy.errors import UsageError
from ofa_deploy.space.family import Arch, ArchLike, Family
from ofa_deploy.space.totals import unit_table

Population = np.ndarray
GENE = np.int16  # a choice's place: one byte would do for 127 choices, and a space may list 1009 resolutions


COMBINATIONS = 1_000_000  # of genes, most of which are of absent slots


class PopulationCodec:
    """Vectorised operations on populations of one family of networks.

    Attributes:
        space: the family whose members are encoded.
        choices: number of choices of every gene, ``int64[G]``.
        per_resolution: whether a block has a number of its own at every resolution of the network, as latency tables
            need that were measured so; the encoding of populations is the same.
    """

    def __init__(self, space: Family, per_resolution: bool = False) -> None:
        self.space, self.per_resolution = space, per_resolution
        self.choices = np.array([len(gene.choices) for gene in space.genes])
        optional = [place for place in space.places if place.depth is not None]
        self._depth_genes = np.array([place.depth for place in optional], dtype=int)
        # which slots exist at which depth, and for the slots' own genes which slot's each is
        most = max((len(place.present) for place in optional), default=1)
        present = [(*place.present, *[False] * (most - len(place.present))) for place in optional]
        self._needs = np.array(present, dtype=bool).reshape(-1, most)
        owned = sorted((gene, i) for i, place in enumerate(optional) for gene in place.own)
        genes, self._owner = np.array(owned, dtype=int).reshape(-1, 2).T
        self._own, self._first = np.unique(genes, return_index=True)
        used = {gene for place in space.places for gene in (*place.genes, place.depth)}
        self._unused = [gene for gene in range(len(self.choices)) if gene not in used]
        self._known: dict[str, np.ndarray] = {}

    def sample(self, count: int, rng: np.random.Generator) -> Population:
        """Random subnets, every gene uniform."""
        return self.canonicalise(rng.integers(0, self.choices, (count, len(self.choices))).astype(GENE))

    def everything(self, most: int) -> Population | None:
        """All subnets of the space; None where there are more than ``most``, or too many combinations of genes."""
        if self.space.size > most or prod(self.choices.tolist()) > COMBINATIONS:
            return None
        places = np.stack(np.unravel_index(np.arange(prod(self.choices.tolist())), self.choices), axis=1)
        return np.unique(self.canonicalise(places), axis=0)

    def stratified(self, count: int, rng: np.random.Generator) -> Population:
        """Random subnets spread evenly over the MACs of the space, after the smallest and the largest one; fewer than
        ``count`` where the space has no more, as none is drawn twice."""
        ends = self.encode([self.space.smallest, self.space.largest])
        pool = np.unique(self.sample(64 * count, rng), axis=0)
        pool = pool[np.argsort(self.macs(pool), kind="stable")]
        middle = pool[np.linspace(0, len(pool) - 1, max(count, 2)).round().astype(int)[1:-1]]
        drawn = np.concatenate([ends, middle])
        first = np.unique(drawn, axis=0, return_index=True)[1]
        return drawn[np.sort(first)][:count]

    def spread(self, count: int, rng: np.random.Generator, candidates: int = 16) -> Population:
        """Random subnets whose MACs are spread evenly on a logarithmic scale, from the smallest to the largest one.

        Uniform genes leave few subnets near either end. As in AttentiveNAS (Wang et al., CVPR 2021, §3.2), each subnet
        has a drawn target, and of several candidates the one nearest to it is taken. A candidate has a random share of
        its genes from the smallest or the largest subnet.
        """
        ends = self.encode([self.space.smallest, self.space.largest])
        low, high = np.log(self.macs(ends))
        targets = rng.uniform(low, high, count)
        drawn = rng.integers(0, self.choices, (count * candidates, len(self.choices))).astype(GENE)
        anchors, shares = ends[rng.integers(0, 2, len(drawn))], rng.random((len(drawn), 1))
        pool = self.canonicalise(np.where(rng.random(drawn.shape) < shares, anchors, drawn))
        gaps = np.abs(np.log(self.macs(pool)).reshape(count, candidates) - targets[:, None])
        return pool.reshape(count, candidates, len(self.choices))[np.arange(count), gaps.argmin(axis=1)]

    def active(self, population: Population) -> np.ndarray:
        """Which slots exist: ``bool[N, slots]``."""
        return self._needs[np.arange(len(self._needs)), population[:, self._depth_genes]]

    def canonicalise(self, population: Population) -> Population:
        """The same subnets with 0 for genes that mean nothing, as those of absent slots."""
        population = population.astype(GENE)
        population[:, self._own] *= self._meant(population)
        population[:, self._unused] = 0
        return population

    def meant(self, population: Population) -> np.ndarray:
        """Which genes make a difference: not those of absent blocks. ``bool[N, G]``."""
        found = np.ones(population.shape, dtype=bool)
        found[:, self._own], found[:, self._unused] = self._meant(population), False
        return found

    def _meant(self, population: Population) -> np.ndarray:
        """Of the genes that are blocks' own, which have a block that is there: ``bool[N, own]``."""
        active = self.active(population)[:, self._owner]
        if len(self._own) == len(self._owner):
            return active
        return np.logical_or.reduceat(active, self._first, axis=1)

    def mutate(self, population: Population, rate: float, rng: np.random.Generator) -> Population:
        """Redraw every gene with a probability; at least one gene of every row."""
        redraw = rng.random(population.shape) < rate
        redraw[np.arange(len(population)), rng.integers(0, population.shape[1], len(population))] = True
        fresh = rng.integers(0, self.choices, population.shape).astype(GENE)
        return self.canonicalise(np.where(redraw, fresh, population))

    def crossover(self, one: Population, other: Population, rng: np.random.Generator) -> Population:
        """Uniform crossover, row by row."""
        return self.canonicalise(np.where(rng.random(one.shape) < 0.5, one, other))

    def neighbours(self, row: np.ndarray) -> Population:
        """All subnets that differ from one in a single gene, and the subnet itself."""
        moves = [row]
        for gene, count in enumerate(self.choices):
            for value in range(count):
                if value != row[gene]:
                    moves.append(row.copy())
                    moves[-1][gene] = value
        return np.unique(self.canonicalise(np.array(moves, dtype=GENE)), axis=0)

    def encode(self, archs: Iterable[ArchLike]) -> Population:
        """Subnets to rows.

        Raises:
            UsageError: a subnet of another space, or at a resolution that this space does not list.
        """
        rows = []
        for chosen in map(self.space.values, archs):
            if chosen[0] not in self.space.resolutions:
                listed = list(self.space.resolutions)
                raise UsageError(f"resolution {chosen[0]} is not one of {self.space.name}'s {listed}")
            rows.append([gene.choices.index(value) for gene, value in zip(self.space.genes, chosen, strict=True)])
        return self.canonicalise(np.array(rows, dtype=GENE).reshape(-1, len(self.choices)))

    def decode(self, population: Population) -> list[Arch]:
        """Rows to subnets."""
        choices = [gene.choices for gene in self.space.genes]
        rows = self.canonicalise(population).tolist()
        return [self.space.arch([values[i] for values, i in zip(choices, row, strict=True)]) for row in rows]

    @cached_property
    def _index(self) -> tuple[tuple[tuple[Unit, int | None], ...], tuple[np.ndarray, ...]]:
        """Everything distinct that is measured as one, with its resolution where that counts; and for every place the
        number of what stands there, ``int32[choices of its genes]``."""
        places, found = self.space.places, list[tuple[tuple[int, ...], int, Unit | None, int | None]]()
        tables = []
        for i in range(len(places)):
            tables.append(np.empty(self._shape(i), dtype=np.int32))
            for at, chosen in self._chosen(i):
                resolution = chosen[0] if self.per_resolution else None
                found.append((at, i, self.space.unit_at(i, chosen), resolution))
        # numbered size by size, what has no depth first: so tables of one space are in one order
        found.sort(key=lambda one: (one[0][:2], places[one[1]].depth is not None, one[1], one[0]))
        numbers, units = dict[tuple[OpSpec, int | None], int](), list[tuple[Unit, int | None]]()
        for at, i, unit, resolution in found:
            if unit is None:
                tables[i][at] = -1
                continue
            if (unit.op, resolution) not in numbers:
                numbers[unit.op, resolution] = len(units)
                units.append((unit, resolution))
            tables[i][at] = numbers[unit.op, resolution]
        for table in tables:
            table[table < 0] = len(units)
        return tuple(units), tuple(tables)

    def _shape(self, place: int) -> list[int]:
        """How many choices each gene of a place has."""
        return [int(self.choices[gene]) for gene in self.space.places[place].genes]

    def _chosen(self, place: int) -> Iterator[tuple[tuple[int, ...], dict[int, Any]]]:
        """Every combination of what the genes of a place can choose: where it is in a table, and the values."""
        genes = self.space.places[place].genes
        for at in np.ndindex(*self._shape(place)):
            yield at, {gene: self.space.genes[gene].choices[j] for gene, j in zip(genes, at, strict=True)}

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """Everything distinct that is measured as one and that any member can have: blocks and cells; M of them."""
        return tuple(unit for unit, _ in self._index[0])

    @cached_property
    def ops(self) -> tuple[OpSpec, ...]:
        """The blocks, or what stands for a cell, of ``units``."""
        return tuple(unit.op for unit in self.units)

    @cached_property
    def op_keys(self) -> tuple[str, ...]:
        """The keys of the blocks' rows in a latency table, in the order of ``ops``."""
        return tuple(unit.op.key_at(resolution) for unit, resolution in self._index[0])

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """For every place the number of what stands there, its position in ``ops``, M for nothing: ``int32[choices of
        its genes]``."""
        return self._index[1]

    @cached_property
    def peaks(self) -> tuple[np.ndarray, ...]:
        """For every place the values in memory at once while that runs, 0 for nothing: ``float64[choices of its
        genes]``."""
        tables = []
        for i in range(len(self.space.places)):
            tables.append(np.empty(self._shape(i)))
            for at, chosen in self._chosen(i):
                tables[i][at] = self.space.peak_at(i, chosen)
        return tuple(tables)

    def op_ids(self, population: Population) -> np.ndarray:
        """Which blocks each member has: ``int32[places, N]``, positions in ``ops``, M for an absent one."""
        ids = np.empty((len(self.tables), len(population)), dtype=np.int32)
        for i, (at, present) in enumerate(self._looked_up(population)):
            ids[i] = self.tables[i].ravel().take(at)
            if present is not None:
                ids[i] = np.where(present, ids[i], len(self.ops))
        return ids

    def _looked_up(self, population: Population) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """For every place, in its table flattened, the position that each member has; and whether anything is there,
        where a gene says so."""
        genes = np.ascontiguousarray(population.T).astype(np.intp)
        shared = dict[tuple[int, ...], np.ndarray]()  # most places depend on the same size
        slots = iter(self._needs)  # in the order of the places that have a depth
        for place in self.space.places:
            sizes = self.choices[list(place.genes)].tolist()
            if place.size not in shared:
                shared[place.size] = _number(genes, place.size, sizes)
            at = _number(genes, place.own, sizes[len(place.size) :], shared[place.size])
            yield at, None if place.depth is None else next(slots).take(genes[place.depth])

    def peak(self, population: Population) -> np.ndarray:
        """Values in memory at once while each member runs for one image, weights not counted: ``float64[N]``."""
        most = np.zeros(len(population))
        for table, (at, present) in zip(self.peaks, self._looked_up(population), strict=True):
            most = np.maximum(most, table.ravel().take(at) * (True if present is None else present))
        return most

    def counts(self, what: str) -> np.ndarray:
        """``unit_table`` of ``units``: ``float64[M + 1]``."""
        if what not in self._known:  # to look it up there takes as long as many a question of a search
            self._known[what] = unit_table(self.units, what)
        return self._known[what]

    def _count(self, population: Population, count: str) -> np.ndarray:
        table, total = self.counts(count), np.zeros(len(population))
        for row in self.op_ids(population):
            total += table.take(row)
        return total

    def macs(self, population: Population) -> np.ndarray:
        """Multiply-accumulates of every subnet: ``float64[N]``."""
        return self._count(population, "macs")

    def params(self, population: Population) -> np.ndarray:
        """Parameters of every subnet: ``float64[N]``."""
        return self._count(population, "params")

    def memory(self, population: Population, batch: int = 1, precision: str = "fp32") -> np.ndarray:
        """Peak memory of every subnet in bytes, as ``network_memory`` defines it: ``float64[N]``."""
        return VALUE_BYTES[precision] * (self._count(population, "weights") + batch * self.peak(population))


def _number(
    genes: np.ndarray, which: Sequence[int], counts: Sequence[int], start: np.ndarray | None = None
) -> np.ndarray:
    """Some genes, ``intp[G, N]``, as one number, the last one changing fastest; ``start`` is what comes before them."""
    number = start
    for gene, count in zip(which, counts, strict=False):
        number = genes[gene] if number is None else number * count + genes[gene]
    return np.zeros(genes.shape[1], dtype=np.intp) if number is None else number
