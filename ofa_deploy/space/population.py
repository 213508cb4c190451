"""A population as one integer array, so that search, latency and accuracy work on all of its members at once.

Row of an ``int16[N, G]`` population: index of the resolution, of the width, of each stage's depth, of each slot's
kernel, of each slot's expand ratio. Canonical rows hold 0 in the genes of slots beyond a stage's depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ofa_deploy.blocks import OpSpec
from ofa_deploy.errors import UsageError
from ofa_deploy.space.counts import VALUE_BYTES, op_table
from ofa_deploy.space.spec import Arch, SearchSpace

Population = np.ndarray
GENE = np.int16  # a choice's place: one byte would do for 127 choices, and a space may list 1009 resolutions


class PopulationCodec:
    """Vectorised operations on populations of one space.

    Attributes:
        space: the space whose subnets are encoded.
        choices: number of choices of every gene, ``int64[G]``.
        per_resolution: whether a block has a number of its own at every resolution of the network, as latency tables
            need that were measured so; the encoding of populations is the same.
    """

    def __init__(self, space: SearchSpace, per_resolution: bool = False) -> None:
        self.space, self.per_resolution = space, per_resolution
        stages, slots = space.stages, space.slots
        self._kernel0 = 2 + len(stages)
        self._expand0 = self._kernel0 + len(slots)
        self.choices = np.array(
            [len(space.resolutions), len(space.widths)]
            + [len(stage.depths) for stage in stages]
            + [len(space.kernels(i)) for i in range(len(slots))]
            + [len(stages[s].expands) for s, _ in slots]
        )
        # slot_needs[i, j]: slot i exists where its stage has its j-th depth
        self._stage_of = np.array([s for s, _ in slots])
        most = max(len(stage.depths) for stage in stages)
        self._slot_needs = np.zeros((len(slots), most), dtype=bool)
        for i, (s, b) in enumerate(slots):
            self._slot_needs[i, : len(stages[s].depths)] = [b < depth for depth in stages[s].depths]

    def sample(self, count: int, rng: np.random.Generator) -> Population:
        """Random subnets, every gene uniform."""
        return self.canonicalise(rng.integers(0, self.choices, (count, len(self.choices))).astype(GENE))

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

    def active(self, population: Population) -> np.ndarray:
        """Which slots exist: ``bool[N, slots]``."""
        depths = population[:, 2 : self._kernel0][:, self._stage_of]
        return self._slot_needs[np.arange(len(self._stage_of)), depths]

    def canonicalise(self, population: Population) -> Population:
        """The same subnets with the genes of absent slots set to 0."""
        active = self.active(population)
        population = population.astype(GENE)
        population[:, self._kernel0 : self._expand0][~active] = 0
        population[:, self._expand0 :][~active] = 0
        return population

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

    def encode(self, archs: Iterable[Arch | Mapping[str, Any]]) -> Population:
        """Subnets to rows.

        Raises:
            UsageError: a subnet of another space, or at a resolution that this space does not list.
        """
        rows = []
        for arch in map(self.space.canonical, archs):
            if arch.resolution not in self.space.resolutions:
                listed = list(self.space.resolutions)
                raise UsageError(f"resolution {arch.resolution} is not one of {self.space.name}'s {listed}")
            stages = [self.space.stages[s] for s, _ in self.space.slots]
            rows.append(
                [self.space.resolutions.index(arch.resolution), self.space.widths.index(arch.width)]
                + [stage.depths.index(d) for stage, d in zip(self.space.stages, arch.depths, strict=True)]
                + [self.space.kernels(i).index(kernel) for i, kernel in enumerate(arch.kernels)]
                + [stage.expands.index(e) for stage, e in zip(stages, arch.expands, strict=True)]
            )
        return self.canonicalise(np.array(rows, dtype=GENE).reshape(-1, len(self.choices)))

    def decode(self, population: Population) -> list[Arch]:
        """Rows to subnets."""
        space, slots = self.space, self.space.slots
        stages, kernels = [space.stages[s] for s, _ in slots], [space.kernels(i) for i in range(len(slots))]
        return [
            Arch(
                space.name,
                space.resolutions[row[0]],
                space.widths[row[1]],
                tuple(stage.depths[g] for stage, g in zip(space.stages, row[2 : self._kernel0], strict=True)),
                tuple(sizes[g] for sizes, g in zip(kernels, row[self._kernel0 : self._expand0], strict=True)),
                tuple(stage.expands[g] for stage, g in zip(stages, row[self._expand0 :], strict=True)),
            )
            for row in self.canonicalise(population)
        ]

    @cached_property
    def _index(self) -> tuple[tuple[tuple[OpSpec, int | None], ...], np.ndarray, np.ndarray]:
        """Every distinct block of the space, with its resolution where that counts; its number for [slot, resolution,
        width, kernel, expand] and for the fixed blocks [position, resolution, width]."""
        space, numbers = self.space, dict[tuple[OpSpec, int | None], int]()
        most = [max(len(getattr(stage, name)) for stage in space.stages) for name in ("kernels", "expands")]
        shape = (len(space.resolutions), len(space.widths))
        blocks = np.full((len(space.slots), *shape, *most), -1, dtype=np.int32)
        fixed = np.zeros((4 if space.first_block else 3, *shape), dtype=np.int32)
        for r, resolution in enumerate(space.resolutions):
            at = resolution if self.per_resolution else None
            for w, width in enumerate(space.widths):
                before, after = space.fixed_ops(resolution, width)
                fixed[:, r, w] = [numbers.setdefault((op, at), len(numbers)) for op in before + after]
                for i, (s, b) in enumerate(space.slots):
                    for k, kernel in enumerate(space.kernels(i)):
                        for e, expand in enumerate(space.stages[s].expands):
                            op = space.block(s, b, resolution, width, kernel, expand)
                            blocks[i, r, w, k, e] = numbers.setdefault((op, at), len(numbers))
        return tuple(numbers), blocks, fixed

    @cached_property
    def ops(self) -> tuple[OpSpec, ...]:
        """Every distinct block that any subnet of the space can have; M of them."""
        return tuple(op for op, _ in self._index[0])

    @cached_property
    def op_keys(self) -> tuple[str, ...]:
        """The keys of the blocks' rows in a latency table, in the order of ``ops``."""
        return tuple(op.key_at(resolution) for op, resolution in self._index[0])

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the blocks, positions in ``ops`` (-1: no such choice): ``int32[slots, resolutions, widths,
        kernels, expands]``, and of those that no slot holds, ``int32[fixed, resolutions, widths]``."""
        return self._index[1:]

    def op_ids(self, population: Population) -> np.ndarray:
        """Which blocks each subnet has: ``int32[slots + fixed, N]``, positions in ``ops``, M for an absent slot."""
        ops, blocks, fixed = self._index
        count = len(population)
        genes = np.ascontiguousarray(population.T).astype(np.intp)
        resolution, width = genes[0], genes[1]
        ids = np.empty((len(blocks) + len(fixed), count), dtype=np.int32)
        base = resolution * blocks.shape[2] + width
        for i, table in enumerate(blocks):
            stage = self._stage_of[i]
            kernel, expand = genes[self._kernel0 + i], genes[self._expand0 + i]
            chosen = table.ravel().take((base * table.shape[2] + kernel) * table.shape[3] + expand)
            present = self._slot_needs[i].take(genes[2 + stage])
            ids[i] = np.where(present, chosen, len(ops))
        for i, table in enumerate(fixed):
            ids[len(blocks) + i] = table.ravel().take(base)
        return ids

    def _count(self, population: Population, count: str) -> np.ndarray:
        table, total = op_table(self.ops, count), np.zeros(len(population))
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
        """Peak memory of every subnet in bytes, as ``counts.network_memory`` defines it: ``float64[N]``."""
        table, most = op_table(self.ops, "activations"), np.zeros(len(population))
        for row in self.op_ids(population):
            most = np.maximum(most, table.take(row))
        return VALUE_BYTES[precision] * (self._count(population, "weights") + batch * most)
