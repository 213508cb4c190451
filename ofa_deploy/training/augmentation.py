"""How training images are varied, by a generator of random numbers alone. A recipe's ``augment`` names any of

===================  ==================================================================================================
crop                 in memory: a shift by up to a fourteenth of the side; from files: 35 to 100 % of the area, resized
random_resized_crop  8 to 100 % of the area at a ratio of 3:4 to 4:3, resized (Szegedy et al., CVPR 2015, §6)
flip                 half of the images are mirrored
color_jitter         brightness by up to 32/255, saturation by up to half, as Once-for-All trains on ImageNet
randaugment          two random operations of magnitude 9 of 31 (Cubuk et al., NeurIPS 2020)
trivial              one random operation of a random magnitude (Müller & Hutter, ICCV 2021)
random_erasing       in half of the images a box of 2 to 33 % of the area is erased (Zhong et al., AAAI 2020, §3.2)
cutout               a square of half the side is erased, anywhere (DeVries & Taylor, 2017, §3.2)
===================  ==================================================================================================

in whatever order; they are applied in this one. What is erased gets the image's mean colour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.errors import UsageError
from ofa_deploy.training.images import cpu_threads
from ofa_deploy.training.torchvision_shim import torchvision_module

Step = Callable[[Tensor], Tensor]
_COLOURED = ("color_jitter", "randaugment", "trivial")


def check_channels(how: Sequence[str], channels: int) -> None:
    """Raise a UsageError where an augmentation is not defined for so many channels."""
    if channels not in (1, 3) and (wrong := [name for name in _COLOURED if name in how]):
        raise UsageError(
            f"data.augment: {wrong[0]} needs images with 1 or 3 channels, and these have {channels}; remove it"
        )


def augment(images: Tensor, how: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Vary a batch of bytes ``[N, C, h, w]`` in memory."""
    if "crop" in how:
        images = _shift(images, max(1, images.shape[-1] // 14), rng)
    if "flip" in how:
        mirrored = torch.from_numpy(rng.random(len(images)) < 0.5)
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    if steps := [*_crop(how, images.shape[-2:], crop_scale=None), *_colour(how)]:
        seeds = rng.integers(2**62, size=len(images)).tolist()
        images = torch.stack([_seeded(steps, image, seed) for image, seed in zip(images, seeds, strict=True)])
    return erase(images, how, rng)


def augment_file(image: Tensor, how: Sequence[str], size: int, fit: Step, rng: np.random.Generator) -> Tensor:
    """Vary one image of any size, bytes ``[C, h, w]``; the result is ``[C, size, size]``.

    Args:
        fit: makes an image that is not cropped at random so large.
    """
    v2 = torchvision_module("transforms.v2")
    crop = _crop(how, (size, size), crop_scale=(0.35, 1.0)) or [fit]
    flip = [v2.RandomHorizontalFlip()] if "flip" in how else []
    varied = _seeded([*crop, *flip, *_colour(how)], image, int(rng.integers(2**62)))
    return erase(varied[None], how, rng)[0]


def erase(images: Tensor, how: Sequence[str], rng: np.random.Generator) -> Tensor:
    """``random_erasing`` and ``cutout`` of a batch of bytes ``[N, C, h, w]``."""
    count, _, height, width = images.shape
    if "random_erasing" in how:
        area = height * width * rng.uniform(0.02, 0.33, count) * (rng.random(count) < 0.5)
        ratio = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3), count))
        boxes = np.minimum(np.sqrt(area * ratio), height), np.minimum(np.sqrt(area / ratio), width)
        rows, columns = (np.rint(box).astype(np.int64) for box in boxes)
        images = _paint(images, rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1), rows, columns)
    if "cutout" in how:
        rows, columns = np.full(count, height // 2), np.full(count, width // 2)
        top, left = (rng.integers(0, side, count) - side // 4 for side in (height, width))
        images = _paint(images, top, left, rows, columns)
    return images


def _crop(how: Sequence[str], size: Sequence[int], crop_scale: tuple[float, float] | None) -> list[Step]:
    """The random crop that is resized; ``crop`` is one only where a scale is given for it."""
    scale = (0.08, 1.0) if "random_resized_crop" in how else crop_scale if "crop" in how else None
    if scale is None:
        return []
    return [torchvision_module("transforms.v2").RandomResizedCrop(list(size), scale=scale, antialias=True)]


def _colour(how: Sequence[str]) -> list[Step]:
    if not any(name in how for name in _COLOURED):
        return []  # torchvision takes seconds to load
    v2 = torchvision_module("transforms.v2")
    makers: dict[str, Callable[[], Step]] = {
        "color_jitter": lambda: v2.ColorJitter(brightness=32 / 255, saturation=0.5),
        "randaugment": v2.RandAugment,
        "trivial": v2.TrivialAugmentWide,
    }
    return [make() for name, make in makers.items() if name in how]


def _seeded(steps: Sequence[Step], image: Tensor, seed: int) -> Tensor:
    """Apply torchvision's transforms, which draw from torch's global generator."""
    with torch.random.fork_rng(devices=[]), cpu_threads(1):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too, and they are not put back
        for step in steps:
            image = step(image)
        return image


def _shift(images: Tensor, most: int, rng: np.random.Generator) -> Tensor:
    """Crop every image at its own place out of its zero-padded self."""
    count, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    top, left = (torch.from_numpy(rng.integers(0, 2 * most + 1, count)) for _ in range(2))
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    which = torch.arange(count)[:, None, None, None]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[which, channels, rows, columns]


def _paint(images: Tensor, top: np.ndarray, left: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Fill a box of every image, as far as it is inside, with the image's mean colour."""
    vertical = _between(images.shape[-2], top, rows)[:, None, :, None]
    horizontal = _between(images.shape[-1], left, columns)[:, None, None, :]
    colour = images.float().mean((2, 3), keepdim=True).round().to(images.dtype)
    return torch.where(vertical & horizontal, colour, images)


def _between(side: int, start: np.ndarray, extent: np.ndarray) -> Tensor:
    """Which of ``side`` places are inside, ``bool[N, side]``."""
    at = np.arange(side)
    return torch.from_numpy((at >= start[:, None]) & (at < (start + extent)[:, None]))
