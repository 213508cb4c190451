"""What comes before a network's stages, and after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder
from ofa_deploy.blocks.kinds.kind import HEAD, STEM, SpeltKind

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


class Stem(SpeltKind):
    """The convolution that reads the images, batch norm, activation."""

    name, role = "stem", STEM

    def build(self, b: Builder, op: OpSpec) -> None:
        b.layout(b.conv_bn(INPUT, "", op.cout, op.kernel, op.stride, act=op.act), INPUT)


class Head(SpeltKind):
    """1×1 convolution, batch norm, activation, global average pooling: ``[N, cin, h, w] -> [N, cout]``."""

    name, role = "head", HEAD

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv_bn(INPUT, "", op.cout, act=op.act)
        b.flatten(b.global_pool(x, "pool"), "flatten")


class Classifier(SpeltKind):
    """Optional linear layer ``cin -> mid`` with activation (absent where ``mid == 0``), linear layer to ``cout``."""

    name, role = "classifier", HEAD
    takes_vector = True

    def build(self, b: Builder, op: OpSpec) -> None:
        x = INPUT
        if op.mid:
            x = b.activation(b.linear(x, "mix", op.mid, bias=False), "act", op.act)
        b.linear(x, "linear", op.cout, small=True)


KINDS = (Stem(), Head(), Classifier())
