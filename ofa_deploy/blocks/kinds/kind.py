"""What a kind of block says about itself. Everything else that is known of its blocks follows from their layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ofa_deploy.errors import UsageError

if TYPE_CHECKING:
    from ofa_deploy.blocks.block import Builder
    from ofa_deploy.blocks.op_spec import OpSpec

STEM, STAGE, HEAD, CELL, WHOLE = ROLES = ("stem", "stage", "head", "cell", "whole")

Kernel = int | tuple[int, int]  # a pair is (before, after) the expansion, 0 for none


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round channels to a multiple of ``divisor``, never losing more than 10 % (MobileNetV2's reference rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


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

    def head_axes(self, op: OpSpec) -> dict[str, int]:
        """Weights with an axis of ``heads · key_width`` channels, one head after the other, and which axis it is."""
        return {}

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


class StageKind(Kind):
    """A kind that stages can be made of: what a stage's choices mean for its blocks.

    Attributes:
        pairs: whether kernels are pairs ``(before, after)`` the expansion, 0 for none.
        gated: whether its blocks may have squeeze-excitation.
        expands: whether an expand ratio other than 1 makes a difference.
        multiplies_output: whether an expand ratio multiplies the channels of the output instead of the input's.
        attends: whether it has attention, whose heads have a width.
        projects: whether a block has weights on its shortcut where its input has another shape than its output.
        optional: whether a kernel may be 0, for a convolution that is left out.
    """

    role = STAGE
    optional = False
    pairs = False
    gated = False
    expands = True
    multiplies_output = False
    attends = False
    projects = False

    def expanded(self, cin: int, cout: int) -> int:
        """The channels that an expand ratio multiplies."""
        return cout if self.multiplies_output else cin

    def meant(self, heads: bool) -> tuple[str, ...]:
        """What of a block's choices makes a difference; ``heads``: whether their number is one of them."""
        return ("kernels", "expands") if self.expands else ("kernels",)

    def fields(
        self, cin: int, cout: int, stride: int, kernel: Kernel, expand: float, key_width: int = 0, heads: int = 0
    ) -> dict[str, Any]:
        """The fields of an ``OpSpec`` that follow from a stage's choices; 0 for the heads and the width of one that
        the kind has by itself."""
        before, after = kernel if isinstance(kernel, tuple) else (0, kernel)
        mid = make_divisible(self.expanded(cin, cout) * expand)
        return {"mid": mid, "kernel": after, "start": before, "skip": stride == 1 and cin == cout}

    def check_stage(self, kernels: tuple[Kernel, ...], expands: tuple[float, ...], stride: int, se: bool) -> None:
        """Refuse choices that no stage of this kind has.

        Raises:
            UsageError: says what is wrong, and what to change.
        """
        if any(isinstance(kernel, tuple) is not self.pairs for kernel in kernels):
            form = "pairs [before, after]" if self.pairs else "numbers"
            raise UsageError(f"kernels of {self.name} blocks are {form}, not {_shown(kernels)}")
        if 0 in kernels and not self.optional:
            raise UsageError(f"{self.name} blocks need a kernel; remove 0 from {_shown(kernels)}")
        if se and not self.gated:
            raise UsageError(f"{self.name} blocks have no squeeze-excitation; remove se")
        if not self.expands and expands != (1,):
            raise UsageError(f"{self.name} blocks have no expansion; give expands: [1], not {list(expands)}")
        if min(expands) <= 0:
            raise UsageError(f"expands are {list(expands)}; an expansion ratio is more than 0")

    def strides(self, kernel: Kernel) -> bool:
        """Whether a block with such a kernel can have a stride."""
        return True


def _shown(kernels: tuple[Kernel, ...]) -> list[Any]:
    return [list(kernel) if isinstance(kernel, tuple) else kernel for kernel in kernels]


class SpeltKind(Kind):
    """A kind whose keys hold all of its fields: ``mbconv-28x28-c16-m64-o24-k5-s2-hswish-se16-skip``."""

    def key(self, op: OpSpec) -> str:
        channels = f"c{op.cin}-m{op.mid}-o{op.cout}"
        optional = (f"-se{op.se}" if op.se else "") + ("-skip" if op.skip else "")
        optional += "-same" if op.same and op.block.same else ""
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
