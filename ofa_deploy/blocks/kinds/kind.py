"""What a kind of block says about itself. Everything else that is known of its blocks follows from their layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ofa_deploy.errors import UsageError

if TYPE_CHECKING:
    from ofa_deploy.blocks.block import Builder
    from ofa_deploy.blocks.spec import OpSpec

STEM, STAGE, HEAD, CELL, WHOLE = ROLES = ("stem", "stage", "head", "cell", "whole")


class Kind(ABC):
    """A kind of block: from the fields of an ``OpSpec`` to layers.

    Attributes:
        name: the ``kind`` of its specs, and how their keys begin.
        role: where its blocks stand: ``STEM`` before the stages, ``STAGE`` in them, ``HEAD`` after them, ``CELL`` in a
            cell; ``WHOLE`` of what stands for a network of blocks.
        takes_vector: whether it reads a vector, and no image.
    """

    name: str
    role: str
    takes_vector = False

    @abstractmethod
    def build(self, b: Builder, op: OpSpec) -> None:
        """Append the layers of a block; the last one's output is the block's."""

    def fan_in(self, op: OpSpec) -> int:
        """How many tensors a block reads, all of one shape."""
        return 1

    def check(self, op: OpSpec) -> None:
        """Refuse fields that no block of this kind has.

        Raises:
            UsageError: names the block and what is wrong.
        """
        if op.start or not op.kernel:
            raise UsageError(f"{op.key}: no {self.name} has these kernels; it needs one, and none before it")

    def key(self, op: OpSpec) -> str:
        """A unique name that a person can read. New kinds end in the digest of their layers; those whose fields tell
        everything spell them out (``spelt``)."""
        return f"{op.kind}-{op.h}x{op.w}-c{op.cin}-o{op.cout}-in{op.block.digest[:12]}"


class SpeltKind(Kind):
    """A kind whose keys hold all of its fields: ``mbconv-28x28-c16-m64-o24-k5-s2-hswish-se16-skip``."""

    def key(self, op: OpSpec) -> str:
        channels = f"c{op.cin}-m{op.mid}-o{op.cout}"
        optional = (f"-se{op.se}" if op.se else "") + ("-skip" if op.skip else "")
        start = f"-start{op.start}" if op.start else ""
        act = f"{op.act}-in{op.inside}" if op.inside else op.act
        return f"{op.kind}-{op.h}x{op.w}-{channels}{start}-k{op.kernel}-s{op.stride}-{act}{optional}"


def by_name(kinds: Iterable[Kind]) -> dict[str, Kind]:
    """Kinds by their names.

    Raises:
        ValueError: two kinds have one name.
    """
    found: dict[str, Kind] = {}
    for kind in kinds:
        if kind.name in found:
            raise ValueError(f"two kinds of blocks are called {kind.name!r}")
        found[kind.name] = kind
    return found
