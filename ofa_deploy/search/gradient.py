"""What the strategy ``differentiable`` is given: something that learns, step by step, which choices are good.

The engine knows no gradients and no images. It hands over the constraints as sums over blocks, and gets beliefs back:
the probability of every choice at every place, from which it derives subnets that meet the constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ofa_deploy.config import Relaxation
from ofa_deploy.search.separable import Separable
from ofa_deploy.space import Population


@dataclass(frozen=True)
class GradientSettings:
    """How choices are learned.

    Attributes:
        relaxation: ``binary``: of every choice two paths are drawn, one of which runs (ProxylessNAS, Cai et al., ICLR
            2019, §3.2); ``gumbel``: all run, mixed with noise that cools down (FBNet, Wu et al., CVPR 2019);
            ``softmax``: all run, mixed by their probabilities (DARTS, Liu et al., ICLR 2019).
        steps: of the architecture, a batch each.
        train_weights: whether a copy of the supernet's weights is trained between them, on the training split.
    """

    relaxation: Relaxation = "binary"
    steps: int = 200
    train_weights: bool = False


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
