"""Resizing, normalising and augmenting batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa_deploy.training import resize
from ofa_deploy.training.images import augment, prepare
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


def test_crop_shifts_every_image_by_at_most_two_pixels_of_28():
    varied = augment(IMAGES, ["crop"], np.random.default_rng(1))
    padded = torch.nn.functional.pad(IMAGES, (2, 2, 2, 2))
    shifts = set()
    for image, original in zip(varied, padded, strict=True):
        found = {
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(image, original[:, dy : dy + 28, dx : dx + 28])
        }
        assert len(found) == 1
        shifts |= found
    assert len(shifts) > 10


def test_flip_mirrors_some_images_and_leaves_the_others():
    varied = augment(IMAGES, ["flip"], np.random.default_rng(1))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(varied, IMAGES, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(varied, IMAGES, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 40


def test_augmentation_is_a_function_of_its_generator():
    both = ["crop", "flip"]
    first, again, other = (augment(IMAGES, both, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert augment(IMAGES, [], np.random.default_rng(0)) is IMAGES
