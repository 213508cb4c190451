"""Compound scaling: depth, width and resolution grow together (EfficientNet, Tan & Le, ICML 2019, §3.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import ceil, isfinite

import numpy as np

from ofa_deploy.blocks.kinds import make_divisible
from ofa_deploy.errors import UsageError
from ofa_deploy.space.chain_arch import RESOLUTION_RANGE
from ofa_deploy.space.search_space import SearchSpace

WIDEST, DEEPEST = 1 << 14, 1 << 8  # channels, and blocks of a stage; EfficientNet-B7's largest are 3840 and 13


@dataclass(frozen=True)
class Scaling:
    """By what depth, width and resolution grow for one step of φ; the paper's values for its base network, §3.3.

    Raises:
        UsageError: a value that is not a finite number of at least 1.
    """

    alpha: float = 1.2
    beta: float = 1.1
    gamma: float = 1.15

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("beta", self.beta), ("gamma", self.gamma)):
            if not isfinite(value) or value < 1:
                raise UsageError(f"{name} must be a number of at least 1, not {value}")

    @property
    def flops(self) -> float:
        """By what the work grows for one step of φ, without rounding: α·β²·γ²."""
        return self.alpha * self.beta**2 * self.gamma**2


def compound(base: SearchSpace, phi: float, scaling: Scaling, name: str) -> SearchSpace:
    """A base whose depths are multiplied by α^φ, widths by β^φ and resolutions by γ^φ; a negative φ makes it smaller.

    Raises:
        UsageError: φ is not a finite number, or leads to a network that is too large.
    """
    if not isfinite(phi):
        raise UsageError(f"phi must be a finite number, not {phi}")
    try:
        factors = [step**phi for step in (scaling.beta, scaling.alpha, scaling.gamma)]
        return rescale(base, name, *factors)
    except OverflowError as error:
        raise UsageError(f"phi {phi:g} is too large: its factors are beyond any network") from error


def rescale(base: SearchSpace, name: str, width: float, depth: float, resolution: float) -> SearchSpace:
    """A space with every number multiplied, rounded as EfficientNet's authors do: channels to multiples of 8 that lose
    no more than 10 %, depths up; resolutions to whole pixels.

    Raises:
        UsageError: a resolution, a width or a depth is out of range.
    """
    resolutions = tuple(sorted({round(side * resolution) for side in base.resolutions}))
    low, high = RESOLUTION_RANGE
    if not low <= resolutions[0] <= resolutions[-1] <= high:
        raise UsageError(
            f"{name}: resolutions {list(resolutions)} are not from {low} to {high} pixels; take another phi"
        )

    def channels(count: int) -> int:
        return make_divisible(count * width) if count else 0

    def depths(choices: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({max(1, ceil(choice * depth)) for choice in choices}))

    stages = tuple(
        replace(
            stage,
            width=channels(stage.width),
            widths=tuple(dict.fromkeys(map(channels, stage.widths))),
            depths=depths(stage.depths),
        )
        for stage in base.stages
    )
    deepest = max(max(stage.depths) for stage in stages)
    if deepest > DEEPEST:
        raise UsageError(f"{name}: a stage of {deepest:.3g} blocks is more than {DEEPEST}; take a smaller phi")
    widest = max(channels(base.head_width), *(stage.width * max(stage.expands) for stage in stages))
    if widest > WIDEST:
        raise UsageError(f"{name}: layers of {widest:.0f} channels are more than {WIDEST}; take a smaller phi")
    return replace(
        base,
        name=name,
        stages=stages,
        resolutions=resolutions,
        stem_width=channels(base.stem_width),
        head_width=channels(base.head_width),
        feature_width=channels(base.feature_width),
    )


def grid(step: float = 0.1, tolerance: float = 0.05, flops: float = 2.0) -> list[Scaling]:
    """All α, β, γ that are 1 plus multiples of ``step`` with |α·β²·γ² − flops| ≤ tolerance (§3.3, step 1).

    Raises:
        UsageError: a step that is not between 0.01 and 1, or no such triple.
    """
    if not 0.01 <= step <= 1 or not 0 < tolerance < flops:
        raise UsageError(f"step must be from 0.01 to 1, tolerance above 0 and below {flops:g}; not {step}, {tolerance}")
    values = [round(float(value), 6) for value in np.arange(1, flops + tolerance + step / 2, step)]
    found = [Scaling(*triple) for triple in product(values, repeat=3)]
    found = [scaling for scaling in found if abs(scaling.flops - flops) <= tolerance]
    if not found:
        raise UsageError(f"no alpha, beta, gamma in steps of {step:g} come within {tolerance:g}; raise the tolerance")
    return found
