"""The gradients of one step: which subnets learn what from whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.config import TrainRecipe
from ofa_deploy.space import Arch
from ofa_deploy.supernet import Supernet
from ofa_deploy.training.compiling import Forward
from ofa_deploy.training.data import Data
from ofa_deploy.training.devices import computing_in
from ofa_deploy.training.distillation import distillation
from ofa_deploy.training.distributed import World
from ofa_deploy.training.guards import tally
from ofa_deploy.training.images import prepare
from ofa_deploy.training.trainer import Outcome

Learned = Callable[[], tuple[Tensor, ...]]  # computes a loss, and what else is wanted of the same pass


class Backward:
    """Adds the gradients of several losses to the parameters'.

    It computes them in the threads of a pool where it has one. Even then it adds them in the order of the losses, so
    that the sums have the same bits.
    """

    def __init__(self, parameters: Sequence[Tensor], pool: ThreadPoolExecutor | None = None) -> None:
        self._parameters, self._pool = parameters, pool

    def __call__(self, losses: Sequence[Learned]) -> list[tuple[Tensor, ...]]:
        """What the functions return, detached, once the gradients of their losses are added."""
        if self._pool is None:
            return [self._add(loss) for loss in losses]
        found = list(self._pool.map(self._apart, losses))
        for gradients, _ in found:
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                if gradient is not None and parameter.grad is not None:
                    parameter.grad += gradient
        return [kept for _, kept in found]

    def _add(self, loss: Learned) -> tuple[Tensor, ...]:
        values = loss()
        values[0].backward()
        return tuple(value.detach() for value in values)

    def _apart(self, loss: Learned) -> tuple[tuple[Tensor | None, ...], tuple[Tensor, ...]]:
        values = loss()
        gradients = torch.autograd.grad(values[0], self._parameters, allow_unused=True)
        return gradients, tuple(value.detach() for value in values)


@contextmanager
def backward_of(recipe: TrainRecipe, parameters: Sequence[Tensor], world: World) -> Iterator[Backward]:
    """A recipe's ``Backward``, with a pool where ``parallel_subnets`` asks for one.

    Several processes compute one subnet after another, because they wait for each other within each of them.
    """
    if recipe.parallel_subnets == 1 or world.size > 1 or parameters[0].device.type != "cpu":
        yield Backward(parameters)
        return
    threads = torch.get_num_threads()  # of each subnet; a new thread has its own setting
    with ThreadPoolExecutor(recipe.parallel_subnets, "subnet", torch.set_num_threads, (threads,)) as pool:
        yield Backward(parameters, pool)


class Step:
    """One step's images, in every resolution that is asked for.

    All means are this process's shares of those over the whole batch: gradients of processes add up.
    """

    def __init__(self, recipe: TrainRecipe, data: Data, images: Tensor, labels: Tensor, batch: int) -> None:
        """``batch`` counts the images of all processes."""
        self._recipe, self._data, self._images, self._labels = recipe, data, images, labels
        self._share = len(labels) / batch
        self._sized: dict[int, Tensor] = {}

    def sandwich(self, forward: Forward, largest: Arch, others: Sequence[Arch], backward: Backward) -> Outcome:
        """The largest subnet learns from the labels, and the others from what it says in this very step."""
        logits = self._logits(forward, largest)
        loss, teacher = self._on_labels(logits), logits.detach().log_softmax(1)

        def learn(arch: Arch) -> tuple[Tensor, Tensor]:
            student = self._logits(forward, arch)
            return distillation(self._recipe, student, teacher) * self._share, student

        _, *gaps = backward([lambda: (loss,), *(partial(learn, arch) for arch in others)])
        tallies, distill = {"largest": tally(logits, self._labels)}, logits.new_zeros(())
        for value, _ in gaps:
            distill += value / len(others)
        if gaps:
            tallies["smallest"] = tally(gaps[0][1], self._labels)
        return Outcome({"loss": loss.item(), "distill": distill.item()}, tallies)

    def progressive(
        self, forward: Forward, archs: Sequence[Arch], teacher: Supernet | None, resolution: int, backward: Backward
    ) -> Outcome:
        """Subnets of one resolution learn from the labels, and from a frozen largest one where there is one, which sees
        the images at a resolution of its own."""
        soft = self._soft(teacher, resolution) if teacher is not None else None
        losses, tallies = self._labels.new_zeros(2, dtype=torch.float32), []

        def learn(arch: Arch) -> tuple[Tensor, ...]:
            logits = self._logits(forward, arch)
            loss, gap = self._on_labels(logits), logits.new_zeros(())
            if soft is not None:
                gap = distillation(self._recipe, logits, soft) * self._share
            return loss + self._recipe.progressive.distill_ratio * gap, loss, gap, logits

        for _, loss, gap, logits in backward([partial(learn, arch) for arch in archs]):
            losses += torch.stack([loss, gap]) / len(archs)
            tallies.append(tally(logits, self._labels))
        summed = {key: sum(one[key] for one in tallies) for key in tallies[0]}
        return Outcome(dict(zip(("loss", "distill"), losses.tolist(), strict=True)), {"sampled": summed})

    @torch.no_grad()
    def _soft(self, teacher: Supernet, resolution: int) -> Tensor:
        largest = teacher.space.canonical({**teacher.space.largest.to_json(), "resolution": resolution})
        return self._logits(teacher, largest).log_softmax(1)

    def _on_labels(self, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, self._labels, label_smoothing=self._recipe.label_smoothing) * self._share

    def _logits(self, forward: Forward, arch: Arch) -> Tensor:
        if arch.resolution not in self._sized:
            self._sized[arch.resolution] = prepare(self._images, arch.resolution, self._data.mean, self._data.std)
        with computing_in(self._recipe.precision, self._images.device):
            return forward(self._sized[arch.resolution], arch).float()
