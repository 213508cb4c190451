"""Dense convolutions: plain ones, and the blocks of residual networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder, Value
from ofa_deploy.blocks.kinds.kind import StageKind

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


class Convolution(StageKind):
    """k×k convolution, batch norm, activation. It has no expansion and no shortcut."""

    name, expands = "conv", False

    def build(self, b: Builder, op: OpSpec) -> None:
        b.conv_bn(INPUT, "project.", op.cout, op.kernel, op.stride, act=op.act, elastic=True)


class Basic(StageKind):
    """Two k×k convolutions beside a shortcut, activation after the sum (ResNet, He et al., CVPR 2016, §3.3).

    The expand ratio multiplies the output channels and gives those between the two; 1 is ResNet's. The shortcut is the
    identity, or a 1×1 convolution with batch norm where shapes differ.
    """

    name, projects, multiplies_output = "basic", True, True

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv_bn(INPUT, "first.", op.mid, op.kernel, op.stride, act=op.act, elastic=True)
        x = b.conv_bn(x, "project.", op.cout, op.kernel, elastic=True)
        beside = INPUT if op.skip else b.conv_bn(INPUT, "shortcut.", op.cout, 1, op.stride)
        b.activation(b.add(x, beside, "sum"), "act", op.act)


class Bottleneck(StageKind):
    """1×1, k×k and 1×1 convolution beside a shortcut, activation after the sum (ResNet, §4.1); the k×k one strides.

    The expand ratio multiplies the output channels and gives those inside; 0.25 is ResNet's. The shortcut is the
    identity, or where shapes differ a 1×1 convolution with batch norm, behind an average of 2×2 where it strides
    (ResNet-D, He et al., CVPR 2019, §4.2).
    """

    name, projects, multiplies_output = "bottleneck", True, True

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv_bn(INPUT, "reduce.", op.mid, act=op.act)
        x = b.conv_bn(x, "middle.", op.mid, op.kernel, op.stride, act=op.act, elastic=True)
        x = b.conv_bn(x, "project.", op.cout)
        b.activation(b.add(x, self._shortcut(b, op), "sum"), "act", op.act)

    def _shortcut(self, b: Builder, op: OpSpec) -> Value:
        if op.skip:
            return INPUT
        x = b.pool(INPUT, "avg", 2, op.stride, "shortcut.pool") if op.stride > 1 else INPUT
        return b.conv_bn(x, "shortcut.", op.cout)


KINDS = (Convolution(), Basic(), Bottleneck())
