"""The modules of which cells are made (DARTS, Liu et al., ICLR 2019, §3.1), named as ``space.weights`` has it.

A cell's tensors have several readers, so no activation works in place on an input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.space import OpSpec


class ReluConv(nn.Module):
    """ReLU, 1×1 convolution, batch norm."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(op.cin, op.cout, 1, bias=False)
        self.bn = nn.BatchNorm2d(op.cout, eps=op.eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h, w]``."""
        return self.bn(self.conv(F.relu(x)))


class Separable(nn.Module):
    """ReLU, depthwise convolution, 1×1 convolution, batch norm."""

    def __init__(self, op: OpSpec, cin: int, stride: int, dilation: int) -> None:
        super().__init__()
        padding = dilation * (op.kernel // 2)
        self.depthwise = nn.Conv2d(cin, cin, op.kernel, stride, padding, dilation, groups=cin, bias=False)
        self.conv = nn.Conv2d(cin, op.cout, 1, bias=False)
        self.bn = nn.BatchNorm2d(op.cout, eps=op.eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / stride, w / stride]``."""
        return self.bn(self.conv(self.depthwise(F.relu(x))))


class SepConv(nn.Module):
    """Two separable convolutions; the first has the stride."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.first = Separable(op, op.cin, op.stride, 1)
        self.second = Separable(op, op.cout, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / stride, w / stride]``."""
        return self.second(self.first(x))


class DilConv(nn.Module):
    """One separable convolution of dilation 2."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.first = Separable(op, op.cin, op.stride, 2)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / stride, w / stride]``."""
        return self.first(x)


class FactReduce(nn.Module):
    """ReLU and two 1×1 convolutions of stride 2 which between them read pixels of even and of odd places; batch norm.
    Height and width must be even."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        half = op.cout // 2
        self.even = nn.Conv2d(op.cin, half, 1, 2, bias=False)
        self.odd = nn.Conv2d(op.cin, op.cout - half, 1, 2, bias=False)
        self.bn = nn.BatchNorm2d(op.cout, eps=op.eps)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, cin, h, w] -> [N, cout, h / 2, w / 2]``."""
        x = F.relu(x)
        return self.bn(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1))


class Pool(nn.Module):
    """Average or maximum pooling."""

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.op = op

    def forward(self, x: Tensor) -> Tensor:
        """``[N, c, h, w] -> [N, c, h / stride, w / stride]``."""
        window = (self.op.kernel, self.op.stride, self.op.kernel // 2)
        if self.op.kind == "max_pool":
            return F.max_pool2d(x, *window)
        return F.avg_pool2d(x, *window, count_include_pad=False)


class Add(nn.Module):
    """The sum of two tensors."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two tensors of one shape to their sum."""
        return one + other


class Concat(nn.Module):
    """Tensors with their channels side by side."""

    def forward(self, *parts: Tensor) -> Tensor:
        """``n`` tensors ``[N, c, h, w] -> [N, n · c, h, w]``."""
        return torch.cat(parts, 1)


class GlobalPool(nn.Module):
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, c, h, w] -> [N, c]``."""
        return x.mean((2, 3))


_MAKERS: dict[str, Callable[[OpSpec], nn.Module]] = {
    "sep_conv": SepConv,
    "dil_conv": DilConv,
    "avg_pool": Pool,
    "max_pool": Pool,
    "relu_conv": ReluConv,
    "fact_reduce": FactReduce,
    "add": lambda op: Add(),
    "concat": lambda op: Concat(),
    "global_pool": lambda op: GlobalPool(),
}


def make_cell_block(op: OpSpec) -> nn.Module:
    """The module that executes an op of one of the ``CELL_KINDS``."""
    return _MAKERS[op.kind](op)
