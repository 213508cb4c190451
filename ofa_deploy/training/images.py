"""Image tensors: resizing and normalising, the same in training, evaluation and deployment."""

from __future__ import annotations

from collections.abc import Sequence

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
    x = (resize(x, resolution) - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    return x.contiguous(memory_format=torch.channels_last)
