"""Data sets by name, split into train, valid (held out of the training split) and test."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from torch import Tensor

from ofa_deploy.config import DataConfig, Normalisation
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import note
from ofa_deploy.supernet import Header
from ofa_deploy.training import sources
from ofa_deploy.training.arrays import TensorImages
from ofa_deploy.training.augmentation import check_channels
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.images import prepare
from ofa_deploy.training.loading import FolderImages, NumberedReader, Reader, stream
from ofa_deploy.training.sources import Images
from ofa_deploy.training.splits import portion, shuffled, stratified

Batches = Iterable[tuple[Tensor, Tensor]]  # inputs and labels
SharedBatches = Iterable[tuple[Sequence[Tensor], Tensor]]  # an input for each of several models, and the labels
IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # as torchvision publishes them
LICENCES = {"digits": "CC-BY-4.0", "fashion_mnist": "MIT"}  # of the data sets whose publishers name one
_MEASURED = 1024  # image files of which mean and standard deviation are taken
_BATCH = 256


class Fingerprint(TypedDict):
    """What tells data sets apart: how many images and test images there are, and a sha256 over them."""

    images: int
    test: int
    sha256: str


@dataclass(frozen=True)
class Data:
    """Images of one data set; every item is (bytes ``[C, H, W]``, label).

    Attributes:
        train, valid: parts of the training split, always the same.
        test: the test split; nothing is chosen by it.
        mean, std: per channel, of images scaled to 0…1.
        classes: what the labels mean.
        fingerprint: tells whether two data sets, and so their splits, are the same.
        shorter_side, crop: how an image file becomes an item; see ``pixels``. None where it is only resized.
        root: the folder of the image files; None where the images are arrays.
        licence: that lets a bundle carry some of the test images; None where none is known.
        sampled: it is a small part of the data set, that travels with a supernet.
    """

    name: str
    train: Images
    valid: Images
    test: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    fingerprint: Fingerprint
    shorter_side: int | None = None
    crop: int | None = None
    root: Path | None = None
    licence: str | None = None
    sampled: bool = False

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """How many channels an image has."""
        return len(self.mean)


def load_data(config: DataConfig, fetch: bool = True) -> Data:
    """Read a data set.

    Args:
        fetch: whether it may be downloaded where it is not found.

    Raises:
        UsageError: the files are in none of the places looked at, are damaged, or leave nothing to train on.
    """
    train, test, classes = sources.read(config, fetch)
    fingerprint = fingerprint_of([train], [] if test is None else [test])
    if config.name in ("image_folder", "npz"):
        train = train.take(stratified(np.asarray(train.labels)))
    else:  # their published splits are balanced, and figures rest on this order
        train = train.take(shuffled(len(train)))
    if test is None:
        test, train = _hold_out(train, config.test, "data.test")
        note(f"{config.name} {config.root} has no test images, so {len(test)} of {len(test) + len(train)} are held out")
    valid, train = _hold_out(train, config.valid, "data.valid")
    known = _normalisation(config, train)
    check_channels(config.augment, len(known.mean))
    root = config.root if isinstance(test, FolderImages) else None
    licence = config.licence or LICENCES.get(config.name)
    return Data(
        config.name, train, valid, test, known.mean, known.std, classes, fingerprint, *frame_of(test), root, licence
    )


def frame_of(images: Images) -> tuple[int | None, int | None]:
    """The shorter side and the crop by which an image file becomes like these images; arrays that are not square are
    what they are, and a file is just resized."""
    if isinstance(images, FolderImages):
        return images.config.resize or images.config.size, images.config.size
    height, width = images.images.shape[-2:]
    return (height, height) if height == width else (None, None)


def fingerprint_of(train: Sequence[Images], test: Sequence[Images]) -> Fingerprint:
    """The fingerprint of a data set."""
    digests = "".join(part.digest() for part in (*train, *test))
    sha256 = hashlib.sha256(digests.encode()).hexdigest()
    return {"images": sum(map(len, train)), "test": sum(map(len, test)), "sha256": sha256}


def trained_data(config: DataConfig, summary: Header, fetch: bool = True) -> Data:
    """The data that a supernet was trained on, normalised as then.

    Args:
        summary: the supernet's.

    Raises:
        UsageError: as ``load_data``; or the data has changed.
    """
    known = Normalisation(mean=summary["mean"], std=summary["std"])
    data = load_data(config.model_copy(update={"normalise": known}), fetch)
    check_unchanged(data.name, data.fingerprint, summary.get("fingerprint"), "the supernet was trained")
    return data


def check_unchanged(name: str, now: Fingerprint, before: Fingerprint | None, since: str) -> None:
    """Refuse data that is no longer what it was: other images would be held out, some that were trained on among them.

    Args:
        now, before: fingerprints; none where none was kept.
        since: what happened then.

    Raises:
        UsageError: they differ.
    """
    if before and before != now:
        counts = [
            f"{fingerprint['images']} training and {fingerprint['test']} test images" for fingerprint in (before, now)
        ]
        raise UsageError(
            f"the images of {name} have changed since {since} (then {counts[0]}, now {counts[1]}): restore them, or "
            "train under another name"
        )


def batches(
    dataset: Images,
    resolution: int,
    batch_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    limit: int | None = None,
    world: World = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Un-augmented images for evaluation and recalibration, in the data set's order, without damaged ones.

    Yields:
        (float32 ``[B, C, resolution, resolution]``, normalised; int64 labels ``[B]``), of the first ``limit`` images.
        Of several processes the one with rank r gets the batches r, r + size, …
    """
    for images, labels in raw_batches(dataset, batch_size, limit, world):
        yield prepare(images, resolution, mean, std), labels


