"""ConvNeXt's block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder
from ofa_deploy.blocks.kinds.kind import StageKind

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


class ConvNeXt(StageKind):
    """k×k depthwise convolution, layer norm over channels, 1×1 expansion, activation, 1×1 projection, skip connection
    (Liu et al., CVPR 2022, §2.6), without layer scale. The depthwise convolution strides.

    Its norm is the published one: with batch norm instead, it would be a ``uib`` with kernels ``[k, 0]``.
    """

    name = "convnext"

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv(INPUT, "depthwise", op.cin, op.kernel, op.stride, op.cin, bias=True, elastic=True)
        x = b.conv(b.layer_norm(x, "norm"), "expand", op.mid, bias=True)
        x = b.conv(b.activation(x, "act", op.act), "project", op.cout, bias=True)
        if op.skip:
            b.add(x, INPUT, "skip")


KINDS = (ConvNeXt(),)
