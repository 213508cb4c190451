"""What a training step sees, as a function of (seed, epoch, step) alone, so that a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.training.arrays import TensorImages
from ofa_deploy.training.augmentation import augment, augment_file
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.loading import FolderImages, Item, Reader, stream
from ofa_deploy.training.sources import Images

_ORDER, _AUGMENT, _ARCHS = range(3)  # independent streams of one seed


def steps_per_epoch(recipe: TrainRecipe, dataset: Images) -> int:
    """Whole batches only; at least one, which is then smaller."""
    return max(1, len(dataset) // recipe.batch_size)


def train_batches(
    dataset: Images, recipe: TrainRecipe, first_step: int, world: World = ALONE
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented bytes ``[B, C, H, W]`` and labels ``[B]`` of every step from ``first_step`` on, without end.

    Of several processes each gets its part of the batch, with the augmentation that the whole batch would have.
    """
    plan = _order(dataset, recipe, first_step)
    if isinstance(dataset, TensorImages):
        for step, _, chunk in plan:
            own, chosen = world.part(len(chunk)), torch.from_numpy(chunk)
            varied = augment(dataset.images[chosen], recipe.data.augment, _rng(recipe, _AUGMENT, step))
            yield varied[own], dataset.labels[chosen][own]
    else:
        requests = ([(epoch, i) for i in chunk[world.part(len(chunk))].tolist()] for _, epoch, chunk in plan)
        for images, labels in stream(_Varied(dataset, recipe), requests):
            if not len(labels):
                raise UsageError("none of the training images can be read; repair or replace them")
            yield images, labels


def step_archs(codec: PopulationCodec, recipe: TrainRecipe, step: int, count: int) -> list[Arch]:
    """The random subnets of one step: of the progressive schedule, all at one resolution, for which its teacher runs
    once."""
    draw = codec.spread if recipe.sampling == "spread" else codec.sample
    population = draw(count, _rng(recipe, _ARCHS, step))
    if recipe.schedule == "progressive":
        population[:, 0] = population[0, 0]
    return codec.decode(population)


def _rng(recipe: TrainRecipe, purpose: int, *where: int) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, purpose, *where])


def _order(dataset: Images, recipe: TrainRecipe, first_step: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Step, epoch and the whole batch's places in the data set, from ``first_step`` on, without end."""
    per_epoch = steps_per_epoch(recipe, dataset)
    epoch, skipped = divmod(first_step, per_epoch)
    while True:
        order = _rng(recipe, _ORDER, epoch).permutation(len(dataset))
        for position in range(skipped, per_epoch):
            chunk = order[position * recipe.batch_size : (position + 1) * recipe.batch_size]
            yield epoch * per_epoch + position, epoch, chunk
        epoch, skipped = epoch + 1, 0


class _Varied(Reader):
    """Image files under augmentation; a request is (epoch, number of an image)."""

    def __init__(self, images: FolderImages, recipe: TrainRecipe) -> None:
        super().__init__(images)
        self.recipe = recipe

    def __getitem__(self, request: tuple[int, int]) -> Item:
        (epoch, wanted), config = request, self.recipe.data
        complaints: list[str] = []
        for attempt in range(min(len(self.images), self.images.damage.limit + 1)):
            index = (wanted + attempt) % len(self.images)  # the next whole image stands in for a damaged one
            try:
                image, label = self.images.image(index)
            except UsageError as error:
                complaints.append(str(error))
                continue
            rng = _rng(self.recipe, _AUGMENT, epoch, index)
            return augment_file(image, config.augment, config.size, self.images.fit, rng), label, complaints
        return None, 0, complaints
