"""The inverted residual block whose expansion and depthwise convolution are one dense convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder
from ofa_deploy.blocks.kinds.kind import StageKind
from ofa_deploy.blocks.kinds.mbconv import gate_acts

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


class FusedMBConv(StageKind):
    """k×k expansion, squeeze-excitation, 1×1 projection, skip connection (EfficientNetV2, Tan & Le, ICML 2021, §3.2).

    It has both convolutions at an expand ratio of 1 too, so that the ratios of a stage share their weights.
    """

    name, gated = "fused_mbconv", True

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv_bn(INPUT, "expand.", op.mid, op.kernel, op.stride, act=op.act, elastic=True)
        if op.se:
            x = b.squeeze_excitation(x, "se", op.mid, op.se, gate_acts(op.act))
        x = b.conv_bn(x, "project.", op.cout)
        if op.skip:
            b.add(x, INPUT, "skip")


KINDS = (FusedMBConv(),)
