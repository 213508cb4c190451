"""Where each data set's files are, and how they are read; nothing here unpickles."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.training.arrays import TensorImages, read_arrays
from ofa_deploy.training.damage import Damage
from ofa_deploy.training.folders import find_splits
from ofa_deploy.training.loading import FolderImages
from ofa_deploy.training.torchvision_shim import torchvision_module

_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_DEBIAN = Path("/usr/share/datasets")
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz"
_CIFAR_MD5 = {10: "c32a1d4ab5d03f1284b67883e8d87530", 100: "03b5dce01913d631647c71ecec9e9cb8"}
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError)


Images = TensorImages | FolderImages
Splits = tuple[Images, Images | None, tuple[str, ...]]


def read(config: DataConfig, fetch: bool = True) -> Splits:
    """The training split, the test split or None, and the names of the classes.

    Args:
        fetch: whether what is not found may be downloaded.
    """
    if config.name == "image_folder":
        return _image_folder(config)
    if config.name == "npz":
        return read_arrays(config.root)
    if config.name == "digits":
        return *_digits(), _numbers(10)
    if config.name in ("mnist", "fashion_mnist"):
        return *_mnist(config, fetch), _FASHION if config.name == "fashion_mnist" else _numbers(10)
    return _cifar(config, {"cifar10": 10, "cifar100": 100}[config.name], fetch)


def data_root() -> Path:
    """Where data sets are looked for first and downloaded to: ``$OFA_DATA``, or a folder of the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ofa-deploy" / "data"
    return Path(os.environ.get("OFA_DATA") or default)


def _digits() -> tuple[TensorImages, TensorImages]:
    """scikit-learn's 1797 digits of 8×8 pixels; every fifth is a test image."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(np.round(pixels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    test = torch.arange(len(images)) % 5 == 0
    targets = torch.from_numpy(labels.astype(np.int64))
    return TensorImages(images[~test], targets[~test]), TensorImages(images[test], targets[test])


def _mnist(config: DataConfig, fetch: bool) -> tuple[TensorImages, TensorImages]:
    """Files in the format of MNIST, packed or not, as torchvision and Debian lay them out."""
    fashion = config.name == "fashion_mnist"
    class_name, debian = ("FashionMNIST", "fashion-mnist") if fashion else ("MNIST", "mnist")
    roots = [config.root] if config.root else [data_root(), _torch_cache()]
    folders = [folder for root in roots for folder in (root / class_name / "raw", root)]
    folders += [] if config.root else [_DEBIAN / debian]
    folder = _first(folders, lambda path: _packed(path / "train-images-idx3-ubyte").exists())
    if folder is None:
        folder = roots[0] / class_name / "raw"
        dataset = getattr(torchvision_module("datasets"), class_name)
        package = f", the folder {_DEBIAN / debian} (Debian's dataset-fashion-mnist)" if fashion else ""
        places = f"{config.root}" if config.root else f"torchvision's cache {roots[0]}{package}"
        _download(config.name, places, lambda: dataset(str(roots[0]), download=True), fetch)
    return _idx_pair(folder, "train"), _idx_pair(folder, "t10k")


def _torch_cache() -> Path:
    return Path(torch.hub.get_dir()).parent / "vision"


def _first(folders: Sequence[Path], holds: Callable[[Path], bool]) -> Path | None:
    return next((folder for folder in folders if holds(folder)), None)


def _packed(path: Path) -> Path:
    """The file itself, or the ``.gz`` beside its place."""
    return path if path.exists() else path.with_name(path.name + ".gz")


def _download(name: str, places: str, download: Callable[[], object], fetch: bool) -> None:
    if not fetch:
        raise UsageError(f"data set {name} is not in {places}")
    try:
        download()
    except Exception as error:  # torchvision raises what its sockets, archives and checksums raise
        raise UsageError(
            f"data set {name} is not in {places}, and torchvision's download failed "
            f"({' '.join(str(error).split())[:120]}); put the files in one of these places, or set data.root"
        ) from error


def _idx_pair(folder: Path, part: str) -> TensorImages:
    images = _idx(_packed(folder / f"{part}-images-idx3-ubyte"), 3)
    labels = _idx(_packed(folder / f"{part}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels):
        raise UsageError(f"{folder}: {part} has {len(images)} images but {len(labels)} labels; fetch the files again")
    if not len(labels) or int(labels.max()) > 9:
        raise UsageError(f"{folder}: {part} is damaged (no images, or a label that is no class); fetch the files again")
    return TensorImages(images[:, None], labels.long())


def _idx(path: Path, dimensions: int) -> Tensor:
    """An array of bytes in MNIST's IDX format: magic 0, 0, 8, dimensions; big-endian sizes; the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        start = 4 + 4 * dimensions
        shape = tuple(np.frombuffer(content[4:start], ">u4").astype(int))
        if content[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError("wrong magic number")
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())
    except _DAMAGED as error:
        raise UsageError(f"{path} is damaged or no IDX file ({error}); remove it and fetch it again") from error


