"""How good subnets are: top-1 accuracy, of many in one pass over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Subnet
from ofa_deploy.training.data import Batches, Data, SharedBatches, shared_batches
from ofa_deploy.training.devices import device_of
from ofa_deploy.training.distributed import ALONE, World

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
            kept.append(torch.stack([labels, model(x.to(device_of(model))).argmax(1).cpu()]).flatten())
    return [_joined(pairs, world) for pairs in own]


def _joined(own: Sequence[Tensor], world: World) -> Evaluation:
    joined = [pair.view(2, -1) for pair in world.interleave(own, torch.zeros(0, dtype=torch.int64))]
    if not joined:
        raise OfaDeployError("evaluation needs at least one image; the split is empty")
    return Evaluation(*torch.cat(joined, dim=1).numpy())


def evaluate_all(
    subnets: Sequence[Subnet], archs: Sequence[Arch], data: Data, images: int | None = None, world: World = ALONE
) -> list[Evaluation]:
    """Evaluate subnets on the first held-out images, all in one pass.

    Raises:
        OfaDeployError: there is no image.
    """
    resolutions = [arch.resolution for arch in archs]
    return _evaluate(subnets, shared_batches(data, data.valid, resolutions, BATCH_SIZE, images, world), world)
