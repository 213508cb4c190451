"""What happens to the weights in a step: the optimiser, and the average over the steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from ofa_deploy.config import TrainRecipe
from ofa_deploy.supernet import Supernet


class Optimiser:
    """SGD with momentum. It computes with the function behind ``torch.optim.SGD``, because that class loads torch's
    compiler: seconds in which nothing is trained.

    Attributes:
        parameters: that it moves.
        momentum: the buffer of every parameter, by name, from the start on.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        recipe: TrainRecipe,
        nesterov: bool = False,
        all_decay: bool = True,
        all_move: bool = False,
    ) -> None:
        """Begin without momentum.

        Args:
            recipe: momentum, weight decay, and the bound on the norm of all gradients.
            all_decay: otherwise convolution and linear weights alone decay.
            all_move: a parameter that no network of a step uses moves, too, by its momentum and decay: in a supernet,
                whose subnets differ from step to step, it must not make that step, or a resume after it, any different.
                Otherwise it rests.
        """
        self._named, self._recipe, self._nesterov, self._all_move = dict(parameters), recipe, nesterov, all_move
        self.parameters = list(self._named.values())
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in self._named.items()}
        decayed = [n for n, p in self._named.items() if all_decay or (n.endswith("weight") and p.ndim > 1)]
        self._groups = [
            (decayed, recipe.weight_decay),
            ([name for name in self._named if name not in set(decayed)], 0.0),
        ]
        if all_move:
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Begin a step without gradients."""
        for parameter in self.parameters:
            if not self._all_move:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Let the gradients move the weights.

        Args:
            rate: the learning rate of this step.
        """
        recipe = self._recipe
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip_norm)
        for names, decay in self._groups:
            moving = [name for name in names if self._named[name].grad is not None]
            sgd(
                [self._named[name] for name in moving],
                [gradient for name in moving if (gradient := self._named[name].grad) is not None],
                [self.momentum[name] for name in moving],
                weight_decay=decay,
                momentum=recipe.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=self._nesterov and recipe.momentum > 0,
                maximize=False,
            )


@torch.no_grad()
def update_average(average: Supernet, supernet: Supernet, decay: float, done: int) -> None:
    """Move an exponential moving average of the weights by one step.

    Args:
        done: steps averaged before: the first ones count more, (1 + done) / (10 + done) being the decay until that
            exceeds the given one.
    """
    decay = min(decay, (1 + done) / (10 + done))
    torch._foreach_lerp_(list(average.parameters()), list(supernet.parameters()), 1 - decay)