def _cifar(config: DataConfig, classes: int, fetch: bool) -> tuple[TensorImages, TensorImages, tuple[str, ...]]:
    """The binary version: records of label bytes (CIFAR-100: coarse, fine) and 3×32×32 pixels, and a list of names."""
    root = config.root or data_root()
    archive = root / f"cifar-{classes}-binary.tar.gz"
    unpacked = root / ("cifar-10-batches-bin" if classes == 10 else "cifar-100-binary")
    if not archive.exists() and not unpacked.is_dir():
        utils = torchvision_module("datasets.utils")
        origin = (f"{_CIFAR_URL}/{archive.name}", str(root), archive.name, _CIFAR_MD5[classes])
        places = f"{root} as {archive.name} or {unpacked.name}/"
        _download(config.name, places, lambda: utils.download_url(*origin), fetch)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if classes == 10 else ["train.bin"]
    test = "test_batch.bin" if classes == 10 else "test.bin"
    source = unpacked if unpacked.is_dir() else archive
    content = _members(source, unpacked.name, [*names, test])
    parts = {name: _cifar_records(root, name, raw, classes) for name, raw in content.items()}
    train = [parts[name] for name in names]
    images, labels = (torch.cat(list(tensors)) for tensors in zip(*train, strict=True))
    return TensorImages(images, labels), TensorImages(*parts[test]), _cifar_names(source, unpacked.name, classes)


def _cifar_names(source: Path, folder: str, classes: int) -> tuple[str, ...]:
    """What the archive calls its classes; numbers where somebody has left that out."""
    file = "batches.meta.txt" if classes == 10 else "fine_label_names.txt"
    try:
        names = tuple(_members(source, folder, [file])[file].decode(errors="replace").split())
    except UsageError:
        names = ()
    return names if len(names) == classes else _numbers(classes)


def _members(source: Path, folder: str, names: Sequence[str]) -> dict[str, bytes]:
    """Files of a folder, or of that folder inside a tar archive."""
    try:
        if source.is_dir():
            return {name: (source / name).read_bytes() for name in names}
        with tarfile.open(source) as tar:
            return {name: tar.extractfile(f"{folder}/{name}").read() for name in names}  # type: ignore[union-attr]
    except (*_DAMAGED, KeyError) as error:
        raise UsageError(f"{source} is damaged or incomplete ({error}); remove it and fetch it again") from error


def _cifar_records(root: Path, name: str, raw: bytes, classes: int) -> tuple[Tensor, Tensor]:
    label_bytes = 1 if classes == 10 else 2
    record = label_bytes + 3 * 32 * 32
    if not raw or len(raw) % record:
        raise UsageError(f"{root}: {name} is truncated ({len(raw)} bytes, records of {record}); fetch it again")
    rows = torch.from_numpy(np.frombuffer(raw, np.uint8).reshape(-1, record).copy())
    labels = rows[:, label_bytes - 1].long()
    if int(labels.max()) >= classes:
        raise UsageError(f"{root}: {name} is damaged (label {int(labels.max())} of {classes} classes); fetch it again")
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32), labels


def _image_folder(config: DataConfig) -> Splits:
    train, test = find_splits(config.root)
    damage = Damage(config.corrupt_limit, len(train.labels) + (len(test.labels) if test else 0))
    held = FolderImages(test, config, damage) if test else None
    return FolderImages(train, config, damage), held, train.classes


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(count))
