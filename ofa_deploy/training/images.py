"""Image tensors: resizing and normalising, the same in training, evaluation and deployment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

Channels = Sequence[float]


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Within: so many of torch's threads, which wait for each other longer than they compute where work is small.

    Args:
        count: None leaves the number as it is.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