def raw_batches(
    dataset: Images, batch_size: int, limit: int | None = None, world: World = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of ``batches`` as they are stored: bytes ``[B, C, H, W]``, and labels."""
    count, own = len(dataset) if limit is None else min(limit, len(dataset)), slice(world.rank, None, world.size)
    if not count:
        return iter(())
    if isinstance(dataset, TensorImages):
        pairs = (dataset.images[:count].split(batch_size)[own], dataset.labels[:count].split(batch_size)[own])
        return zip(*pairs, strict=True)
    # of nearly equal size, so that the last one is not small enough to be damaged altogether
    requests = [part.tolist() for part in np.array_split(np.arange(count), math.ceil(count / batch_size))]
    return ((images, labels) for images, labels in stream(Reader(dataset), requests[own]) if len(labels))


def numbered_batches(dataset: Images, batch_size: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """All images that can be read, as they are stored, and their numbers: bytes ``[B, C, H, W]``, ``int64[B]``."""
    if isinstance(dataset, TensorImages):
        places = np.arange(len(dataset))
        for start in range(0, len(dataset), batch_size):
            yield dataset.images[start : start + batch_size], places[start : start + batch_size]
        return
    parts = np.array_split(np.arange(len(dataset)), math.ceil(len(dataset) / batch_size))
    for images, numbers in stream(NumberedReader(dataset), [part.tolist() for part in parts]):
        if len(numbers):
            yield images, numbers.numpy()


def shared_batches(
    data: Data, images: Images, resolutions: Sequence[int], batch_size: int, limit: int | None, world: World = ALONE
) -> SharedBatches:
    """The batches of ``batches`` in several resolutions, read once and resized once for each that is different."""
    for batch, labels in raw_batches(images, batch_size, limit, world=world):
        sized = {resolution: prepare(batch, resolution, data.mean, data.std) for resolution in set(resolutions)}
        yield [sized[resolution] for resolution in resolutions], labels


def _hold_out(images: Images, part: float, key: str) -> tuple[Images, Images]:
    """The first images, a number or a share, and the rest."""
    count, places = portion(part, len(images)), np.arange(len(images))
    if not 0 < count < len(images):
        left = "would leave none to train on" if count else "would be none"
        raise UsageError(
            f"{key}: holding out {count} of {len(images)} training images {left}; give a share such as 0.2"
        )
    return images.take(places[:count]), images.take(places[count:])


def _normalisation(config: DataConfig, train: Images) -> Normalisation:
    channels = config.channels if config.name == "image_folder" else train[0][0].shape[0]
    if config.normalise == "measured":
        return _moments(images for images, _ in raw_batches(train, _BATCH, _sample(train)))
    given = IMAGENET if config.normalise == "imagenet" else config.normalise
    if len(given.mean) != channels or len(given.std) != channels:
        raise UsageError(
            f"data.normalise has {len(given.mean)} means and {len(given.std)} stds for images of {channels} channels"
        )
    return given


def _sample(train: Images) -> int:
    return len(train) if isinstance(train, TensorImages) else min(_MEASURED, len(train))


def _moments(images: Iterable[Tensor]) -> Normalisation:
    """Mean and standard deviation of bytes / 255 per channel, from exact histograms: no rounding, no big copy."""
    counts = [np.stack([_histogram(channel) for channel in batch.unbind(1)]) for batch in images]
    if not counts:
        raise UsageError("none of the training images can be read; repair or replace them")
    values, moments = np.arange(256) / 255, []
    for count in np.sum(counts, axis=0):
        share = count / count.sum()
        mean = float(share @ values)
        moments.append((mean, max(float(share @ (values - mean) ** 2), 1e-12) ** 0.5))
    return Normalisation(mean=tuple(m for m, _ in moments), std=tuple(s for _, s in moments))


def _histogram(pixels: Tensor) -> np.ndarray:
    return np.bincount(pixels.numpy().ravel(), minlength=256)
