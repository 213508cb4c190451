"""What a training step sees, as a function of (seed, epoch, step) alone, so that a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ofa_deploy.config import TrainRecipe
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.images import augment
from ofa_deploy.training.sources import FolderImages, TensorImages
from ofa_deploy.training.torchvision_shim import torchvision_module

_ORDER, _AUGMENT, _ARCHS = range(3)  # independent streams of one seed


def steps_per_epoch(recipe: TrainRecipe, dataset: Dataset) -> int:
    """Whole batches only; at least one, which is then smaller."""
    return max(1, len(dataset) // recipe.batch_size)  # type: ignore[arg-type]


def train_batches(
    dataset: Dataset, recipe: TrainRecipe, first_step: int, world: World = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented bytes ``[B, C, H, W]`` and labels ``[B]`` of every step from ``first_step`` on, without end.

    Of several processes each gets its part of the batch, with the augmentation that the whole batch would have.
    """
    per_epoch = steps_per_epoch(recipe, dataset)
    epoch, skipped = divmod(first_step, per_epoch)
    while True:
        order = _rng(recipe, _ORDER, epoch).permutation(len(dataset))  # type: ignore[arg-type]
        chunks = [order[i * recipe.batch_size : (i + 1) * recipe.batch_size] for i in range(per_epoch)]
        if isinstance(dataset, TensorImages):
            yield from _from_memory(dataset, recipe, chunks, epoch * per_epoch, skipped, world)
        else:
            yield from _from_files(
                dataset, recipe, [chunk[world.part(len(chunk))] for chunk in chunks[skipped:]], epoch
            )
        epoch, skipped = epoch + 1, 0


def step_archs(codec: PopulationCodec, recipe: TrainRecipe, step: int) -> list[Arch]:
    """The random subnets of one step."""
    return codec.decode(codec.sample(recipe.random_subnets, _rng(recipe, _ARCHS, step)))


def _rng(recipe: TrainRecipe, stream: int, *where: int) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, stream, *where])


def _from_memory(
    dataset: TensorImages, recipe: TrainRecipe, chunks: Sequence[np.ndarray], before: int, skipped: int, world: World
) -> Iterator[tuple[Tensor, Tensor]]:
    for position, chunk in islice(enumerate(chunks), skipped, None):
        chosen = torch.from_numpy(chunk)
        rng = _rng(recipe, _AUGMENT, before + position)
        own = world.part(len(chosen))
        yield augment(dataset.images[chosen], recipe.data.augment, rng)[own], dataset.labels[chosen][own]


def _from_files(
    dataset: Dataset, recipe: TrainRecipe, chunks: Sequence[np.ndarray], epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    varied = _Varied(dataset, recipe, epoch)
    sampler = [chunk.tolist() for chunk in chunks]
    return iter(DataLoader(varied, batch_sampler=sampler, num_workers=recipe.data.workers))


class _Varied(Dataset):
    """Image files under augmentation; torchvision's random transforms draw from torch's global generator, so each item
    seeds it for itself."""

    def __init__(self, dataset: Dataset, recipe: TrainRecipe, epoch: int) -> None:
        assert isinstance(dataset, FolderImages)  # noqa: S101 - the only data set that is not in memory
        self.dataset, self.recipe, self.epoch = dataset, recipe, epoch
        v2 = torchvision_module("transforms.v2")
        how = recipe.data.augment
        crop = [v2.RandomResizedCrop(dataset.size, scale=(0.35, 1.0), antialias=True)] if "crop" in how else []
        flip = [v2.RandomHorizontalFlip()] if "flip" in how else []
        plain = [] if crop else [v2.Resize(dataset.size, antialias=True), v2.CenterCrop(dataset.size)]
        self.transform = v2.Compose([*crop, *plain, *flip, v2.Identity()])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset.image(index)
        seed = int(_rng(self.recipe, _AUGMENT, self.epoch, index).integers(2**62))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(image), label

    def __len__(self) -> int:
        return len(self.dataset)
