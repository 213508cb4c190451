"""The depthwise convolution's gradients are those of torch's own convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.supernet import depthwise
from ofa_deploy.supernet.depthwise import depthwise_conv

CASES = [(k, stride, (9, 6)) for k in (3, 5, 7) for stride in (1, 2)] + [(7, 2, (2, 2)), (5, 1, (1, 1)), (5, 3, (8, 7))]


def make(kernel: int, size: tuple[int, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(kernel)
    x = torch.randn(3, 4, *size, generator=generator, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), torch.randn(4, 1, kernel, kernel, generator=generator, dtype=dtype, requires_grad=True)


@pytest.fixture(autouse=True, params=[0, 10**9], ids=["image by image", "oneDNN"])
def both_ways(request, monkeypatch):
    monkeypatch.setattr(depthwise, "WORTH_A_CALL", request.param)


@pytest.mark.parametrize(("kernel", "stride", "size"), CASES)
def test_gradients_are_the_derivatives(kernel, stride, size):
    assert torch.autograd.gradcheck(lambda *given: depthwise_conv(*given, stride), make(kernel, size))


@pytest.mark.parametrize(("kernel", "stride", "size"), CASES)
def test_values_and_gradients_are_those_of_torch(kernel, stride, size):
    x, weight = make(kernel, size, torch.float32)
    y = depthwise_conv(x, weight, stride)
    expected = F.conv2d(x, weight, None, stride, kernel // 2, groups=4)
    assert torch.equal(y, expected)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(*(torch.autograd.grad(z, (x, weight), upstream) for z in (y, expected)), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "size"), CASES)
def test_a_bias_is_added_and_learns(kernel, stride, size):
    x, weight = make(kernel, size)
    bias = torch.randn(4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.equal(
        depthwise_conv(x, weight, stride, bias), F.conv2d(x, weight, bias, stride, kernel // 2, groups=4)
    )
    given = (x, weight, bias)
    assert torch.autograd.gradcheck(lambda x, weight, bias: depthwise_conv(x, weight, stride, bias), given)


def test_only_what_learns_gets_a_gradient():
    x, weight = make(5, (6, 6))
    depthwise_conv(x.detach(), weight, 1).sum().backward()
    assert weight.grad is not None
    depthwise_conv(x, weight.detach(), 1).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        assert not depthwise_conv(x, weight, 1).requires_grad


def test_autocast_decides_the_precision():
    x, weight = make(5, (6, 6), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise_conv(x, weight, 1)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert weight.grad.dtype == torch.float32
