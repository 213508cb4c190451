"""ShuffleNetV2's block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ofa_deploy.blocks.block import INPUT, Builder, Value
from ofa_deploy.blocks.kinds.kind import Kernel, StageKind
from ofa_deploy.errors import UsageError

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


class Shuffle(StageKind):
    """Half of the channels pass as they are beside a 1×1, a depthwise k×k and a 1×1 convolution of the other half; then
    the channels of both halves alternate (ShuffleNetV2, Ma et al., ECCV 2018, §3.2).

    Where the block strides or changes the width, both halves read all channels, and a depthwise and a 1×1 convolution
    make the first one.
    """

    name, expands, projects = "shuffle", False, True

    def fields(
        self, cin: int, cout: int, stride: int, kernel: Kernel, expand: float, key_width: int = 0, heads: int = 0
    ) -> dict[str, Any]:
        return super().fields(cin, cout, stride, kernel, expand, key_width) | {"mid": cout // 2}

    def check(self, op: OpSpec) -> None:
        super().check(op)
        if op.cout % 2 or op.mid != op.cout // 2:
            raise UsageError(f"{op.kind} needs an even number of channels out, and half of it inside")

    def build(self, b: Builder, op: OpSpec) -> None:
        half = op.mid
        if op.skip:
            one, other = b.slice(INPUT, "first", 0, half), b.slice(INPUT, "second", half, op.cout)
        else:
            one, other = self._beside(b, op), INPUT
        x = b.conv_bn(other, "reduce.", half, act=op.act)
        x = b.conv_bn(x, "depthwise.", half, op.kernel, op.stride, half, elastic=True)
        x = b.conv_bn(x, "project.", half, act=op.act)
        self._alternating(b, op, b.concat((one, x), "joined"))

    def _beside(self, b: Builder, op: OpSpec) -> Value:
        x = b.conv_bn(INPUT, "beside.depthwise.", op.cin, op.kernel, op.stride, op.cin, elastic=True)
        return b.conv_bn(x, "beside.project.", op.mid, act=op.act)

    def _alternating(self, b: Builder, op: OpSpec, x: Value) -> None:
        """Channel i of the first half before channel i of the second one."""
        h, w = ((side - 1) // op.stride + 1 for side in (op.h, op.w))
        x = b.permute(b.reshape(x, (2, op.mid, h, w), "halves"), (1, 0, 2, 3), "alternating")
        b.reshape(x, (op.cout, h, w), "shuffled")


KINDS = (Shuffle(),)
