"""The choices of a supernet as probabilities: of a size (resolution and width), of every stage's depth, and of every
slot's block (kernel and expand ratio). A subnet's probability is their product, so that whatever is a sum over blocks,
as latency means, MACs and parameters are, has its expectation in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ofa_deploy.search.separable import Separable, Slots
from ofa_deploy.space import Population

PATHS = 2  # that are drawn of every choice (ProxylessNAS, §3.2)


class Choices(nn.Module):
    """One logit for every alternative, all equal at first.

    Attributes:
        size: logits of the combinations of resolution and width, as ``Slots.size`` numbers them.
        depths: of every stage's depths.
        blocks: of every slot's blocks, as ``Slots.picks`` numbers them.
    """

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots
        self.size = nn.Parameter(torch.zeros(slots.sizes))
        counts = [int(count) for count in slots.codec.choices[slots.depth0 : slots.kernel0]]
        self.depths = nn.ParameterList(torch.zeros(count) for count in counts)
        self.blocks = nn.ParameterList(torch.zeros(slot.choices) for slot in slots.all)
        uses = [
            torch.tensor([slot.present for slot in slots.all if slot.stage == s]).float() for s in range(len(counts))
        ]
        self._uses = uses  # [slots of the stage, depths]
        self._blocks = [_blocks_beyond(use) for use in uses]

    def groups(self) -> list[Tensor]:
        """The logits of every choice; those without an alternative are left out."""
        return [logits for logits in self.parameters() if len(logits) > 1]

    def present(self) -> list[Tensor]:
        """For every stage the probability that each of its slots has a block."""
        return [use @ logits.softmax(0) for use, logits in zip(self._uses, self.depths, strict=True)]

    def matters(self) -> list[Tensor]:
        """For every choice, in the order of the parameters, the probability that it makes a difference: that of a
        block is that there is one."""
        one = self.size.new_ones(())
        return [one] * (1 + len(self.depths)) + list(torch.cat(self.present()).unbind())

    def skipped(self) -> Tensor:
        """Expected share of the optional blocks that are left out; 0 where none is optional."""
        found = [beyond @ logits.softmax(0) for beyond, logits in zip(self._blocks, self.depths, strict=True)]
        optional = torch.cat(found)
        return 1 - optional.mean() if len(optional) else optional.sum()

    def entropy(self) -> Tensor:
        """Mean over the choices of how undecided they are: 1 where all is equally likely, 0 where all is decided."""
        found = [-(logits.softmax(0) * logits.log_softmax(0)).sum() / math.log(len(logits)) for logits in self.groups()]
        return torch.stack(found).mean() if found else torch.zeros(())

    def expected(self, table: SumTable) -> Tensor:
        """The expectation of K sums over blocks, exactly: ``[K]``."""
        present, blocks = torch.cat(self.present()), torch.zeros(len(self.slots.all), self.slots.C)
        for i, logits in enumerate(self.blocks):
            blocks[i, : len(logits)] = logits.softmax(0)
        inside = torch.einsum("i,ic,sick->sk", present, blocks, table.value)
        return self.size.softmax(0) @ (table.constant + inside)

    @torch.no_grad()
    def worth(self) -> Separable:
        """The logits of a subnet's choices, added up, as a sum over blocks.

        A block that is absent adds nothing. What a deeper stage has more than the one that it grew from counts at the
        first slot that it has besides; see ``Slots.growth``.
        """
        slots = self.slots
        value = np.zeros((slots.sizes, len(slots.all), slots.C + 1, 1))
        constant = _numbers(self.size)[:, None].copy()
        for i, logits in enumerate(self.blocks):
            value[:, i, : len(logits), 0] = _numbers(logits)
        for (least, steps), logits in zip(slots.growth, self.depths, strict=True):
            numbers = _numbers(logits)
            constant += numbers[least]
            for depth, before, slot in steps:
                value[:, slot, : slots.C, 0] += numbers[depth] - numbers[before]
        spread = np.array([sum(float(np.ptp(_numbers(logits))) for logits in self.groups())])
        return Separable(slots, constant, value, np.zeros(1), spread)

    @torch.no_grad()
    def argmax(self) -> Population:
        """The likeliest subnet, ``int16[1, G]``."""
        return self._rows([[int(logits.argmax())] for logits in self.parameters()])

    @torch.no_grad()
    def drawn(self, count: int, generator: torch.Generator) -> Population:
        """Random subnets by the probabilities, ``int16[count, G]``."""
        return self._rows([_drawn(logits, count, generator).tolist() for logits in self.parameters()])

    def _rows(self, found: list[list[int]]) -> Population:
        size, depths = np.array(found[0]), np.array(found[1 : 1 + len(self.depths)]).T
        rows = self.slots.rows(np.array(found[1 + len(self.depths) :]).T, depths)
        rows[:, : self.slots.depth0] = self.slots.size_genes(size)
        return self.slots.codec.canonicalise(rows)


def _blocks_beyond(use: Tensor) -> Tensor:
    """Whether a stage has a second block, a third and so on, as far as its depths differ: ``[blocks, depths]``."""
    used = use.sum(0)
    return (used > torch.arange(float(used.min()), float(used.max()))[:, None]).float()


class SumTable:
    """A ``Separable`` as tensors; see there."""

    def __init__(self, table: Separable) -> None:
        self.constant = torch.from_numpy(table.constant).float()
        self.value = torch.from_numpy(table.value[:, :, :-1]).float()


class Option:
    """An alternative that takes part in a step.

    Attributes:
        choice: its number.
        weight: by what its result is multiplied; carries the gradient.
        live: whether gradients flow through its result, too.
    """

    def __init__(self, choice: int, weight: Tensor, live: bool = True) -> None:
        self.choice, self.weight, self.live = choice, weight, live


class Drawn:
    """What runs in one step.

    Attributes:
        size, depths, blocks: the options of every choice.
    """

    def __init__(self, choices: Choices, relaxation: str, heat: float, generator: torch.Generator) -> None:
        def options(logits: Tensor) -> list[Option]:
            return _options(logits, relaxation, heat, generator)

        self.size = options(choices.size)
        self.depths = [options(logits) for logits in choices.depths]
        self.blocks = [options(logits) for logits in choices.blocks]


def _options(logits: Tensor, relaxation: str, heat: float, generator: torch.Generator) -> list[Option]:
    if len(logits) == 1:
        return [Option(0, logits.new_ones(()))]
    if relaxation == "binary":
        return _two_paths(logits, generator)
    if relaxation == "gumbel":
        uniform = torch.rand(len(logits), generator=generator).clamp(1e-9, 1 - 1e-7)
        logits = (logits - (-uniform.log()).log()) / heat
    return [Option(i, weight) for i, weight in enumerate(logits.softmax(0).unbind())]


def _two_paths(logits: Tensor, generator: torch.Generator) -> list[Option]:
    """Two paths by their probabilities, and one of them to run: its weight is 1, the other's 0, and their gradient is
    taken for that of their probabilities between the two. The likelier one path becomes the less likely the other:
    all the rest keep their share, as far as the task's gradient goes."""
    pair = torch.multinomial(logits.detach().softmax(0), min(PATHS, len(logits)), generator=generator)
    soft = logits[pair].softmax(0)
    runs = int(torch.multinomial(soft.detach(), 1, generator=generator))
    hard = torch.zeros_like(soft)
    hard[runs] = 1.0
    weights = hard + soft - soft.detach()
    return [Option(int(pair[i]), weights[i], i == runs) for i in range(len(pair))]


def _numbers(logits: Tensor) -> np.ndarray:
    return logits.detach().double().numpy()


def _drawn(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits.detach().softmax(0), count, replacement=True, generator=generator)


def mixed(options: Iterable[Option], results: Iterable[Tensor]) -> Tensor:
    """The sum of results, weighted."""
    parts = [result * option.weight for option, result in zip(options, results, strict=True)]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
