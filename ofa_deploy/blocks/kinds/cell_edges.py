"""The blocks of which cells are made (DARTS, Liu et al., ICLR 2019, §3.1). Their activation comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder, Value
from ofa_deploy.blocks.kinds.kind import CELL, WHOLE, SpeltKind

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


class _Separable(SpeltKind):
    """Activation, depthwise, 1×1 convolution, batch norm, once or twice; the first depthwise has the stride.

    Attributes:
        parts: prefix of the weights of each.
    """

    role = CELL
    dilation = 1
    parts: tuple[str, ...] = ("first",)

    def build(self, b: Builder, op: OpSpec) -> None:
        x, channels, stride = INPUT, op.cin, op.stride
        for part in self.parts:
            x = b.activation(x, f"{part}.act", op.act)
            x = b.conv(x, f"{part}.depthwise", channels, op.kernel, stride, channels, self.dilation)
            x = b.conv_bn(x, f"{part}.", op.cout)
            channels, stride = op.cout, 1


class SepConv(_Separable):
    """Two separable convolutions."""

    name, parts = "sep_conv", ("first", "second")


class DilConv(_Separable):
    """One separable convolution of dilation 2."""

    name, dilation = "dil_conv", 2


class ReluConv(SpeltKind):
    """Activation, 1×1 convolution, batch norm."""

    name, role = "relu_conv", CELL

    def build(self, b: Builder, op: OpSpec) -> None:
        b.conv_bn(b.activation(INPUT, "act", op.act), "", op.cout)


class FactorizedReduction(SpeltKind):
    """Activation, two 1×1 convolutions of stride 2, one of them shifted by a pixel, their channels side by side, batch
    norm. Height and width must be even."""

    name, role = "fact_reduce", CELL

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.activation(INPUT, "act", op.act)
        half = op.cout // 2
        shifted = b.shift(x, "shift")
        even = b.conv(x, "even", half, stride=2)
        odd = b.conv(shifted, "odd", op.cout - half, stride=2)
        b.batch_norm(b.concat((even, odd)), "bn")


class _Pool(SpeltKind):
    """Average or maximum pooling."""

    role = CELL
    how: str

    def build(self, b: Builder, op: OpSpec) -> None:
        b.pool(INPUT, self.how, op.kernel, op.stride)


class AveragePool(_Pool):
    """Average pooling; padding counts in no mean."""

    name, how = "avg_pool", "avg"


class MaximumPool(_Pool):
    """Maximum pooling."""

    name, how = "max_pool", "max"


class Sum(SpeltKind):
    """The sum of two tensors."""

    name, role = "add", CELL

    def fan_in(self, op: OpSpec) -> int:
        return 2

    def build(self, b: Builder, op: OpSpec) -> None:
        b.add(INPUT, Value(INPUT - 1))


class Join(SpeltKind):
    """``cout / cin`` tensors side by side."""

    name, role = "concat", CELL

    def fan_in(self, op: OpSpec) -> int:
        return op.cout // op.cin

    def build(self, b: Builder, op: OpSpec) -> None:
        b.concat(tuple(Value(INPUT - i) for i in range(self.fan_in(op))))


class MeanOfAll(SpeltKind):
    """Global average pooling: ``[N, cin, h, w] -> [N, cin]``."""

    name, role = "global_pool", CELL

    def build(self, b: Builder, op: OpSpec) -> None:
        b.flatten(b.global_pool(INPUT, "pool"), "flatten")


class WholeCell(SpeltKind):
    """What stands for a whole cell, which is measured as one and ships as the blocks that it is made of.

    Its input is the first of its two, ``mid`` are the channels of its nodes, and ``inside`` tells its cell and shapes
    from all others.
    """

    name, role = "cell", WHOLE

    def build(self, b: Builder, op: OpSpec) -> None:
        raise ValueError(f"{op.key} stands for a network of blocks; it has no layers of its own")


KINDS = (
    SepConv(),
    DilConv(),
    AveragePool(),
    MaximumPool(),
    ReluConv(),
    FactorizedReduction(),
    Sum(),
    Join(),
    MeanOfAll(),
    WholeCell(),
)
