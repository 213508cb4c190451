"""Images that are all in memory, and reading the user's own from a ``.npz`` file."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ofa_deploy.errors import UsageError

_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile)


class TensorImages(Dataset):
    """Images of one size, all in memory: bytes ``[N, C, H, W]`` and int64 labels ``[N]``."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def take(self, indices: np.ndarray) -> TensorImages:
        """Some of the images, in the order given."""
        chosen = torch.from_numpy(indices)
        return TensorImages(self.images[chosen], self.labels[chosen])

    def digest(self) -> str:
        """sha256 over shape, pixels and labels."""
        sha = hashlib.sha256(str(tuple(self.images.shape)).encode())
        sha.update(self.images.contiguous().numpy().data)
        sha.update(self.labels.contiguous().numpy().data)
        return sha.hexdigest()


def read_arrays(path: Path | None) -> tuple[TensorImages, TensorImages | None, tuple[str, ...]]:
    """``images`` (bytes ``[N, H, W]`` or ``[N, H, W, C]``) and ``labels`` (``[N]``, from 0 on) of a ``.npz`` file, with
    ``test_images`` and ``test_labels`` where there are any, and ``classes`` (their names).

    Raises:
        UsageError: the file is missing or damaged, or an array is not like that.
    """
    if path is None:
        raise UsageError("data.root must name the .npz file with the arrays images and labels")
    arrays = load_archive(path, "write it with numpy.savez")
    train, test = _pair(path, arrays, ""), _pair(path, arrays, "test_") if "test_images" in arrays else None
    count = int(train.labels.max()) + 1
    names = tuple(str(name) for name in arrays.get("classes", range(count)))
    missing = sorted({*range(len(names))} - set(train.labels.tolist()))
    if missing or len(names) < count or len(names) < 2:
        hint = f"no image has class {missing[0]}" if missing else f"{len(names)} class names for {count} classes"
        raise UsageError(f"{path}: {hint}; number at least two classes from 0 on, and give each some images")
    if test is not None and (int(test.labels.max()) >= len(names) or test.images.shape[1] != train.images.shape[1]):
        raise UsageError(f"{path}: test_images and test_labels differ from images and labels in channels or classes")
    return train, test, names


def load_archive(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file; nothing is unpickled.

    Raises:
        UsageError: it is missing or damaged; ends with the remedy.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return dict(archive)
    except _UNREADABLE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
        raise UsageError(f"cannot read {path} as an .npz file ({reason}); {remedy}") from error


def _pair(path: Path, arrays: dict[str, np.ndarray], prefix: str) -> TensorImages:
    images, labels = arrays.get(f"{prefix}images"), arrays.get(f"{prefix}labels")
    if images is None or labels is None:
        raise UsageError(
            f"{path}: needs the arrays {prefix}images and {prefix}labels, but has {', '.join(arrays) or 'none'}"
        )
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise UsageError(
            f"{path}: {prefix}images must be uint8 [N, H, W] or [N, H, W, C], not {images.dtype} {list(images.shape)}"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or int(labels.min()) < 0:
        raise UsageError(
            f"{path}: {prefix}labels must be {len(images)} integers from 0 on, not {labels.dtype} {list(labels.shape)}"
        )
    pixels = torch.from_numpy(images.reshape(*images.shape[:3], -1)).permute(0, 3, 1, 2).contiguous()
    return TensorImages(pixels, torch.from_numpy(labels.astype(np.int64)))
