"""What the strategy ``differentiable`` is given: something that learns, step by step, which choices are good.

The engine knows no gradients and no images. It hands over the constraints as sums over blocks, and gets beliefs back:
the probability of every choice at every place, from which it derives subnets that meet the constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ofa_deploy.search.separable import Separable
from ofa_deploy.space import Population


@dataclass(frozen=True)
class Belief:
    """What is believed after some steps.

    Attributes:
        worth: of a subnet to the task alone, as a sum over blocks; in units that only compare.
        argmax: the likeliest subnet, the constraints' prices included, ``int16[1, G]``; it may break some yet.
        drawn: random subnets by the probabilities, ``int16[N, G]``.
        figures: ``step``, ``loss``, ``entropy`` (of a choice, as a share of the most), ``skipped`` (expected share of
            the optional blocks that are left out) and ``excess`` (of every constraint, expected, as a fraction).
        acted: guards that acted since the belief before, each with ``guard``, ``step`` and ``why``.
    """

    worth: Separable
    argmax: Population
    drawn: Population
    figures: dict[str, Any]
    acted: list[dict[str, Any]]


# (the constraints' excess as sums over blocks, a seed) to beliefs, each later than the one before
Gradient = Callable[[Separable, int], Iterator[Belief]]
