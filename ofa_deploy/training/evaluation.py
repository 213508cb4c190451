"""How good a subnet is: batch-norm recalibration, then top-1 accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Subnet, Supernet
from ofa_deploy.training.data import Data, batches
from ofa_deploy.training.distributed import ALONE, World

Batches = Iterable[tuple[Tensor, Tensor]]
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


@torch.no_grad()
def recalibrate(model: nn.Module, images: Batches, world: World = ALONE) -> None:
    """Replace a model's batch-norm statistics by their averages over some batches (Once-for-All §3.3, BigNAS §3.4).

    The model is left in evaluation mode; nothing but its statistics changes.

    Args:
        images: of several processes, the share of this one, as ``batches`` deals them out; the averages are those over
            all batches.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # what is kept is then the last batch's
    model.train()
    own = [_after(model, x, statistics) for x, _ in images]
    model.eval()
    mean = torch.stack(world.interleave(own, statistics[0])).mean(0)
    for value, part in zip(statistics, mean.split([len(value) for value in statistics]), strict=True):
        value.copy_(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _after(model: nn.Module, x: Tensor, statistics: Sequence[Tensor]) -> Tensor:
    model(x)
    return torch.cat(list(statistics))


@torch.inference_mode()
def evaluate(model: nn.Module, images: Batches, world: World = ALONE) -> Evaluation:
    """Predict every image with the model as it is; put it into evaluation mode first.

    Args:
        images: of several processes, the share of this one, as ``batches`` deals them out; all get the whole answer.

    Raises:
        OfaDeployError: there is no image.
    """
    pairs = [torch.stack([labels, model(x).argmax(1)]).flatten() for x, labels in images]
    joined = [pair.view(2, -1) for pair in world.interleave(pairs, torch.zeros(0, dtype=torch.int64))]
    if not joined:
        raise OfaDeployError("evaluation needs at least one image; the split is empty")
    return Evaluation(*torch.cat(joined, dim=1).numpy())


def specialise(supernet: Supernet, arch: Arch, data: Data, images: int, world: World = ALONE) -> Subnet:
    """Extract a subnet and recalibrate it on the first training images, un-augmented: the same ones every time."""
    subnet = supernet.extract(arch)
    chosen = batches(data.train, arch.resolution, BATCH_SIZE, data.mean, data.std, limit=images, world=world)
    recalibrate(subnet, chosen, world)
    return subnet
