"""The two nouns every later part sees: a block as a runtime executes it, and a network made of blocks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ofa_deploy.errors import UsageError

CELL_KINDS = (  # of which the cells of DARTS are made
    "sep_conv",
    "dil_conv",
    "avg_pool",
    "max_pool",
    "relu_conv",
    "fact_reduce",
    "add",
    "concat",
    "global_pool",
)
KINDS = ("stem", "mbconv", "uib", "head", "classifier", *CELL_KINDS, "cell")
INPUT = -1  # as a source: the network's input; a second one is -2
INPUTS = ("input", "input2")  # their names
BLOCKS = ("mbconv", "uib")  # those that stages are made of
VECTORS = ("head", "classifier", "global_pool")  # those whose output has no height and width
NUMBER = "[1-9][0-9]{0,5}"
KEY = re.compile(
    f"(?P<kind>[a-z_]+)-(?P<h>{NUMBER})x(?P<w>{NUMBER})-c(?P<cin>{NUMBER})-m(?P<mid>0|{NUMBER})-o(?P<cout>{NUMBER})"
    f"(-start(?P<start>{NUMBER}))?-k(?P<kernel>0|{NUMBER})-s(?P<stride>{NUMBER})-(?P<act>[a-z0-9]+)(-in(?P<inside>[0-9a-f]{{12}}))?(-se(?P<se>{NUMBER}))?(?P<skip>-skip)?(@{NUMBER})?"
)


@dataclass(frozen=True)
class OpSpec:
    """One fused block: what is measured, and exactly what ships.

    Kinds:
        stem: convolution, batch norm, activation.
        mbconv: inverted residual: 1×1 expansion (absent where ``mid == cin``), depthwise, squeeze-excitation, 1×1
            projection, skip connection (MobileNetV2 §3, MobileNetV3 §5.3).
        uib: universal inverted bottleneck: optional depthwise without activation, 1×1 expansion, optional depthwise,
            1×1 projection, skip connection (MobileNetV4, Qin et al. 2024, §3). With the second depthwise alone it is an
            inverted bottleneck, with the first alone like ConvNeXt's block, with none a feed-forward network, with both
            ExtraDW. The second has the stride, where it is there.
        head: 1×1 convolution, batch norm, activation, global average pooling; ``[N, cin, h, w] -> [N, cout]``.
        classifier: optional linear ``cin -> mid`` with activation (absent where ``mid == 0``), linear to ``cout``.

    Kinds of which cells are made (DARTS, Liu et al., ICLR 2019, §3.1); their activation comes first:
        sep_conv: twice activation, depthwise, 1×1 convolution, batch norm; the first depthwise has the stride.
        dil_conv: activation, depthwise of dilation 2, 1×1 convolution, batch norm.
        avg_pool, max_pool: pooling; padding counts in no mean.
        relu_conv: activation, 1×1 convolution, batch norm.
        fact_reduce: activation, two 1×1 convolutions of stride 2, one of them shifted by a pixel, their channels side
            by side, batch norm.
        add: the sum of two tensors.
        concat: ``cout / cin`` tensors side by side.
        global_pool: global average pooling; ``[N, cin, h, w] -> [N, cin]``.
        cell: a whole cell, as it is measured; it ships as the blocks that it is made of. Its input is the first of its
            two, ``mid`` are the channels of its nodes, and ``inside`` tells its cell and shapes from all others.

    Attributes:
        h, w: input height and width in pixels (1 for a classifier, whose input is a vector).
        cin, mid, cout: channels in, inside and out.
        kernel, stride: of the depthwise (mbconv, uib) or the only convolution; padding is ``kernel // 2``. A uib's
            kernel is that of the depthwise after its expansion, 0 for none.
        act: ``relu``, ``relu6``, ``hswish``, ``silu`` or ``none``.
        se: squeezed channels of the squeeze-excitation, 0 for none.
        skip: whether the input is added to the output.
        start: kernel of the depthwise before a uib's expansion, 0 for none.
        inside: the first digits of the key of what a cell is made of, "" for other kinds.
        eps: what batch norm adds to the variance. It changes no latency, and is no part of ``key``.
    """

    kind: str
    h: int
    w: int
    cin: int
    mid: int
    cout: int
    kernel: int = 1
    stride: int = 1
    act: str = "relu"
    se: int = 0
    skip: bool = False
    start: int = 0
    eps: float = 1e-5
    inside: str = ""

    @cached_property
    def key(self) -> str:
        """A unique name that a person can read: ``mbconv-28x28-c16-m64-o24-k5-s2-hswish-se16-skip``, or
        ``uib-28x28-c16-m64-o24-start3-k0-s2-relu``."""
        channels = f"c{self.cin}-m{self.mid}-o{self.cout}"
        optional = (f"-se{self.se}" if self.se else "") + ("-skip" if self.skip else "")
        start = f"-start{self.start}" if self.start else ""
        act = f"{self.act}-in{self.inside}" if self.inside else self.act
        return f"{self.kind}-{self.h}x{self.w}-{channels}{start}-k{self.kernel}-s{self.stride}-{act}{optional}"

    def key_at(self, resolution: int | None) -> str:
        """The key of its row in a latency table; with a resolution, in one that tells networks' resolutions apart."""
        return self.key if resolution is None else f"{self.key}@{resolution}"

    @property
    def out_hw(self) -> tuple[int, int]:
        """Height and width of the output; (1, 1) after pooling."""
        if self.kind in VECTORS:
            return 1, 1
        return (self.h - 1) // self.stride + 1, (self.w - 1) // self.stride + 1

    @property
    def fan_in(self) -> int:
        """How many tensors it reads, all of ``input_shape``."""
        return {"add": 2, "concat": self.cout // self.cin}.get(self.kind, 1)

    @property
    def expands(self) -> bool:
        """Whether a block of a stage has a 1×1 expansion."""
        return self.kind == "uib" or self.mid != self.cin

    @property
    def gate_acts(self) -> tuple[str, str]:
        """Activations of the squeeze-excitation: of the squeezed channels, and of the gate. EfficientNet's blocks have
        SiLU and a sigmoid there (Tan & Le, ICML 2019, §4), MobileNetV3's ReLU and a hard sigmoid (§5.3)."""
        return ("silu", "sigmoid") if self.act == "silu" else ("relu", "hsigmoid")

    @property
    def start_stride(self) -> int:
        """Stride of the depthwise before the expansion: the block's, where no depthwise follows."""
        return 1 if self.kernel else self.stride

    @property
    def expanded_hw(self) -> tuple[int, int]:
        """Height and width at which the expansion of a block of a stage runs."""
        return (self.h, self.w) if self.kernel else self.out_hw

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch dimension."""
        return (self.cin,) if self.kind == "classifier" else (self.cin, self.h, self.w)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output without the batch dimension."""
        return (self.cout,) if self.kind in VECTORS else (self.cout, *self.out_hw)

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OpSpec:
        """Read what ``to_json`` wrote.

        Raises:
            UsageError: an unknown kind or field, or a block without the depthwise that it needs.
        """
        try:
            op = cls(**data)
        except TypeError as error:
            raise UsageError(f"not an op: {error}") from error
        if op.kind not in KINDS:
            raise UsageError(f"unknown op kind {op.kind!r}; known: {', '.join(KINDS)}")
        if (op.start and op.kind != "uib") or not (op.kernel or (op.kind == "uib" and (op.start or op.stride == 1))):
            raise UsageError(f"{op.key}: no {op.kind} has these kernels; one of stride 2 needs a depthwise")
        return op

    @classmethod
    def from_key(cls, key: str) -> OpSpec:
        """The block that a ``key``, or a ``key_at`` some resolution, stands for.

        Raises:
            UsageError: it is no block's key.
        """
        found = KEY.fullmatch(key)
        if not found:
            raise UsageError(f"{key!r} is not the key of a block")
        numbers = ("h", "w", "cin", "mid", "cout", "kernel", "stride", "se", "start")
        fields = {name: int(found[name] or 0) for name in numbers}
        return cls.from_json(
            {
                "kind": found["kind"],
                "act": found["act"],
                "skip": bool(found["skip"]),
                "inside": found["inside"] or "",
                **fields,
            }
        )


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
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch dimension."""
        return self.ops[0].input_shape

    @cached_property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of every input, ``INPUT`` first, without the batch dimension."""
        read = {s: op.input_shape for op, sources in zip(self.ops, self.sources, strict=True) for s in sources if s < 0}
        return tuple(read[source] for source in sorted(read, reverse=True))

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        """What is measured, and has a row in a latency table: blocks, and whole cells."""
        found, at = [], 0
        for name, first, end in (*self.wholes, ("", len(self.ops), len(self.ops))):
            single = range(at, first)
            found += [Unit(self.names[i], self.ops[i], Network.single(self.ops[i])) for i in single]
            if first < end:
                part = self._part(name, first, end)
                found.append(Unit(name, part._as_one(), part))
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
        network: that alone; a cell's has two inputs, where it reads two tensors.
    """

    name: str
    op: OpSpec
    network: Network


def _sha256(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()
