"""Networks of repeated cells (DARTS, Liu et al., ICLR 2019, §2.1 and §3): a genotype, and the family that it spans.

A cell reads the outputs of the two cells before it. Each of its nodes is the sum of two operations on earlier tensors,
and its output is all of its nodes side by side. Cells of stride 2, which double the channels, stand at a third and at
two thirds of a network.

A whole cell, with the shapes of its place, is measured as one. Its edges, sums and joins measured alone add up to some
four times of it: what a runtime starts, copies and fuses counts for more than the work in blocks as small.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any

from ofa_deploy.blocks import Network, OpSpec, Unit
from ofa_deploy.blocks.network import INPUT
from ofa_deploy.blocks.network_counts import unit_peaks
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.space.family import ArchLike, Family, Gene, Place
from ofa_deploy.space.genotype import KERNELS, SKIP, Cell, Genotype

STEM = 3  # channels of the stem, as a multiple of the first cells'


@dataclass(frozen=True)
class CellArch:
    """One network of a family.

    Attributes:
        resolution: input height and width in pixels.
        channels: of the first cells' nodes.
        cells: how many cells there are.
    """

    space: str
    resolution: int
    channels: int
    cells: int

    @cached_property
    def key(self) -> str:
        """sha256 of the JSON."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, JSON]:
        """The network as a JSON object."""
        return {name: getattr(self, name) for name in ("space", "resolution", "channels", "cells")}


