"""The document of a data set: where its images are, and how they are split, read and augmented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ofa_deploy.config.yaml_document import Bound, Document, Positive, Share, Some

Augmentation = Literal[
    "crop", "flip", "random_resized_crop", "color_jitter", "randaugment", "trivial", "random_erasing", "cutout"
]


class Normalisation(Document):
    """Mean and standard deviation of every channel, for pixels scaled to 0…1.

    Attributes:
        mean: one number for each channel.
        std: one number for each channel.
    """

    mean: Some[float]
    std: Some[Bound]


class DataConfig(Document):
    """Images: which data set, where it is, how it is split, read and augmented.

    Attributes:
        name: the data set; ``image_folder`` and ``npz`` are for your own images.
        root: where the data set is. An ``image_folder`` has ``train/CLASS/…`` and, if there is one, ``test/CLASS/…``
            or ``val/CLASS/…``; or just ``CLASS/…``. An ``npz`` is a file with the arrays ``images`` (uint8, NHW or
            NHWC) and ``labels``.
        valid: images held out of the training split, as a number or a share. Subnets are compared on them.
        test: the share held out as test images where an ``image_folder`` or ``npz`` has none, class by class.
        augment: random augmentations of the training images, applied in a fixed order.
        normalise: ``measured`` uses the mean and standard deviation of the training images, ``imagenet`` the published
            ones; or give ``mean`` and ``std``.
        channels: channels of an ``image_folder``: 1 for grey, 3 for RGB, 4 for RGBA.
        size: side in pixels of the crops taken from an ``image_folder``; smaller resolutions shrink them.
        resize: shorter side of an ``image_folder``'s image before its centre is cropped; default: ``size``.
        workers: processes that read an ``image_folder``; ``auto`` is one for each core but one.
        licence: of the images, as SPDX names it, if it allows redistribution; bundles then carry a few test images.
        corrupt_limit: how many unreadable images (a number or a share) are skipped, with a message, before an error.
    """

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "image_folder", "npz"]
    root: Path | None = None
    valid: Positive | Share = 5000
    test: Share = 0.2
    augment: tuple[Augmentation, ...] = ()
    normalise: Literal["measured", "imagenet"] | Normalisation = "measured"
    channels: Literal[1, 3, 4] = 3
    size: Positive = 224
    resize: Positive | None = None
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = "auto"
    licence: Annotated[str, Field(min_length=2, max_length=64)] | None = None
    corrupt_limit: Annotated[int, Field(ge=0)] | Share = 10
