"""What happens to the weights in a step: the optimiser, and the average over the steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from ofa_deploy.config import TrainRecipe
from ofa_deploy.supernet import Supernet


class Optimiser:
    """SGD with Nesterov momentum; decay on convolution and linear weights only.

    Gradients and buffers exist from the start: a parameter that no subnet of a step uses must not make that step, or a
    resume after it, any different. It computes with the function behind ``torch.optim.SGD``, because that class loads
    torch's compiler: seconds in which nothing is trained.

    Attributes:
        momentum: the buffer of every parameter, by name.
    """

    def __init__(self, supernet: Supernet, recipe: TrainRecipe) -> None:
        self._recipe = recipe
        self._parameters: dict[str, Tensor] = dict(supernet.named_parameters())
        for parameter in self._parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}
        decayed = [n for n, p in self._parameters.items() if n.endswith("weight") and p.ndim > 1]
        self._groups = [
            (decayed, recipe.weight_decay),
            ([name for name in self._parameters if name not in set(decayed)], 0.0),
        ]

    @torch.no_grad()
    def zero_grad(self) -> None:
        """Begin a step without gradients."""
        for parameter in self._parameters.values():
            if parameter.grad is not None:
                parameter.grad.zero_()

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Let the gradients move the weights.

        Args:
            rate: the learning rate of this step.
        """
        for names, decay in self._groups:
            parameters = [self._parameters[name] for name in names]
            sgd(
                parameters,
                [parameter.grad for parameter in parameters if parameter.grad is not None],
                [self.momentum[name] for name in names],
                weight_decay=decay,
                momentum=self._recipe.momentum,
                lr=rate,
                dampening=0.0,
                nesterov=self._recipe.momentum > 0,
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
