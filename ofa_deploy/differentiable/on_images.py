"""A supernet's choices learned on images: the architecture on the validation split, between its steps, where that is
asked for, a copy of the weights on the training split (DARTS, Liu et al., ICLR 2019, algorithm 1)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.config import Plan, TrainRecipe
from ofa_deploy.differentiable.choices import Choices, Drawn
from ofa_deploy.differentiable.learning import Learning
from ofa_deploy.differentiable.paths import Batch, MixedSupernet
from ofa_deploy.search.gradient import Belief, Gradient
from ofa_deploy.search.separable import Separable
from ofa_deploy.supernet import Supernet
from ofa_deploy.training import ALONE, Data, prepare
from ofa_deploy.training.devices import choose_device, torch_settings
from ofa_deploy.training.optimiser import Optimiser
from ofa_deploy.training.sampling import train_batches
from ofa_deploy.training.sources import Images

BATCH = 96
SLOWER = 0.02  # the weights' learning rate, as a share of the supernet's own
CLIP = 5.0


def gradient_on_images(supernet: Supernet, data: Data, recipe: TrainRecipe, plan: Plan) -> Gradient:
    """What teaches the strategy ``differentiable``.

    Args:
        supernet: never changed.
        recipe: the supernet's.
    """

    threads = recipe.threads or torch.get_num_threads()  # the engine leaves numpy, and so torch, one

    def learn(cost: Separable, seed: int) -> Iterator[Belief]:
        beliefs = Learning(cost, _Images(supernet, data, recipe, plan, cost, seed), plan, seed).beliefs()
        while True:
            with torch_settings(threads):
                belief = next(beliefs, None)
            if belief is None:
                return
            yield belief

    return learn


class _Images:
    """The loss of a step; a copy of the supernet, and both streams of batches."""

    def __init__(
        self,
        supernet: Supernet,
        data: Data,
        recipe: TrainRecipe,
        plan: Plan,
        cost: Separable,
        seed: int,
    ) -> None:
        self.device = choose_device(recipe.device, ALONE)
        self.data = data
        self.supernet = copy.deepcopy(supernet).to(self.device)
        self.supernet.requires_grad_(plan.train_weights)
        self.mixed = MixedSupernet(self.supernet, cost.slots)
        plain = recipe.data.model_copy(update={"augment": ()})
        self.valid = self._stream(data.valid, recipe.model_copy(update={"data": plain}), seed)
        self.train = self._stream(data.train, recipe, seed) if plan.train_weights else None
        gentle = recipe.model_copy(update={"weight_decay": 0.0, "clip_norm": CLIP})
        self.optimiser, self.rate = Optimiser(dict(self.supernet.named_parameters()), gentle), SLOWER * recipe.lr
        self.generator = torch.Generator().manual_seed(seed)

    def _stream(self, images: Images, recipe: TrainRecipe, seed: int) -> Iterator[Batch]:
        size = min(BATCH, len(images))
        for pixels, labels in train_batches(images, recipe.model_copy(update={"batch_size": size, "seed": seed}), 0):
            yield self._at(pixels.to(self.device)), labels.to(self.device)

    def _at(self, pixels: Tensor) -> Callable[[int], Tensor]:
        return lambda resolution: prepare(pixels, resolution, self.data.mean, self.data.std)

    def __call__(self, choices: Choices, drawn: Drawn) -> Tensor:
        if self.train is not None:
            self._teach(choices, next(self.train))
        return self.mixed.loss(next(self.valid), drawn)

    def _teach(self, choices: Choices, batch: Batch) -> None:
        """One step of the weights, on a subnet that is drawn by the probabilities."""
        images, labels = batch
        arch = choices.slots.codec.decode(choices.drawn(1, self.generator))[0]
        self.optimiser.zero_grad()
        self.supernet.train()
        F.cross_entropy(self.supernet(images(arch.resolution), arch), labels).backward()
        self.optimiser.step(self.rate)
