"""The gradient of the architecture: the validation loss of weights that follow it (DARTS, Liu et al., ICLR 2019, §2.3),
and the curvature that warns of a collapse."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from ofa_deploy.differentiable.mixing import KINDS, SearchNetwork

Batch = tuple[Tensor, Tensor]  # images as the network sees them, and labels
REACH = 0.01  # how far to both sides, over the vector's norm, as published
POWER_STEPS = 12  # of the power iteration


def architecture_loss(network: SearchNetwork, batch: Batch, zero_one: float) -> Tensor:
    """Cross entropy, and ``zero_one`` times FairDARTS' loss (§4.2): minus the mean square of the sigmoids' distance
    from a half."""
    loss = F.cross_entropy(network(batch[0]), batch[1])
    if not zero_one:
        return loss
    gaps = [(network.weights(kind) - 0.5).square().mean() for kind in KINDS]
    return loss - zero_one * torch.stack(gaps).mean()


def first_order(network: SearchNetwork, valid: Batch, zero_one: float) -> tuple[float, list[Tensor]]:
    """Loss and gradient as if the weights were optimal already."""
    loss = architecture_loss(network, valid, zero_one)
    return loss.item(), list(torch.autograd.grad(loss, network.architecture))


def second_order(
    network: SearchNetwork,
    train: Batch,
    valid: Batch,
    zero_one: float,
    rate: float,
    steps: Mapping[str, Tensor],
    weight_decay: float,
) -> tuple[float, list[Tensor]]:
    """Loss and gradient at the weights after one more step, ``w' = w − rate · (momentum + decay · w + ∇ train loss)``.

    What the architecture does to that step is a product of a second derivative with ``∇ valid loss(w')``; it is taken
    as the difference of the architecture's training gradients a little to both sides (equation 8).

    Args:
        steps: momentum times its buffer of every weight, by name.
    """
    weights = network.learned
    names, values = list(weights), list(weights.values())
    inner = torch.autograd.grad(F.cross_entropy(network(train[0]), train[1]), values)
    ahead = {
        name: (w - rate * (steps[name] + g + weight_decay * w)).detach().requires_grad_()
        for name, w, g in zip(names, values, inner, strict=True)
    }
    logits = functional_call(network, ahead, (valid[0],))
    loss = F.cross_entropy(logits, valid[1])
    if zero_one:
        loss = loss - zero_one * torch.stack([(network.weights(k) - 0.5).square().mean() for k in KINDS]).mean()
    found = torch.autograd.grad(loss, [*network.architecture, *ahead.values()])
    direct, vector = found[: len(network.architecture)], found[len(network.architecture) :]
    epsilon = REACH / torch.cat([part.flatten() for part in vector]).norm().clamp_min(1e-12)
    sides = []
    for sign in (1, -1):
        moved = {n: (w + sign * epsilon * v).detach() for n, w, v in zip(names, values, vector, strict=True)}
        gap = F.cross_entropy(functional_call(network, moved, (train[0],)), train[1])
        sides.append(torch.autograd.grad(gap, network.architecture))
    gradients = [d - rate * (p - m) / (2 * epsilon) for d, p, m in zip(direct, *sides, strict=True)]
    return loss.item(), gradients


def dominant_eigenvalue(network: SearchNetwork, valid: Batch, seed: int) -> float:
    """The largest absolute eigenvalue of the validation loss' Hessian by the architecture: power iteration."""
    parameters = network.architecture
    loss = F.cross_entropy(network(valid[0]), valid[1])
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(len(gradient), generator=generator).to(gradient)
    value = 0.0
    for _ in range(POWER_STEPS):
        vector = vector / vector.norm().clamp_min(1e-12)
        product = torch.autograd.grad(gradient @ vector, parameters, retain_graph=True)
        product_vector = torch.cat([g.flatten() for g in product])
        value, vector = float(product_vector @ vector), product_vector
    return abs(value)
