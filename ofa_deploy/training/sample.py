"""A sample of a data set that travels with a supernet: enough to recalibrate batch norm, and to check an accuracy.

One ``.npz`` file (never pickled) with bytes ``{split}_images`` ``[N, C, H, W]`` and int64 ``{split}_labels`` ``[N]`` of
the splits train, valid and test, and the names of the ``classes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ofa_deploy.errors import UsageError
from ofa_deploy.supernet import Header
from ofa_deploy.training.arrays import TensorImages, load_archive
from ofa_deploy.training.data import LICENCES, Data, fingerprint_of, frame_of

SPLITS = ("train", "valid", "test")


def write_sample(path: Path, data: Data, counts: Mapping[str, int]) -> None:
    """Write the first images of each split; the same data and counts give the same bytes.

    Args:
        counts: how many images of each split, by its name; all of them where there are fewer.

    Raises:
        UsageError: the images differ in size, or are not in memory.
    """
    arrays: dict[str, np.ndarray] = {"classes": np.array(data.classes)}
    for split in SPLITS:
        images = getattr(data, split)
        if not isinstance(images, TensorImages):
            raise UsageError(f"{data.name}: only data sets whose images all have one size can be sampled")
        arrays[f"{split}_images"] = images.images[: counts[split]].numpy()
        arrays[f"{split}_labels"] = images.labels[: counts[split]].numpy()
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_sample(path: Path, name: str, summary: Header) -> Data:
    """Read what ``write_sample`` wrote.

    Args:
        name: of the data set.
        summary: the supernet's, which says how images are normalised.

    Raises:
        UsageError: the file is damaged, or no sample.
    """
    arrays = load_archive(path, f"pack the supernet that {path.parent} holds again")
    try:
        parts = [
            TensorImages(torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(arrays[f"{split}_labels"]))
            for split in SPLITS
        ]
        classes = tuple(str(known) for known in arrays["classes"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path} is no sample of a data set: {error} is missing") from error
    train, valid, test = parts
    mean, std = (cast(tuple[float, ...], tuple(summary[key])) for key in ("mean", "std"))
    found = fingerprint_of([train, valid], [test])
    frame = frame_of(test)
    licence = LICENCES.get(name)
    return Data(name, train, valid, test, mean, std, classes, found, *frame, licence=licence, sampled=True)
