"""How good a subnet is: batch-norm recalibration, then top-1 accuracy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Subnet, Supernet
from ofa_deploy.training.data import Data, batches

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
def recalibrate(model: nn.Module, images: Batches) -> None:
    """Replace a model's batch-norm statistics by their averages over some batches (Once-for-All §3.3, BigNAS §3.4).

    The model is left in evaluation mode; nothing but its statistics changes.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's way to say: the plain average over all batches
    model.train()
    for x, _ in images:
        model(x)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.inference_mode()
def evaluate(model: nn.Module, images: Batches) -> Evaluation:
    """Predict every image with the model as it is; put it into evaluation mode first.

    Raises:
        OfaDeployError: there is no image.
    """
    pairs = [(labels, model(x).argmax(1)) for x, labels in images]
    if not pairs:
        raise OfaDeployError("evaluation needs at least one image; the split is empty")
    labels, predicted = (torch.cat(column).numpy() for column in zip(*pairs, strict=True))
    return Evaluation(labels, predicted)


def specialise(supernet: Supernet, arch: Arch, data: Data, images: int) -> Subnet:
    """Extract a subnet and recalibrate it on the first training images, un-augmented: the same ones every time."""
    subnet = supernet.extract(arch)
    recalibrate(subnet, batches(data.train, arch.resolution, BATCH_SIZE, data.mean, data.std, limit=images))
    return subnet