@dataclass(frozen=True)
class CellSpace:
    """All networks of one genotype: so many cells, so many channels, at some resolution.

    Attributes:
        resolutions: input sizes in pixels, multiples of 4: both reductions halve them.
        channels: choices of the first cells' channels, even numbers.
        cells: choices of the number of cells, at least 3: with fewer none is normal.
        bn_eps: what batch norm adds to variances.
    """

    name: str
    genotype: Genotype
    resolutions: tuple[int, ...]
    channels: tuple[int, ...]
    cells: tuple[int, ...]
    in_channels: int = 3
    num_classes: int = 10
    bn_eps: float = 1e-5

    def __post_init__(self) -> None:
        rules = (("resolutions", 8, 4), ("channels", 2, 2), ("cells", 3, 1))
        for name, least, step in rules:
            values = getattr(self, name)
            if not values or not all(isinstance(v, int) and v >= least and v % step == 0 for v in values):
                multiple = f", multiples of {step}" if step > 1 else ""
                raise UsageError(f"space {self.name}: {name} needs whole numbers from {least} on{multiple}")

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Its three choices. All of them change every cell."""
        return (Gene("resolution", self.resolutions), Gene("channels", self.channels), Gene("cells", self.cells))

    @property
    def places(self) -> tuple[Place, ...]:
        """The stem, the cells, the pooling and the classifier. Where the reductions stand, and so the channels of every
        cell, depends on how many cells there are."""
        return (Place((0, 1)), *[Place((0, 1, 2))] * max(self.cells), Place((0, 1)), Place((0, 1)))

    @property
    def size(self) -> int:
        """How many different networks there are."""
        return prod(len(set(gene.choices)) for gene in self.genes)

    @property
    def largest(self) -> CellArch:
        """The network with every choice at its maximum."""
        return self.arch([max(gene.choices) for gene in self.genes])

    @property
    def smallest(self) -> CellArch:
        """The network with every choice at its minimum."""
        return self.arch([min(gene.choices) for gene in self.genes])

    def values(self, arch: ArchLike) -> list[int]:
        """What a network chose: resolution, channels, cells."""
        known = self.canonical(arch)
        return [known.resolution, known.channels, known.cells]

    def arch(self, values: Sequence[int]) -> CellArch:
        """The network that chose so."""
        return CellArch(self.name, *values)

    def unit_at(self, place: int, values: Mapping[int, int]) -> Unit | None:
        """The block or cell at a place; None for a cell that the network does not have."""
        network, at = self._at(place, values)
        return None if at is None else network.units[at]

    def peak_at(self, place: int, values: Mapping[int, int]) -> int:
        """Values in memory at once while that runs, with the tensors that later cells read."""
        network, at = self._at(place, values)
        return 0 if at is None else unit_peaks(network)[at]

    def _at(self, place: int, values: Mapping[int, int]) -> tuple[Network, int | None]:
        """A network that chose so, and which of its units stands at a place."""
        cells, most = values.get(2, min(self.cells)), max(self.cells)
        network = _built(self, self.arch([values[0], values[1], cells]))
        if place > most:
            return network, place - most + cells
        return network, place if place <= cells else None

    def alike(self, other: Family) -> bool:
        """Whether another family has the same cells and sizes under the same name."""
        return isinstance(other, CellSpace) and replace(other, resolutions=self.resolutions) == self

    def with_resolutions(self, resolutions: tuple[int, ...]) -> CellSpace:
        """The same family at other input sizes."""
        return replace(self, resolutions=tuple(sorted(set(resolutions))))

    def canonical(self, arch: ArchLike) -> CellArch:
        """Check a network against this family.

        Raises:
            UsageError: names the first field that does not belong to it.
        """
        data: dict[str, Any] = dict(arch if isinstance(arch, Mapping) else arch.to_json())
        fields = {"resolution": self.resolutions, "channels": self.channels, "cells": self.cells}
        if set(data) != {"space", *fields}:
            raise UsageError(f"arch of {self.name}: its keys are space, {', '.join(fields)}, not {sorted(data)}")
        if data["space"] != self.name:
            raise UsageError(f"the arch belongs to space {data['space']!r}, not to {self.name!r}")
        for name, choices in fields.items():
            if data[name] not in choices:
                raise UsageError(f"arch of {self.name}: {name} is {data[name]!r}; the space has {list(choices)}")
        return CellArch(**data)

    def network(self, arch: ArchLike) -> Network:
        """The graph of blocks that one of its networks is."""
        return _built(self, self.canonical(arch))

    def to_json(self) -> dict[str, JSON]:
        """The family as a JSON object; ``from_json`` reads it back."""
        return json.loads(json.dumps({**vars(self), "genotype": self.genotype.to_json()}))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CellSpace:
        """Read what ``to_json`` wrote.

        Raises:
            UsageError: a key is unknown or missing, or has a wrong value.
        """
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        try:
            return cls(**{**fields, "genotype": Genotype.of(data["genotype"])})
        except (KeyError, TypeError) as error:
            raise UsageError(f"not a family of cell networks: {error}") from error


@lru_cache(maxsize=1024)  # a population asks for every size, place by place
def _built(space: CellSpace, arch: CellArch) -> Network:
    """The graph of blocks that one of its networks is."""
    made = _Builder(space.bn_eps)
    side, channels = arch.resolution, arch.channels
    stem = made.add("stem", OpSpec("stem", side, side, space.in_channels, 0, STEM * channels, 3, 1, "none"), INPUT)
    before, last, reduced = stem, stem, False
    for i in range(arch.cells):
        reduces = i in reductions(arch.cells)
        channels *= 2 if reduces else 1
        cell = space.genotype.reduce if reduces else space.genotype.normal
        before, last = last, made.cell(i, cell, channels, before, last, reduced, 2 if reduces else 1)
        reduced = reduces
    width, h, w = made.ops[last].output_shape
    pooled = made.add("pool", OpSpec("global_pool", h, w, width, 0, width, act="none"), last)
    made.add("classifier", OpSpec("classifier", 1, 1, width, 0, space.num_classes, act="none"), pooled)
    return made.network()


def reductions(cells: int) -> tuple[int, int]:
    """Which cells of a network with this number of cells have stride 2."""
    return cells // 3, 2 * cells // 3


@dataclass
class _Builder:
    """A network in the making."""

    eps: float
    ops: list[OpSpec] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sources: list[tuple[int, ...]] = field(default_factory=list)
    wholes: list[tuple[str, int, int]] = field(default_factory=list)

    def add(self, name: str, op: OpSpec, *sources: int) -> int:
        """Append a block; returns its place."""
        self.ops.append(OpSpec(**{**op.to_json(), "eps": self.eps}))
        self.names.append(name)
        self.sources.append(sources)
        return len(self.ops) - 1

    def cell(self, place: int, cell: Cell, channels: int, before: int, last: int, reduced: bool, stride: int) -> int:
        """Append a cell that reads two places; returns its output's."""
        name, start = f"c{place}", len(self.ops)
        first = self.through(f"{name}_pre0", "fact_reduce" if reduced else "relu_conv", channels, before)
        tensors = [first, self.through(f"{name}_pre1", "relu_conv", channels, last)]
        for i, node in enumerate(cell):
            ends = [
                self.edge(f"{name}_n{i}e{j}", operation, channels, tensors[source], stride if source < 2 else 1)
                for j, (operation, source) in enumerate(node)
            ]
            _, h, w = self.ops[ends[0]].output_shape
            tensors.append(self.add(f"{name}_n{i}", OpSpec("add", h, w, channels, 0, channels, act="none"), *ends))
        joined = OpSpec("concat", h, w, channels, 0, channels * len(cell), act="none")
        out = self.add(output_of(place), joined, *tensors[2:])
        self.wholes.append((name, start, out + 1))
        return out

    def through(self, name: str, kind: str, channels: int, source: int) -> int:
        """Append a ``relu_conv`` or ``fact_reduce``."""
        width, h, w = self.ops[source].output_shape
        return self.add(name, OpSpec(kind, h, w, width, 0, channels, 1, 2 if kind == "fact_reduce" else 1), source)

    def edge(self, name: str, operation: str, channels: int, source: int, stride: int) -> int:
        """Append an edge's operation; a skip of stride 1 is its source itself."""
        if operation == SKIP:
            return source if stride == 1 else self.through(name, "fact_reduce", channels, source)
        kind, kernel = KERNELS[operation]
        _, h, w = self.ops[source].output_shape
        act = "none" if kind.endswith("pool") else "relu"
        return self.add(name, OpSpec(kind, h, w, channels, 0, channels, kernel, stride, act), source)

    def network(self) -> Network:
        """What was made."""
        return Network(tuple(self.ops), tuple(self.names), tuple(self.sources), tuple(self.wholes))


def is_edge(name: str) -> bool:
    """Whether a block of a cell network, by its name, is the operation of an edge."""
    return re.fullmatch(r"c\d+_n\d+e\d+", name) is not None


def output_of(cell: int) -> str:
    """Name of the block that is a cell's output."""
    return f"c{cell}_out"
