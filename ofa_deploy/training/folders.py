"""Folders of image files, one for each class: what is in them, in an order that no file system decides."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ofa_deploy.errors import UsageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """Image files below a folder, sorted by class and name.

    Attributes:
        names: paths below ``root``, ``bytes[N]``: one array, which worker processes share; a list they would copy.
        sizes: of the files in bytes, ``int64[N]``; -1 where that cannot be said.
        labels: ``int64[N]``, places in ``classes``.
    """

    root: Path
    names: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


def find_splits(root: Path | None) -> tuple[Listing, Listing | None]:
    """Training and test images of ``root/train/CLASS/…`` and ``root/test/CLASS/…`` (or ``root/val``), or of
    ``root/CLASS/…``, which has no test images.

    Raises:
        UsageError: a folder is missing or unreadable, a class has no images, or the splits' classes differ.
    """
    if root is None:
        raise UsageError("data.root must name the folder that holds train/<class>/ or <class>/")
    if not root.is_dir():
        raise UsageError(f"data.root: there is no folder {root}")
    held = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        if held is not None:
            raise UsageError(f"data.root: {root} needs the folders train/<class>/ and test/<class>/ (or val/)")
        return list_images(root), None
    train = list_images(root / "train")
    return train, list_images(held, train.classes) if held else None


def list_images(folder: Path, classes: Sequence[str] | None = None) -> Listing:
    """The images of each class below a folder, however deep; hidden and other files are left out.

    Args:
        classes: that the folder must have; default: those that it has.
    """
    found = tuple(_subfolders(folder))
    if classes is not None and found != tuple(classes):
        raise UsageError(f"data.root: {folder} has other classes than the training split: {_change(classes, found)}")
    if len(found) < 2:
        raise UsageError(f"data.root: {folder} needs a folder of images for each of at least two classes")
    files = [_images(folder, name) for name in found]
    if empty := [name for name, of_class in zip(found, files, strict=True) if not of_class]:
        raise UsageError(
            f"data.root: {folder}: no images of {_few(empty)}; add some ({_kinds()}), or remove the folder"
        )
    names, sizes = (np.array(column) for column in zip(*(item for of_class in files for item in of_class), strict=True))
    labels = np.repeat(np.arange(len(found)), [len(of_class) for of_class in files])
    return Listing(folder, names, sizes.astype(np.int64), labels.astype(np.int64), found)


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from error


def _images(folder: Path, name: str) -> list[tuple[bytes, int]]:
    """Path below ``folder`` and size of every image of a class, sorted; what is no file, such as a pipe, is none."""
    images = []
    for path in _walk(folder / name):
        try:
            status = path.stat()
        except OSError:  # a dangling link: reading it will say so
            images.append((os.fsencode(path.relative_to(folder)), -1))
            continue
        if stat.S_ISREG(status.st_mode):
            images.append((os.fsencode(path.relative_to(folder)), status.st_size))
    return sorted(images)


def _walk(folder: Path) -> Iterator[Path]:
    """Names of image files below a folder; a link that leads back to where it came from is not followed."""
    seen = {str(parent) for parent in folder.resolve().parents}
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield Path(place, name)


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> UsageError:
    return UsageError(
        f"data.root: {error.filename} cannot be read ({error.strerror}); make it readable, or move it away"
    )


def _change(expected: Sequence[str], found: Sequence[str]) -> str:
    missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    parts = [f"{_few(names)} {what}" for names, what in ((missing, "missing"), (extra, "unknown")) if names]
    return ", ".join(parts)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _kinds() -> str:
    return " ".join(extension.removeprefix(".") for extension in EXTENSIONS)
