"""Depthwise convolution whose gradients are convolutions too: on a CPU, where most of a training step's time went.

oneDNN, which torch calls there, has fast code for a depthwise convolution, but for its gradients by kernels of 5×5 and
7×7 only slow code: 5 to 30 times slower than the convolution itself. Both gradients can be had from the fast one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

WORTH_A_CALL = 40_000  # values of an image; with fewer, starting and joining threads for each costs more than it saves


def depthwise_conv(x: Tensor, kernel: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    """Convolve every channel with a kernel of its own, zero-padded by half of the (odd) kernel.

    Args:
        x: ``[N, C, h, w]``.
        kernel: ``[C, 1, k, k]``.
        bias: ``[C]``.

    Returns:
        ``[N, C, ⌈h / stride⌉, ⌈w / stride⌉]``.
    """
    learning = torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad)
    if learning and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return _DepthwiseConv.apply(x, kernel, stride, bias)
    return _convolve(x, kernel, stride, bias)


def _convolve(x: Tensor, kernel: Tensor, stride: int, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2, groups=len(kernel))


class _Context(Protocol):
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    stride: int

    def save_for_backward(self, *tensors: Tensor) -> None: ...


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, kernel: Tensor, stride: int, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.stride = stride
        return _convolve(x, kernel, stride, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        of_x = _image_gradient(grad, x, kernel, ctx.stride) if ctx.needs_input_grad[0] else None
        of_kernel = _kernel_gradient(grad, x, kernel, ctx.stride) if ctx.needs_input_grad[1] else None
        of_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
        return of_x, of_kernel, None, of_bias


def _image_gradient(grad: Tensor, x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Without a stride the convolution with the kernel turned by 180°: 1.3 to 2 times as fast as oneDNN's gradient."""
    if stride == 1:
        return _convolve(grad, kernel.flip(2, 3), 1)
    return _onednn(grad, x, kernel, stride, 0)


def _kernel_gradient(grad: Tensor, x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Every image convolved with its own gradient as the kernel, ``stride`` apart, at as many places as the kernel has
    values. For 3×3 kernels oneDNN's own is fast, and small images are not worth a call each."""
    side = kernel.shape[-1]
    if side == 3 or x[0].numel() < WORTH_A_CALL:
        return _onednn(grad, x, kernel, stride, 1)
    images = zip(x.split(1), grad.split(1), strict=True)  # all at once would need a copy of both, in another layout
    parts = [F.conv2d(a, g.transpose(0, 1), None, 1, side // 2, stride, len(kernel)) for a, g in images]
    return torch.cat(parts)[:, :, :side, :side].sum(0).unsqueeze(1)


def _onednn(grad: Tensor, x: Tensor, kernel: Tensor, stride: int, which: int) -> Tensor:
    """Torch's own gradient of the image (0) or of the kernel (1)."""
    sides, wanted = [kernel.shape[-1] // 2] * 2, [which == 0, which == 1, False]
    gradients = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [stride] * 2, sides, [1, 1], False, [0, 0], len(kernel), wanted
    )
    return gradients[which]
