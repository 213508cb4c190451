"""The modules of a network: one per ``OpSpec`` kind, named so that the state's names are those of ``space.weights``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.space import OpSpec
from ofa_deploy.space.network import CELL_KINDS
from ofa_deploy.supernet.cell_blocks import make_cell_block

_ACTIVATIONS = {
    "relu": F.relu_,
    "relu6": F.relu6,
    "hswish": F.hardswish,
    "silu": F.silu,
    "hsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
}


def activate(x: Tensor, act: str) -> Tensor:
    """Apply an activation by name; may work in place on ``x``, which must be an intermediate result."""
    if act == "none":
        return x
    return _ACTIVATIONS[act](x)


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, activation."""

    def __init__(
        self, cin: int, cout: int, eps: float, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "none"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / stride, w / stride]``."""
        return activate(self.bn(self.conv(x)), self.act)


class Stem(ConvBN):
    """The first convolution."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__(op.cin, op.cout, op.eps, op.kernel, op.stride, act=op.act)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / stride, w / stride]``."""
        return formatted(super().forward(x), x, self.training)


def formatted(y: Tensor, images: Tensor, training: bool) -> Tensor:
    """A stem's output in the memory format that all activations after it have.

    In training that is channels last: depthwise backward is 2 to 6 times faster so on a CPU. Otherwise it is the
    images', or channels last where a single channel leaves it open: so logits equal other implementations' to the bit.
    """
    last = training or images.is_contiguous(memory_format=torch.channels_last)
    return y.contiguous(memory_format=torch.channels_last) if last else y


class SqueezeExcitation(nn.Module):
    """Channel gate: mean, 1×1 reduce, activation, 1×1 expand, sigmoid or hard sigmoid (``OpSpec.gate_acts``)."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(op.mid, op.se, 1)
        self.expand = nn.Conv2d(op.se, op.mid, 1)
        self.inner, self.outer = op.gate_acts

    def forward(self, x: Tensor) -> Tensor:
        """``x`` times its gate."""
        squeezed = activate(self.reduce(x.mean((2, 3), keepdim=True)), self.inner)
        return x * activate(self.expand(squeezed), self.outer)


class MBConv(nn.Module):
    """Inverted residual block, or a universal inverted bottleneck: what the op does not have is None."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.start = ConvBN(op.cin, op.cin, op.eps, op.start, op.start_stride, groups=op.cin) if op.start else None
        self.expand = ConvBN(op.cin, op.mid, op.eps, act=op.act) if op.expands else None
        inner = (op.mid, op.mid, op.eps, op.kernel, op.stride, op.mid, op.act)
        self.depthwise = ConvBN(*inner) if op.kernel else None
        self.se = SqueezeExcitation(op) if op.se else None
        self.project = ConvBN(op.mid, op.cout, op.eps)
        self.skip = op.skip

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / stride, w / stride]``."""
        y = x
        for layer in (self.start, self.expand, self.depthwise, self.se, self.project):
            y = layer(y) if layer is not None else y
        return x + y if self.skip else y


class Head(ConvBN):
    """1×1 convolution, batch norm, activation and global average pooling."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__(op.cin, op.cout, op.eps, act=op.act)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout]``."""
        return super().forward(x).mean((2, 3))


class Classifier(nn.Module):
    """Optional linear layer with activation, then the linear layer to the classes."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.mix = nn.Linear(op.cin, op.mid, bias=False) if op.mid else None
        self.linear = nn.Linear(op.mid or op.cin, op.cout)
        self.act = op.act

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin] -> [N, cout]``."""
        return self.linear(x if self.mix is None else activate(self.mix(x), self.act))


def make_block(op: OpSpec) -> nn.Module:
    """The module that executes an op."""
    if op.kind in CELL_KINDS:
        return make_cell_block(op)
    return {"stem": Stem, "mbconv": MBConv, "uib": MBConv, "head": Head, "classifier": Classifier}[op.kind](op)


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights anew from one seed: He-normal convolutions, a small classifier, identity batch norm.

    The depthwise layers before expansions begin as the identity: subnets with and without one then start from nearly
    the same function, and disturb each other less in the weights that they share.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, Classifier):
            nn.init.normal_(module.linear.weight, 0.0, 0.01, generator=generator)
            if module.mix is not None:
                nn.init.kaiming_normal_(module.mix.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    for block in model.modules():
        if isinstance(block, MBConv) and block.start is not None:
            nn.init.dirac_(block.start.conv.weight, block.start.conv.groups)
