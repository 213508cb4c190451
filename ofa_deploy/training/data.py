"""Data sets by name, split into train, valid (held out of the published training split) and test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.training import sources
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.images import prepare
from ofa_deploy.training.sources import FolderImages, Images, TensorImages

_SPLIT_SEED = 20  # the split belongs to the data: it must not change with a recipe's seed


@dataclass(frozen=True)
class Data:
    """Images of one data set; every item is (bytes ``[C, H, W]``, label).

    Attributes:
        train, valid: the shuffled parts of the published training split, always the same.
        test: the published test split; nothing is chosen by it.
        mean, std: per channel, of the training images scaled to 0…1.
    """

    name: str
    train: Dataset
    valid: Dataset
    test: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    in_channels: int


def load_data(config: DataConfig) -> Data:
    """Read a data set.

    Raises:
        UsageError: the files are in none of the places looked at, are damaged, or leave nothing to train on.
    """
    train, test, classes = sources.read(config)
    if config.valid >= len(train):
        raise UsageError(f"data.valid: {config.valid} of {len(train)} training images held out leaves none to train on")
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(train))
    valid, rest = take(train, order[: config.valid]), take(train, order[config.valid :])
    mean, std = _moments(rest) if isinstance(rest, TensorImages) else (sources.IMAGENET_MEAN, sources.IMAGENET_STD)
    return Data(config.name, rest, valid, test, mean, std, classes, len(mean))


def take(images: Images, indices: np.ndarray) -> Images:
    """Some of the images, in the order given."""
    if isinstance(images, TensorImages):
        chosen = torch.from_numpy(indices)
        return TensorImages(images.images[chosen], images.labels[chosen])
    return FolderImages([images.files[i] for i in indices], images.size)


def batches(
    dataset: Dataset,
    resolution: int,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    limit: int | None = None,
    workers: int = 0,
    world: World = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Un-augmented images for evaluation and recalibration, in the data set's order.

    Yields:
        (float32 ``[B, C, resolution, resolution]``, normalised; int64 labels ``[B]``), of the first ``limit`` images.
        Of several processes the one with rank r gets the batches r, r + size, …
    """
    count = min(limit or len(dataset), len(dataset))  # type: ignore[arg-type]
    for images, labels in _raw(dataset, count, batch_size, workers, world):
        yield prepare(images, resolution, mean, std), labels


def _raw(dataset: Dataset, count: int, batch_size: int, workers: int, world: World) -> Iterator[tuple[Tensor, Tensor]]:
    own = slice(world.rank, None, world.size)
    if isinstance(dataset, TensorImages):
        pairs = (dataset.images[:count].split(batch_size)[own], dataset.labels[:count].split(batch_size)[own])
        return zip(*pairs, strict=True)
    indices = [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    return iter(DataLoader(dataset, batch_sampler=indices[own], num_workers=workers))


def _moments(data: TensorImages) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of bytes / 255 per channel, from exact histograms: no rounding, no big copy."""
    values, moments = np.arange(256) / 255, []
    for channel in range(data.images.shape[1]):
        share = np.bincount(data.images[:, channel].numpy().ravel(), minlength=256) / data.images[:, channel].numel()
        mean = float(share @ values)
        moments.append((mean, max(float(share @ (values - mean) ** 2), 1e-12) ** 0.5))
    return tuple(m for m, _ in moments), tuple(s for _, s in moments)
