"""Batch-norm statistics of subnets: averages over some training images, of many subnets in one pass over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ofa_deploy.space import Arch
from ofa_deploy.supernet import Subnet, Supernet
from ofa_deploy.training.data import Batches, Data, SharedBatches, shared_batches
from ofa_deploy.training.devices import device_of
from ofa_deploy.training.distributed import ALONE, World

BATCH_SIZE = 256


def specialise(supernet: Supernet, arch: Arch, data: Data, images: int, world: World = ALONE) -> Subnet:
    """Extract a subnet and recalibrate it on the first training images, un-augmented: the same ones every time."""
    return specialise_all(supernet, [arch], data, images, world)[0]


def specialise_all(
    supernet: Supernet, archs: Sequence[Arch], data: Data, images: int, world: World = ALONE
) -> list[Subnet]:
    """What ``specialise`` makes of every arch, to the bit, in one pass over the images; the supernet stays as it is."""
    subnets, resolutions = [supernet.extract(arch) for arch in archs], [arch.resolution for arch in archs]
    _recalibrate(subnets, shared_batches(data, data.train, resolutions, BATCH_SIZE, images, world), world)
    return subnets


class RecalibrationCache:
    """The subnets that ``specialise`` makes of one supernet, on one data set: each is recalibrated once.

    For one process, and while the supernet's weights stay as they are.
    """

    def __init__(self, supernet: Supernet, data: Data, images: int) -> None:
        self._supernet, self._data, self._images = supernet, data, images
        self._known: dict[str, Tensor] = {}

    def subnets(self, archs: Sequence[Arch]) -> list[Subnet]:
        """Subnets in evaluation mode, those that are new recalibrated in one pass; every one is the caller's own."""
        new = list({arch.key: arch for arch in archs if arch.key not in self._known}.values())
        for arch, subnet in zip(new, specialise_all(self._supernet, new, self._data, self._images), strict=True):
            self._known[arch.key] = torch.cat(_statistics(subnet))
        return [self._rebuilt(arch) for arch in archs]

    def _rebuilt(self, arch: Arch) -> Subnet:
        subnet = self._supernet.extract(arch).eval()
        _set_statistics(subnet, self._known[arch.key])
        return subnet


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
                model(x.to(device_of(model)))
                kept.append(torch.cat(_statistics(model)))
    for model, kept in zip(models, own, strict=True):
        _set_statistics(model, torch.stack(world.interleave(kept, _statistics(model)[0])).mean(0))


@contextmanager
def _keeping_the_last_batch(models: Sequence[nn.Module]) -> Iterator[None]:
    """Within: models are in training mode, and their statistics those of the last batch alone.

    Afterwards they are in evaluation mode; where it was interrupted, they are as they were.
    """
    norms = [norm for model in models for norm in _norms(model)]
    momenta = [norm.momentum for norm in norms]
    modes = [(module, module.training) for model in models for module in model.modules()]
    before = [(value, value.clone()) for model in models for value in _statistics(model)]
    try:
        for norm in norms:
            norm.momentum = 1.0
        for model in models:
            model.train()
        yield
        modes = [(module, False) for module, _ in modes]
    except BaseException:
        for value, kept in before:
            value.copy_(kept)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _statistics(model: nn.Module) -> list[Tensor]:
    return [value for norm in _norms(model) for value in (norm.running_mean, norm.running_var) if value is not None]


@torch.no_grad()
def _set_statistics(model: nn.Module, joined: Tensor) -> None:
    statistics = _statistics(model)
    for value, part in zip(statistics, joined.split([len(value) for value in statistics]), strict=True):
        value.copy_(part)
