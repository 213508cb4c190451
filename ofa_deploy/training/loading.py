"""Image files, and reading them ahead of their use in processes of their own."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa_deploy.config import DataConfig
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.pixels import framed
from ofa_deploy.training.damage import Damage
from ofa_deploy.training.decoding import decode
from ofa_deploy.training.folders import Listing

Item = tuple[Tensor | None, int, list[str]]  # image, label, and what was wrong with files that were tried before
MOST_WORKERS = 16
FEW_IMAGES = 1000  # are read in less time than worker processes take to start


class FolderImages(Dataset):
    """Image files of any size, read when asked for.

    Attributes:
        root, names, sizes, labels: which files they are; see ``folders.Listing``.
        config: how they are read.
        damage: where unreadable ones are noted.
    """

    def __init__(self, listing: Listing, config: DataConfig, damage: Damage) -> None:
        self.root, self.names, self.sizes, self.labels = listing.root, listing.names, listing.sizes, listing.labels
        self.config, self.damage = config, damage

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.image(index)
        return self.fit(image), label

    def image(self, index: int) -> tuple[Tensor, int]:
        """The image as stored, bytes ``[C, h, w]``, and its label.

        Raises:
            UsageError: it cannot be read.
        """
        pixels = decode(self.path(index), self.config.channels)
        return torch.from_numpy(pixels).permute(2, 0, 1), int(self.labels[index])

    def path(self, index: int) -> Path:
        """Where an image lies."""
        return self.root / os.fsdecode(self.names[index])

    def fit(self, image: Tensor) -> Tensor:
        """Resize an image by its shorter side, and crop its centre: bytes ``[C, size, size]``."""
        size = self.config.size
        frame = framed(image.permute(1, 2, 0).numpy(), self.config.resize or size, size)
        return torch.from_numpy(frame).permute(2, 0, 1).contiguous()

    def take(self, indices: np.ndarray) -> FolderImages:
        """Some of the images, in the order given."""
        chosen = Listing(self.root, self.names[indices], self.sizes[indices], self.labels[indices], ())
        return FolderImages(chosen, self.config, self.damage)

    def digest(self) -> str:
        """sha256 over the files' names, sizes and labels; their bytes would take long to read."""
        sha = hashlib.sha256()
        for name, size, label in zip(self.names.tolist(), self.sizes.tolist(), self.labels.tolist(), strict=True):
            sha.update(b"%s\0%d\0%d\n" % (name, size, label))
        return sha.hexdigest()

    @property
    def workers(self) -> int:
        """Processes that read them: training keeps a core busy, or a GPU and the process that feeds it."""
        asked: Literal["auto"] | int = self.config.workers
        if asked != "auto":
            return asked
        return 0 if len(self) < FEW_IMAGES else min(_cores() - 1, MOST_WORKERS)


class Reader(Dataset):
    """What is read for a request, here the number of an image: the image as it is evaluated, or None for a damaged one.

    Pickled into worker processes.
    """

    def __init__(self, images: FolderImages) -> None:
        self.images = images

    def __getitem__(self, request: Any) -> Item:
        try:
            image, label = self.images.image(request)
        except UsageError as error:
            return None, 0, [str(error)]
        return self.images.fit(image), label, []


class NumberedReader(Reader):
    """Reads an image with its number in place of its label."""

    def __getitem__(self, request: int) -> Item:
        image, _, complaints = super().__getitem__(request)
        return image, request, complaints


def stream(reader: Reader, requests: Iterable[list[Any]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Read batches in the order asked for, the same whatever the number of workers.

    Args:
        requests: a batch each; may have no end.

    Yields:
        Bytes ``[B, C, size, size]`` and int64 labels ``[B]``, without the images that are None.

    Raises:
        UsageError: too many images are damaged.
        OfaDeployError: a worker process died.
    """
    images = reader.images
    loader = DataLoader(
        reader,
        batch_sampler=requests,
        num_workers=images.workers,
        collate_fn=_join,
        worker_init_fn=_live_and_die_with_parent,
        multiprocessing_context=_context() if images.workers else None,
    )
    try:
        for pixels, labels, complaints in loader:
            images.damage.add(complaints)
            yield pixels, labels
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OfaDeployError(
            f"a process that reads images died ({str(error).splitlines()[0][:120]}): set data.workers lower, "
            "or 0 to read in the training process"
        ) from error


def _join(items: Sequence[Item]) -> tuple[Tensor, Tensor, list[str]]:
    whole = [(image, label) for image, label, _ in items if image is not None]
    images = torch.stack([image for image, _ in whole]) if whole else torch.empty(0, dtype=torch.uint8)
    labels = torch.tensor([label for _, label in whole], dtype=torch.int64)
    return images, labels, [complaint for _, _, complaints in items for complaint in complaints]


def _cores() -> int:
    """Cores that this process may use, of those that are shared with torchrun's others on this machine."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, own // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _live_and_die_with_parent(_worker: int) -> None:
    """A Ctrl-C reaches all processes of a terminal, and the parent ends its workers; one that is killed cannot, and
    torch's own watch looks at the wrong process, the one that the worker was forked from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_after_parent, daemon=True).start()


def _leave_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@cache
def _context() -> BaseContext:
    """Workers are not forked from this process: it has threads by now, and a lock that one of them holds would stay
    closed in the copy for ever."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ofa_deploy.training.preload"])  # a worker then starts with torch loaded
    return context
