"""A stage of a chain: its blocks, and what can be chosen of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ofa_deploy.blocks.kinds import Kernel, stage_kind
from ofa_deploy.errors import UsageError


@dataclass(frozen=True)
class StageSpec:
    """A run of blocks of equal width; the first one has the stage's stride.

    Attributes:
        width: output channels at width multiplier 1.0.
        widths: choices of that, the largest of which is ``width``; empty where there is no choice.
        stride: of the first block.
        act: activation inside the blocks.
        se: whether blocks have squeeze-excitation.
        key_width: channels of an attention head; 0 for those that the kind of block has by itself.
        heads, key_widths: choices of the number of heads of each block's attention, and of their channels; empty where
            there is no choice.
        squeeze: of which channels it keeps a quarter: the block's ``expanded`` ones (MobileNetV3), or its ``input``
            (EfficientNet).
        depths, kernels, expands: the choices of the stage's block count, and of each block.
        block: kind of the blocks, which says what their kernels and expand ratios mean; see ``blocks.kinds``.
        kinds: choices of that for the whole stage, one of which is ``block``, the largest subnet's; empty where there
            is no choice. Each has weights of its own.

    Raises:
        UsageError: a list of choices is empty, there is no such kind of block, or it cannot have what was chosen.
    """

    width: int
    stride: int
    act: str = "relu"
    se: bool = False
    depths: tuple[int, ...] = (2, 3, 4)
    kernels: tuple[Kernel, ...] = (3, 5, 7)
    expands: tuple[float, ...] = (3, 4, 6)
    block: str = "mbconv"
    squeeze: str = "expanded"
    widths: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    key_width: int = 0
    heads: tuple[int, ...] = ()
    key_widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        not_empty(self, "depths", "kernels", "expands")
        if self.kinds and self.block not in self.kinds:
            raise UsageError(f"block is {self.block}; it must be one of kinds, which are {', '.join(self.kinds)}")
        if self.widths and max(self.widths) != self.width:
            raise UsageError(f"width is {self.width}; it must be the largest of widths, which is {max(self.widths)}")
        kinds = [stage_kind(name) for name in self.all_kinds]
        if (self.key_width or self.heads or self.key_widths) and not any(kind.attends for kind in kinds):
            raise UsageError(f"{self.block} blocks have no attention; remove key_width, heads and key_widths")
        if self.key_widths and (self.key_width or not self.heads):
            raise UsageError("key_widths are choices for given heads: give heads, and no key_width")
        for kind in kinds:
            # an expansion that is another kind's choice means nothing for this one
            expands = self.expands if "expands" in self.meant(kind.name) or not self.kinds else (1.0,)
            if self.heads and "expands" not in kind.meant(heads=True) and expands != (1.0,):
                raise UsageError(f"heads of {kind.name} blocks are instead of an expansion; give expands: [1]")
            kind.check_stage(self.kernels, expands, self.stride, self.se)

    @property
    def all_kinds(self) -> tuple[str, ...]:
        """The kinds that its blocks can have."""
        return self.kinds or (self.block,)

    def meant(self, kind: str) -> tuple[str, ...]:
        """What of a block's choices makes a difference to one of a kind: fields of an arch."""
        if not self.kinds:
            return ("kernels", "expands", "heads", "key_widths")
        return stage_kind(kind).meant(heads=bool(self.heads))

    def of_kind(self, kind: str) -> StageSpec:
        """The same stage with blocks of one kind, and without the choices that mean nothing to it."""
        attends = stage_kind(kind).attends
        attention: dict[str, Any] = {"key_width": self.key_width, "heads": self.heads, "key_widths": self.key_widths}
        kept = attention if attends else {"key_width": 0, "heads": (), "key_widths": ()}
        return replace(self, block=kind, kinds=(kind,), **kept)

    @property
    def attention_choices(self) -> dict[str, tuple[int, ...]]:
        """Choices of heads and their widths; 0 where there is none."""
        return {"heads": self.heads or (0,), "key_widths": self.key_widths or (0,)}

    @property
    def all_widths(self) -> tuple[int, ...]:
        """The widths that it can have."""
        return self.widths or (self.width,)


def not_empty(part: object, *names: str) -> None:
    """Refuse a list of choices without any.

    Raises:
        UsageError: names it.
    """
    for name in names:
        if not getattr(part, name):
            raise UsageError(f"{name} is empty; give at least one value")


def kernel_size(kernel: Kernel) -> Kernel:
    """What kernels are ordered by: the depthwise on the expanded channels costs more."""
    return kernel[::-1] if isinstance(kernel, tuple) else kernel
