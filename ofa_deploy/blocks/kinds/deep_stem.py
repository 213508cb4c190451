"""Beginnings that leave a quarter of an image's side, as stages, so that a search can choose what they are like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder
from ofa_deploy.blocks.kinds.kind import Kernel, StageKind
from ofa_deploy.errors import UsageError

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec

STRIDE = 4  # two of the first convolution, two of the pooling


class DeepStem(StageKind):
    """3×3 convolution of stride 2, optional 3×3 convolution with a skip connection, 3×3 convolution, maximum pooling of
    stride 2 (ResNet-D, He et al., CVPR 2019, §4.2; with the optional one in once-for-all's ResNet-50).

    The expand ratio multiplies the images' channels and gives those of the first convolutions: 8 times 3 are 24. The
    kernel is the optional convolution's, 0 for none.
    """

    name, optional = "deep_stem", True

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv_bn(INPUT, "first.", op.mid, 3, 2, act=op.act)
        if op.kernel:
            x = b.add(b.conv_bn(x, "optional.", op.mid, op.kernel, act=op.act), x, "skip")
        x = b.conv_bn(x, "last.", op.cout, 3, act=op.act)
        b.layout(b.pool(x, "max", 3, 2, "pool"), INPUT)

    def check(self, op: OpSpec) -> None:
        if op.start or op.kernel not in (0, 3) or op.stride != STRIDE:
            raise UsageError(f"{op.key}: a deep_stem has the stride {STRIDE} and the kernel 3, or 0 for none")

    def check_stage(self, kernels: tuple[Kernel, ...], expands: tuple[float, ...], stride: int, se: bool) -> None:
        super().check_stage(kernels, expands, stride, se)
        if stride != STRIDE or not set(kernels) <= {0, 3}:
            raise UsageError(f"deep_stem blocks have the stride {STRIDE}, and kernels 3, or 0 for none")


class PooledStem(StageKind):
    """k×k convolution of stride 2, batch norm, activation, maximum pooling of stride 2 (ResNet, He et al., CVPR 2016,
    §3.3; with a kernel of 3 ShuffleNetV2, Ma et al., ECCV 2018, table 5)."""

    name, expands = "pooled_stem", False

    def build(self, b: Builder, op: OpSpec) -> None:
        x = b.conv_bn(INPUT, "", op.cout, op.kernel, 2, act=op.act)
        b.layout(b.pool(x, "max", 3, 2, "pool"), INPUT)

    def check(self, op: OpSpec) -> None:
        super().check(op)
        if op.stride != STRIDE:
            raise UsageError(f"{op.key}: a pooled_stem has the stride {STRIDE}")

    def check_stage(self, kernels: tuple[Kernel, ...], expands: tuple[float, ...], stride: int, se: bool) -> None:
        super().check_stage(kernels, expands, stride, se)
        if stride != STRIDE:
            raise UsageError(f"pooled_stem blocks have the stride {STRIDE}; set stride: {STRIDE}")


KINDS = (DeepStem(), PooledStem())
