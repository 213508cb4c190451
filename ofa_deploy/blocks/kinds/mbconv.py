"""Inverted residual blocks: MobileNetV2's and V3's, and MobileNetV4's universal inverted bottleneck."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.blocks.block import INPUT, Builder
from ofa_deploy.blocks.kinds.kind import Kernel, Kind, SpeltKind, StageKind
from ofa_deploy.errors import UsageError

if TYPE_CHECKING:
    from ofa_deploy.blocks.op_spec import OpSpec


def gate_acts(act: str) -> tuple[str, str]:
    """Activations of a squeeze-excitation, of the squeezed channels and of the gate, in blocks with an activation.

    EfficientNet's blocks have SiLU and a sigmoid there (Tan & Le, ICML 2019, §4), MobileNetV3's ReLU and a hard
    sigmoid (Howard et al., ICCV 2019, §5.3).
    """
    return ("silu", "sigmoid") if act == "silu" else ("relu", "hsigmoid")


class UIB(SpeltKind, StageKind):
    """Universal inverted bottleneck: optional depthwise without activation, 1×1 expansion, optional depthwise,
    squeeze-excitation, 1×1 projection, skip connection (MobileNetV4, Qin et al. 2024, §3).

    With the second depthwise alone it is an inverted bottleneck, with the first alone like ConvNeXt's block, with none
    a feed-forward network, with both ExtraDW. The second has the stride, where it is there.
    """

    name, pairs = "uib", True

    def has_expansion(self, op: OpSpec) -> bool:
        """Whether a block has the 1×1 expansion."""
        return True

    def build(self, b: Builder, op: OpSpec) -> None:
        x = INPUT
        if op.start:
            stride = 1 if op.kernel else op.stride
            x = b.conv_bn(x, "start.", op.cin, op.start, stride, op.cin, elastic=True, identity=True)
        if self.has_expansion(op):
            x = b.conv_bn(x, "expand.", op.mid, act=op.act)
        if op.kernel:
            x = b.conv_bn(x, "depthwise.", op.mid, op.kernel, op.stride, op.mid, op.act, elastic=True)
        if op.se:
            x = b.squeeze_excitation(x, "se", op.mid, op.se, gate_acts(op.act))
        x = b.conv_bn(x, "project.", op.cout)
        if op.skip:
            b.add(x, INPUT, "skip")

    def check(self, op: OpSpec) -> None:
        if not (op.kernel or op.start or op.stride == 1):
            raise UsageError(f"{op.key}: no uib has these kernels; one of stride 2 needs a depthwise")

    def check_stage(self, kernels: tuple[Kernel, ...], expands: tuple[float, ...], stride: int, se: bool) -> None:
        super().check_stage(kernels, expands, stride, se)
        pairs = [kernel for kernel in kernels if isinstance(kernel, tuple)]
        if pairs and (largest := tuple(map(max, zip(*pairs, strict=True)))) not in pairs:
            raise UsageError(f"kernels must have the pair {list(largest)}: the largest subnet has all weights")
        if stride > 1 and not any(map(self.strides, kernels)):
            raise UsageError(f"kernels need a pair besides [0, 0], for the block of stride {stride}")

    def strides(self, kernel: Kernel) -> bool:
        return kernel != (0, 0)


class MBConv(UIB):
    """Inverted residual: 1×1 expansion (absent where ``mid == cin``), depthwise, squeeze-excitation, 1×1 projection,
    skip connection (MobileNetV2, Sandler et al., CVPR 2018, §3; MobileNetV3, §5.3)."""

    name, pairs, gated = "mbconv", False, True

    def has_expansion(self, op: OpSpec) -> bool:
        return op.mid != op.cin

    def check(self, op: OpSpec) -> None:
        Kind.check(self, op)


KINDS = (MBConv(), UIB())
