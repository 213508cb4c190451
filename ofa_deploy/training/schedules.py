"""What is trained when: the phases of a run, each with the part of the space that is open in it.

- ``sandwich``: the largest subnet on the labels, the smallest and random ones on its soft outputs, in every step
  (US-Nets, Yu & Huang, ICCV 2019, §3; BigNAS, Yu et al., ECCV 2020, §3.1); at first, optionally, the largest alone.
- ``progressive``: the largest subnet alone; then, with that as the frozen teacher, random subnets of a space that opens
  kernel sizes, depths, expand ratios (with the heads of attention) and width multipliers, one after the other and the
  largest choices first (Once-for-All, Cai et al., ICLR 2020, §3.3). Resolutions are open from the start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, TypeVar

from ofa_deploy.config import PhaseConfig, TrainRecipe
from ofa_deploy.space import SearchSpace

NumberT = TypeVar("NumberT", int, float)
_OPENED_BY = {"kernel": "kernels", "depth": "depths", "expand": "expands", "width": "widths"}  # in this order
_WITH = {"expands": ("heads", "key_widths")}  # what opens at the same time


@dataclass(frozen=True)
class Rate:
    """Linear warm-up, then a cosine to zero (SGDR, Loshchilov & Hutter, ICLR 2017, §3, without restarts).

    Attributes:
        first, steps: its first step, and how many it has.
        warm: steps of the warm-up.
        peak: the highest learning rate.
    """

    first: int
    steps: int
    warm: float
    peak: float

    def at(self, step: int) -> float:
        """The learning rate of a step."""
        step, warm = step - self.first, min(self.warm, self.steps - 1)
        if step < warm:
            return self.peak * (step + 1) / (warm + 1)
        return self.peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / (self.steps - warm)))


@dataclass(frozen=True)
class Phase:
    """Consecutive steps.

    Attributes:
        name: for the metrics.
        first, end: its first step, and the one after its last.
        space: what is open: the whole space, but with fewer choices.
        subnets: random subnets of a step.
        rate: learning rates.
        trained: where channels are sorted when it starts, what was open before: those subnets keep their function.
    """

    name: str
    first: int
    end: int
    space: SearchSpace
    subnets: int
    rate: Rate
    trained: SearchSpace | None = None


def plan(recipe: TrainRecipe, space: SearchSpace, per_epoch: int) -> list[Phase]:
    """The phases of all of a recipe's steps; one that would open nothing, or have no step, is left out."""
    steps = recipe.epochs * per_epoch
    phases = _progressive(recipe, space, steps) if recipe.schedule == "progressive" else _sandwich(recipe, space, steps)
    return [phase for phase in phases if phase.first < phase.end]


def _sandwich(recipe: TrainRecipe, space: SearchSpace, steps: int) -> list[Phase]:
    per_epoch, closed = steps // recipe.epochs, _part(replace(space, resolutions=(max(space.resolutions),)), {})
    alone = steps if closed == space else min(round(recipe.largest_epochs * per_epoch), steps)
    rate = Rate(0, steps, recipe.warmup_epochs * per_epoch, recipe.lr)
    return [
        Phase("largest", 0, alone, closed, 0, rate),
        Phase("sandwich", alone, steps, space, recipe.random_subnets, rate, closed if alone else None),
    ]


def _progressive(recipe: TrainRecipe, space: SearchSpace, steps: int) -> Iterator[Phase]:
    openings = list(_openings(recipe, space))
    shares = list(accumulate(_entry(config.share, i) for _, config, i, _ in openings))
    bounds = [0, *(max(1, round(steps * share / shares[-1])) for share in shares)]
    trained = openings[0][3]
    for (name, config, i, part), (first, end) in zip(openings, pairwise(bounds), strict=True):
        if first == end:
            continue
        warm = recipe.warmup_epochs / recipe.epochs * (end - first)
        rate = Rate(first, end - first, warm, recipe.lr * _entry(config.lr, i))
        sorts = first > 0 and name in ("expand", "width")
        yield Phase(name, first, end, part, config.subnets, rate, trained if sorts else None)
        trained = part


def _openings(recipe: TrainRecipe, space: SearchSpace) -> Iterator[tuple[str, PhaseConfig, int, SearchSpace]]:
    """Name and configuration of every (sub-)phase, its number in its phase, and what is open in it."""
    counts: dict[str, int] = {}
    yield "largest", recipe.progressive.largest, 0, _part(space, counts)
    for name, choices in _OPENED_BY.items():
        owners: Sequence[object] = [space, *space.stages] if choices == "widths" else space.stages
        opened = (choices, *_WITH.get(choices, ()))
        most = max(len(getattr(owner, choices)) for owner in owners for choices in opened)
        for i, count in enumerate(range(2 if name != "kernel" else max(most, 2), most + 1)):
            counts[choices] = count
            yield name, getattr(recipe.progressive, name), i, _part(space, counts)
    if not counts and any(len(stage.kinds) > 1 for stage in space.stages):
        yield "kernel", recipe.progressive.kernel, 0, _part(space, {"kernels": 1})


def _part(space: SearchSpace, counts: Mapping[str, int]) -> SearchSpace:
    """The space with so many choices, the largest ones, of everything but the resolution; one where none is said. All
    kinds of blocks are open as soon as anything is."""
    largest = {choices: counts.get(choices, 1) for choices in _OPENED_BY.values()}
    stages = []
    for stage in space.stages:
        kept: dict[str, Any] = {
            name: _most(getattr(stage, name), count)
            for choices, count in largest.items()
            for name in (choices, *_WITH.get(choices, ()))
        }
        part = replace(stage, **kept)
        stages.append(part.of_kind(stage.block) if stage.kinds and not counts else part)
    return replace(space, stages=tuple(stages), widths=_most(space.widths, largest["widths"]))


def _most(choices: tuple[NumberT, ...], count: int) -> tuple[NumberT, ...]:
    kept = sorted(choices)[-count:]
    return tuple(choice for choice in choices if choice in kept)


def _entry(values: tuple[float, ...], i: int) -> float:
    return values[min(i, len(values) - 1)]
