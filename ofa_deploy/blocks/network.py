"""A network made of blocks, and what of it is measured as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ofa_deploy.blocks.layers import Shape
from ofa_deploy.blocks.op_spec import OpSpec
from ofa_deploy.errors import UsageError

INPUT = -1  # as a source: the network's input; a second one is -2
INPUTS = ("input", "input2")  # their names


@dataclass(frozen=True)
class Network:
    """A directed graph of blocks, each with the name under which its weights are stored.

    Attributes:
        ops: the blocks, in an order in which they can be executed; the last one's output is the network's.
        names: one name per block; a weight of block ``s0b1`` is called ``s0b1.<part>``.
        sources: for every block the places in ``ops`` of those whose outputs it reads, ``INPUT`` for the network's
            input; left out for a chain.

        wholes: runs of blocks that are measured as one: name, place of the first block, place after the last one.

    Raises:
        UsageError: a block reads what is not there yet, has another shape, or is not what it needs in number.
    """

    ops: tuple[OpSpec, ...]
    names: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...] = ()
    wholes: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            object.__setattr__(self, "sources", tuple((i - 1,) for i in range(len(self.ops))))
            return
        for i, (op, name, sources) in enumerate(zip(self.ops, self.names, self.sources, strict=True)):
            if len(sources) != op.fan_in or not all(source < i for source in sources):
                raise UsageError(f"block {name} needs {op.fan_in} sources before it, not {list(sources)}")
            for source in sources:
                if source >= 0 and self.ops[source].output_shape != op.input_shape:
                    raise UsageError(f"block {name} reads {op.input_shape}; {self.names[source]} has another shape")

    @classmethod
    def single(cls, op: OpSpec) -> Network:
        """A network of one block: what a profiler measures for a table row. One that reads several tensors reads the
        network's input several times."""
        return cls((op,), ("op",), ((INPUT,) * op.fan_in,))

    @property
    def input_shape(self) -> Shape:
        """Shape of the input without the batch dimension."""
        return self.ops[0].input_shape

    @cached_property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Of every input, ``INPUT`` first, without the batch dimension."""
        read = {s: op.input_shape for op, sources in zip(self.ops, self.sources, strict=True) for s in sources if s < 0}
        return tuple(read[source] for source in sorted(read, reverse=True))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What is measured, and has a row in a latency table: blocks, and whole cells."""
        found, at = [], 0
        for name, first, end in (*self.wholes, ("", len(self.ops), len(self.ops))):
            single = range(at, first)
            found += [Unit(self.ops[i], name=self.names[i]) for i in single]
            if first < end:
                part = self._part(name, first, end)
                found.append(Unit(part._as_one(), part, name))
            at = end
        return tuple(found)

    @property
    def unit_keys(self) -> list[str]:
        """Keys of the rows that a latency table has for what is measured."""
        return [unit.op.key for unit in self.units] if self.wholes else [op.key for op in self.ops]

    def _part(self, name: str, first: int, end: int) -> Network:
        """A run of blocks alone; what it reads of others are its inputs, in the order in which it reads them."""
        inputs = dict.fromkeys(s for sources in self.sources[first:end] for s in sources if s < first)
        place = {source: -1 - i for i, source in enumerate(inputs)} | {i: i - first for i in range(first, end)}
        sources = tuple(tuple(place[source] for source in read) for read in self.sources[first:end])
        return Network(self.ops[first:end], self.names[first:end], sources, ((name, 0, end - first),))

    def _as_one(self) -> OpSpec:
        """What stands for all of the blocks where they are measured as one."""
        first, last = self.ops[0], self.ops[-1]
        stride = first.h // last.out_hw[0]
        return OpSpec("cell", first.h, first.w, first.cin, last.cin, last.cout, 1, stride, "none", inside=self.key[:12])

    @property
    def is_chain(self) -> bool:
        """Whether every block reads the one before it, and that alone."""
        return self.sources == tuple((i - 1,) for i in range(len(self.ops)))

    @cached_property
    def last_reader(self) -> dict[int, int]:
        """For every block, and ``INPUT``, the place of the last block that reads it: then its memory is free."""
        return {source: i for i, sources in enumerate(self.sources) for source in sources}

    @cached_property
    def key(self) -> str:
        """sha256 of the blocks and of what reads what: equal networks have equal keys, whatever space they come from.

        Neither the names count, nor the order of blocks that do not depend on each other, nor that of the tensors which
        are added or put side by side: it changes no latency.
        """
        if self.is_chain:
            return _sha256([op.key for op in self.ops])
        above = self._digests(self.sources, range(len(self.ops)))
        readers: list[list[int]] = [[] for _ in self.ops]
        for i, sources in enumerate(self.sources):
            for source in sources:
                if source >= 0:
                    readers[source].append(i)
        below = self._digests(readers, reversed(range(len(self.ops))), above)
        return _sha256(sorted(below))

    def _digests(
        self, near: Sequence[Sequence[int]], order: Iterable[int], known: Sequence[str] | None = None
    ) -> list[str]:
        """A digest of every block and of all that is on one side of it, as Merkle trees have it."""
        found = [""] * len(self.ops)
        for i in order:
            around = sorted(found[j] if j >= 0 else INPUTS[-1 - j] for j in near[i])
            found[i] = _sha256([known[i] if known else self.ops[i].key, *around])
        return found


@dataclass(frozen=True)
class Unit:
    """What is measured as one: a block of a network, or a whole cell.

    Attributes:
        op: the block, or what stands for the cell.
        cell: the blocks that a cell is made of, alone; None for a block.
        name: of the block or cell in its network.
    """

    op: OpSpec
    cell: Network | None = None
    name: str = ""

    @property
    def ops(self) -> tuple[OpSpec, ...]:
        """The blocks that it is made of."""
        return self.cell.ops if self.cell else (self.op,)

    @property
    def network(self) -> Network:
        """It alone; a cell's has two inputs, where it reads two tensors."""
        return self.cell or Network.single(self.op)


def _sha256(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
