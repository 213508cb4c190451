"""What happens to the weights in a step: the optimiser, and the average over the steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.supernet import Supernet


def make_optimiser(supernet: Supernet, recipe: TrainRecipe) -> torch.optim.SGD:
    """SGD with Nesterov momentum; decay on convolution and linear weights only.

    Gradients and buffers exist from the start: a parameter that no subnet of a step uses must not make that step, or a
    resume after it, any different.
    """
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in supernet.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        (decayed if name.endswith("weight") and parameter.ndim > 1 else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    for parameter in supernet.parameters():
        optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


@torch.no_grad()
def update_average(average: Supernet, supernet: Supernet, decay: float, done: int) -> None:
    """Move an exponential moving average of the weights by one step.

    Args:
        done: steps averaged before: the first ones count more, (1 + done) / (10 + done) being the decay until that
            exceeds the given one.
    """
    decay = min(decay, (1 + done) / (10 + done))
    torch._foreach_lerp_(list(average.parameters()), list(supernet.parameters()), 1 - decay)
