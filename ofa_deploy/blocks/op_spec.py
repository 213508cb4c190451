"""A block as its fields: what is measured, and exactly what ships."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

from ofa_deploy.blocks.block import Block, Builder
from ofa_deploy.blocks.kinds import CELL, KINDS, Kind, StageKind
from ofa_deploy.blocks.layers import Shape
from ofa_deploy.errors import UsageError

BLOCKS = tuple(name for name, kind in KINDS.items() if isinstance(kind, StageKind))  # those that stages are made of
CELL_KINDS = tuple(name for name, kind in KINDS.items() if kind.role == CELL)  # of which the cells of DARTS are made
RARE = ("same", "heads", "key_width")  # not written at their defaults, as in records of before there were any
NUMBER = "[1-9][0-9]{0,5}"
LARGEST = 10**6  # from which on a number is none of a block
POSITIVE = ("h", "w", "cin", "cout", "stride")  # whatever the kind
KEY = re.compile(
    f"(?P<kind>[a-z_]+)-(?P<h>{NUMBER})x(?P<w>{NUMBER})-c(?P<cin>{NUMBER})-m(?P<mid>0|{NUMBER})-o(?P<cout>{NUMBER})"
    f"(-start(?P<start>{NUMBER}))?-k(?P<kernel>0|{NUMBER})-s(?P<stride>{NUMBER})-(?P<act>[a-z0-9]+)(-in(?P<inside>[0-9a-f]{{12}}))?(-se(?P<se>{NUMBER}))?(?P<skip>-skip)?(?P<same>-same)?(@{NUMBER})?"
)


@dataclass(frozen=True)
class OpSpec:
    """One fused block. What its kind makes of these fields is in ``blocks.kinds``.

    Attributes:
        kind: name of its kind.
        h, w: input height and width in pixels (1 for a classifier, whose input is a vector).
        cin, mid, cout: channels in, inside and out.
        kernel, stride: of its convolution, or of the depthwise after a uib's expansion (0 for none).
        act: ``relu``, ``relu6``, ``hswish``, ``silu``, ``gelu`` or ``none``.
        se: squeezed channels of the squeeze-excitation, 0 for none.
        skip: whether the input is added to the output.
        start: kernel of the depthwise before a uib's expansion, 0 for none.
        inside: the first digits of the key of what a cell is made of, "" for other kinds.
        same: whether convolutions are padded as TensorFlow's ``SAME`` is, instead of by half of their kernels on every
            side. ``key`` says so where it makes a difference: where a side is even and the stride 2.
        heads, key_width: of attention, the number of heads and the channels of each; 0 for other kinds.
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
    same: bool = False
    heads: int = 0
    key_width: int = 0

    @property
    def definition(self) -> Kind:
        """What is said of its kind.

        Raises:
            UsageError: there is no such kind.
        """
        if self.kind not in KINDS:
            raise UsageError(f"unknown op kind {self.kind!r}; known: {', '.join(KINDS)}")
        return KINDS[self.kind]

    @cached_property
    def block(self) -> Block:
        """Its layers."""
        return _built(self)

    @cached_property
    def key(self) -> str:
        """A unique name, the same for all blocks of equal latency: ``mbconv-28x28-c16-m64-o24-k5-s2-hswish-se16-skip``,
        or ``uib-28x28-c16-m64-o24-start3-k0-s2-relu``."""
        return self.definition.key(self)

    def key_at(self, resolution: int | None) -> str:
        """The key of its row in a latency table; with a resolution, in one that tells networks' resolutions apart."""
        return self.key if resolution is None else f"{self.key}@{resolution}"

    @property
    def fan_in(self) -> int:
        """How many tensors it reads, all of ``input_shape``."""
        return self.definition.fan_in(self)

    @property
    def input_shape(self) -> Shape:
        """Shape of the input without the batch dimension."""
        return (self.cin,) if self.definition.takes_vector else (self.cin, self.h, self.w)

    @cached_property
    def output_shape(self) -> Shape:
        """Shape of the output without the batch dimension."""
        return self.block.output

    @property
    def out_hw(self) -> tuple[int, int]:
        """Height and width of the output; (1, 1) of a vector."""
        _, *sides = *self.output_shape, 1, 1
        return sides[0], sides[1]

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object; those that only some blocks have are left out at their defaults."""
        known = {name: getattr(self, name) for name in TYPES}
        return {name: value for name, value in known.items() if value or name not in RARE}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OpSpec:
        """Read what ``to_json`` wrote.

        Raises:
            UsageError: an unknown kind or field, or a block that its kind does not have.
        """
        try:
            op = cls(**data)
        except TypeError as error:
            raise UsageError(f"not an op: {error}") from error
        for name, (type_, least) in TYPES.items():
            value = getattr(op, name)
            found = type(value)
            if found is not type_ or (found is int and not least <= value < LARGEST):
                raise UsageError(f"not an op: {name} is {value!r}")
        op.definition.check(op)
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
                "same": bool(found["same"]),
                "inside": found["inside"] or "",
                **fields,
            }
        )


# Of every field its type, and the least value of a number: what comes from files and other machines is checked.
_BY_NAME = {"str": str, "int": int, "bool": bool, "float": float}
TYPES = {one.name: (_BY_NAME[str(one.type)], int(one.name in POSITIVE)) for one in fields(OpSpec)}


@lru_cache(maxsize=65536)  # a space has some thousand blocks, and each is asked for its shapes again and again
def _built(op: OpSpec) -> Block:
    builder = Builder(op.eps, op.same)
    op.definition.build(builder, op)
    return builder.block((op.input_shape,) * op.fan_in)
