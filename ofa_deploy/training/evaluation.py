"""How good subnets are: batch-norm recalibration, then top-1 accuracy; of many in one pass over the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Subnet, Supernet
from ofa_deploy.training.data import Data, raw_batches
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.images import prepare
from ofa_deploy.training.sources import Images

Batches = Iterable[tuple[Tensor, Tensor]]
SharedBatches = Iterable[tuple[Sequence[Tensor], Tensor]]  # an input for each of some models, and the labels of all
BATCH_SIZE = 256


@dataclass(frozen=True)
class Evaluation:
    """Labels and predicted classes, ``int64[n]`` each."""

    labels: np.ndarray
    predicted: np.ndarray

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """Share of images whose predicted class is their label."""
        return float((self.labels == self.predicted).mean())


def recalibrate(model: nn.Module, images: Batches, world: World = ALONE) -> None:
    """Replace a model's batch-norm statistics by their averages over some batches (Once-for-All §3.3, BigNAS §3.4).

    The model is left in evaluation mode; nothing but its statistics changes.

    Args:
        images: of several processes, the share of this one, as ``batches`` deals them out; the averages are those over
            all batches.
    """
    _recalibrate([model], (([x], labels) for x, labels in images), world)


@torch.no_grad()
def _recalibrate(models: Sequence[nn.Module], images: SharedBatches, world: World) -> None:
    own: list[list[Tensor]] = [[] for _ in models]
    with _keeping_the_last_batch(models):
        for inputs, _ in images:
            for model, x, kept in zip(models, inputs, own, strict=True):
                model(x.to(_device(model)))
                kept.append(torch.cat(_statistics(model)))
    for model, kept in zip(models, own, strict=True):
        statistics = _statistics(model)
        mean = torch.stack(world.interleave(kept, statistics[0])).mean(0)
        for value, part in zip(statistics, mean.split([len(value) for value in statistics]), strict=True):
            value.copy_(part)


@contextmanager
def _keeping_the_last_batch(models: Sequence[nn.Module]) -> Iterator[None]:
    """Within: models are in training mode, and their statistics those of the last batch alone."""
    norms = [norm for model in models for norm in _norms(model)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    for model in models:
        model.train()
    yield
    for model in models:
        model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _statistics(model: nn.Module) -> list[Tensor]:
    return [value for norm in _norms(model) for value in (norm.running_mean, norm.running_var) if value is not None]


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def evaluate(model: nn.Module, images: Batches, world: World = ALONE) -> Evaluation:
    """Predict every image with the model as it is; put it into evaluation mode first.

    Args:
        images: of several processes, the share of this one, as ``batches`` deals them out; all get the whole answer.

    Raises:
        OfaDeployError: there is no image.
    """
    return _evaluate([model], (([x], labels) for x, labels in images), world)[0]


@torch.inference_mode()
def _evaluate(models: Sequence[nn.Module], images: SharedBatches, world: World) -> list[Evaluation]:
    own: list[list[Tensor]] = [[] for _ in models]
    for inputs, labels in images:
        for model, x, kept in zip(models, inputs, own, strict=True):
            kept.append(torch.stack([labels, model(x.to(_device(model))).argmax(1).cpu()]).flatten())
    return [_joined(pairs, world) for pairs in own]


def _joined(own: Sequence[Tensor], world: World) -> Evaluation:
    joined = [pair.view(2, -1) for pair in world.interleave(own, torch.zeros(0, dtype=torch.int64))]
    if not joined:
        raise OfaDeployError("evaluation needs at least one image; the split is empty")
    return Evaluation(*torch.cat(joined, dim=1).numpy())


def specialise(supernet: Supernet, arch: Arch, data: Data, images: int, world: World = ALONE) -> Subnet:
    """Extract a subnet and recalibrate it on the first training images, un-augmented: the same ones every time."""
    return specialise_all(supernet, [arch], data, images, world)[0]


def specialise_all(
    supernet: Supernet, archs: Sequence[Arch], data: Data, images: int, world: World = ALONE
) -> list[Subnet]:
    """What ``specialise`` makes of every arch, to the bit, in one pass over the images; the supernet stays as it is."""
    subnets = [supernet.extract(arch) for arch in archs]
    _recalibrate(subnets, _shared_batches(data.train, archs, data, images, world), world)
    return subnets


def evaluate_all(
    subnets: Sequence[Subnet], archs: Sequence[Arch], data: Data, images: int | None = None, world: World = ALONE
) -> list[Evaluation]:
    """Evaluate subnets on the first held-out images, all in one pass.

    Raises:
        OfaDeployError: there is no image.
    """
    return _evaluate(subnets, _shared_batches(data.valid, archs, data, images, world), world)


def _shared_batches(
    dataset: Images, archs: Sequence[Arch], data: Data, limit: int | None, world: World
) -> Iterator[tuple[Sequence[Tensor], Tensor]]:
    """Every batch is read once, and resized once for each resolution."""
    for images, labels in raw_batches(dataset, BATCH_SIZE, limit, world=world):
        sized = {r: prepare(images, r, data.mean, data.std) for r in {arch.resolution for arch in archs}}
        yield [sized[arch.resolution] for arch in archs], labels
