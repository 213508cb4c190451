"""The gradients of one step: which subnets learn what from whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from ofa_deploy.training.guards import tally
from ofa_deploy.training.images import prepare


@dataclass(frozen=True)
class Outcome:
    """This process's shares of a step's figures, which add up to those of the whole batch.

    Attributes:
        losses: means over the batch; of several subnets', the mean.
        tallies: of the predictions to watch, by subnet.
    """

    losses: dict[str, float]
    tallies: dict[str, dict[str, float]]


class Step:
    """One step's images, in every resolution that is asked for.

    All means are this process's shares of those over the whole batch: gradients of processes add up.
    """

    def __init__(self, recipe: TrainRecipe, data: Data, images: Tensor, labels: Tensor, batch: int) -> None:
        """``batch`` counts the images of all processes."""
        self._recipe, self._data, self._images, self._labels = recipe, data, images, labels
        self._share = len(labels) / batch
        self._sized: dict[int, Tensor] = {}

    def sandwich(self, forward: Forward, largest: Arch, others: Sequence[Arch]) -> Outcome:
        """The largest subnet learns from the labels, and the others from what it says in this very step."""
        logits = self._logits(forward, largest)
        loss = self._on_labels(logits)
        loss.backward()
        tallies, teacher = {"largest": tally(logits, self._labels)}, logits.detach().log_softmax(1)
        distill = logits.new_zeros(())
        for i, arch in enumerate(others):
            student = self._logits(forward, arch)
            gap = distillation(self._recipe, student, teacher) * self._share
            gap.backward()
            distill += gap.detach() / len(others)
            if i == 0:
                tallies["smallest"] = tally(student, self._labels)
        return Outcome({"loss": loss.item(), "distill": distill.item()}, tallies)

    def progressive(
        self, forward: Forward, archs: Sequence[Arch], teacher: Supernet | None, resolution: int
    ) -> Outcome:
        """Subnets of one resolution learn from the labels, and from a frozen largest one where there is one, which sees
        the images at a resolution of its own."""
        soft = self._soft(teacher, resolution) if teacher is not None else None
        losses, tallies = self._labels.new_zeros(2, dtype=torch.float32), []
        for arch in archs:
            logits = self._logits(forward, arch)
            loss, gap = self._on_labels(logits), logits.new_zeros(())
            if soft is not None:
                gap = distillation(self._recipe, logits, soft) * self._share
            (loss + self._recipe.progressive.distill_ratio * gap).backward()
            losses += torch.stack([loss, gap]).detach() / len(archs)
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
