"""Augmentation: what each word does, and that it is a function of its generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa_deploy.config import Augmentation, DataConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.training import load_data
from ofa_deploy.training.augmentation import augment, augment_file

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 2, 28, 28), np.uint8))
COLOURED = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 24, 20), np.uint8))
ALL = Augmentation.__args__


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


@pytest.mark.parametrize("name", ALL)
def test_every_word_varies_images_by_the_generator_alone(name):
    first, again, other = (augment(COLOURED, [name], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.uint8
    assert first.shape == COLOURED.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    changed = (first != COLOURED).flatten(1).any(1)
    assert 10 < int(changed.sum()) <= 40


@pytest.mark.parametrize("name", ALL)
def test_every_word_varies_files_by_the_generator_alone(name):
    def centre(image):
        return image[:, :16, :16]

    def vary(seed):
        return [
            augment_file(image, [name], 16, centre, np.random.default_rng([seed, i]))
            for i, image in enumerate(COLOURED)
        ]

    before = torch.random.get_rng_state()
    first, again, other = vary(1), vary(1), vary(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {image.shape for image in first} == {(3, 16, 16)}
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_order_of_the_words_means_nothing():
    first, other = (augment(COLOURED, how, np.random.default_rng(0)) for how in (ALL, ALL[::-1]))
    assert torch.equal(first, other)


def test_cutout_paints_a_quarter_of_the_image_at_most_in_its_mean_colour():
    images = torch.zeros(200, 1, 32, 32, dtype=torch.uint8)
    images[:, :, ::2] = 200
    painted = (augment(images, ["cutout"], np.random.default_rng(0)) == 100).flatten(1).sum(1)
    assert int(painted.max()) == 16 * 16
    assert int(painted.min()) < 16 * 16  # partly outside
    assert bool((painted > 0).all())


def test_random_erasing_spares_half_and_erases_up_to_a_third():
    images = torch.zeros(400, 1, 32, 32, dtype=torch.uint8)
    images[:, :, ::2] = 200
    share = (augment(images, ["random_erasing"], np.random.default_rng(0)) == 100).flatten(1).double().mean(1)
    assert 150 < int((share == 0).sum()) < 250
    assert 0.25 < float(share.max()) < 0.36


def test_colours_need_one_or_three_channels(tmp_path):
    np.savez(tmp_path / "two.npz", images=np.zeros((9, 4, 4, 2), np.uint8), labels=np.arange(9) % 3)
    config = DataConfig(name="npz", root=tmp_path / "two.npz", valid=0.2, augment=["flip", "randaugment"])
    with pytest.raises(
        UsageError, match=r"data\.augment: randaugment needs images with 1 or 3 channels, and these have 2"
    ):
        load_data(config)
