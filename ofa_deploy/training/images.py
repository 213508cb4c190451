"""Image tensors: resizing and normalising, the same in training, evaluation and deployment; augmentation by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Channels = Sequence[float]


def resize(x: Tensor, resolution: int) -> Tensor:
    """Resize ``[N, C, h, w]`` float images to a square: bilinear, with antialiasing when shrinking."""
    if x.shape[-2:] == (resolution, resolution):
        return x
    return F.interpolate(x, (resolution, resolution), mode="bilinear", align_corners=False, antialias=True)


def prepare(images: Tensor, resolution: int, mean: Channels, std: Channels) -> Tensor:
    """What a network sees: ``[N, C, h, w]`` bytes, or floats from 0 to 1, resized and then normalised per channel."""
    x = images.float().div(255) if images.dtype == torch.uint8 else images
    centre, scale = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (mean, std))
    x = (resize(x, resolution) - centre) / scale
    return x.contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, how: Sequence[str], rng: np.random.Generator) -> Tensor:
    """Vary a batch ``[N, C, h, w]``: ``crop`` shifts by up to a fourteenth of the side, ``flip`` mirrors half of it."""
    if "crop" in how:
        images = _shift(images, max(1, images.shape[-1] // 14), rng)
    if "flip" in how:
        mirrored = torch.from_numpy(rng.random(len(images)) < 0.5)
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return images


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
