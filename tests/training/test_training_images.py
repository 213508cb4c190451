"""Resizing and normalising batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa_deploy.training import resize
from ofa_deploy.training.images import prepare
from ofa_deploy.training.torchvision_shim import torchvision_module

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 2, 28, 28), np.uint8))


@pytest.mark.parametrize("resolution", [16, 28, 40])
def test_resize_is_torchvisions(resolution):
    x = IMAGES.float() / 255
    functional = torchvision_module("transforms.v2.functional")
    expected = functional.resize(x, [resolution, resolution], antialias=True)
    assert torch.allclose(resize(x, resolution), expected, atol=1e-6)


def test_prepare_normalises_per_channel():
    x = prepare(IMAGES, 28, (0.5, 0.25), (0.1, 0.2))
    assert x.dtype == torch.float32
    assert x[3, 1, 4, 5].item() == pytest.approx((IMAGES[3, 1, 4, 5].item() / 255 - 0.25) / 0.2, rel=1e-5)
    assert torch.allclose(prepare(IMAGES.float() / 255, 28, (0.5, 0.25), (0.1, 0.2)), x, atol=1e-6)
