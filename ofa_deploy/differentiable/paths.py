"""A supernet that runs many subnets as one: where a choice has several options, their results are mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.blocks import OpSpec
from ofa_deploy.differentiable.choices import Drawn, Option, mixed
from ofa_deploy.search.separable import Slots
from ofa_deploy.supernet import Supernet

Batch = tuple[Callable[[int], Tensor], Tensor]  # images at a resolution, and their labels


class MixedSupernet:
    """Batch norm normalises by the batch: no running statistics fit a mixture, and none are changed."""

    def __init__(self, supernet: Supernet, slots: Slots) -> None:
        self.supernet, self.slots = supernet, slots
        self.space = supernet.space.with_resolutions(slots.codec.space.resolutions)

    def loss(self, batch: Batch, drawn: Drawn) -> Tensor:
        """Expected cross-entropy over the sizes that are drawn."""
        images, labels = batch
        losses = []
        for option in drawn.size:
            with torch.set_grad_enabled(option.live):
                losses.append(F.cross_entropy(self._logits(images, option.choice, drawn), labels))
        return mixed(drawn.size, losses)

    def _logits(self, images: Callable[[int], Tensor], size: int, drawn: Drawn) -> Tensor:
        places = self.slots.size_genes(np.array([size]))[0].tolist()
        chosen = {gene: self.space.genes[gene].choices[place] for gene, place in enumerate(places)}
        before, after = self._fixed(chosen)
        x = images(chosen[0])
        for name, op in zip(("stem", "first"), before, strict=False):
            x = self.supernet.run(name, op, x, training=True)
        for stage in range(len(self.space.stages)):
            x = self._stage(x, stage, chosen, drawn)
        for name, op in zip(("head", "classifier"), after, strict=True):
            x = self.supernet.run(name, op, x, training=True)
        return x

    def _stage(self, x: Tensor, stage: int, chosen: Mapping[int, object], drawn: Drawn) -> Tensor:
        """Outputs after the blocks that each option has, mixed; blocks that no live one has run without gradient."""
        options = drawn.depths[stage]
        paths = [self.slots.path(stage, option.choice) for option in options]
        begun = ((path, option) for path, option in zip(paths, options, strict=True) if option.live)
        live = {path[:n] for path, _ in begun for n in range(len(path) + 1)}
        after: dict[tuple[int, ...], Tensor] = {(): x}
        for path in paths:
            for n in range(1, len(path) + 1):
                if path[:n] in after:
                    continue
                with torch.set_grad_enabled(torch.is_grad_enabled() and path[:n] in live):
                    slot = path[n - 1]
                    after[path[:n]] = self._slot(after[path[: n - 1]], slot, chosen, drawn.blocks[slot])
        return mixed(options, [after[path] for path in paths])

    def _slot(self, x: Tensor, slot: int, chosen: Mapping[int, object], options: list[Option]) -> Tensor:
        name, results = tuple(self.space.blocks)[slot], []
        for option in options:
            op = self._op(slot, option.choice, chosen)
            with torch.set_grad_enabled(torch.is_grad_enabled() and option.live):
                results.append(self.supernet.run(name, op, x, training=True))
        return mixed(options, results)

    def _op(self, slot: int, choice: int, chosen: Mapping[int, object]) -> OpSpec:
        here = self.slots.all[slot]
        own = zip(here.genes, here.split(choice), strict=True)
        picked = {gene: self.space.genes[gene].choices[place] for gene, place in own}
        return self.space.op_at(slot, {**chosen, **picked})

    def _fixed(self, chosen: Mapping[int, object]) -> tuple[list[OpSpec], list[OpSpec]]:
        """The blocks before the stages, and after them."""
        ops = [self.space.op_at(i, chosen) for i in range(len(self.space.blocks), len(self.space.places))]
        return ops[:-2], ops[-2:]
