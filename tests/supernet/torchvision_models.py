"""Networks of others with random weights, whose logits tell images apart."""

from __future__ import annotations

import torch
from torch import nn

from ofa_deploy.training.torchvision_shim import torchvision_module


def random_efficientnet(phi: int, side: int = 64, classes: int = 1000) -> nn.Module:
    """Torchvision's ``efficientnet_b<phi>``."""
    return random_torchvision(f"efficientnet_b{phi}", side, classes, phi)


def random_torchvision(name: str, side: int = 64, classes: int = 1000, seed: int = 0) -> nn.Module:
    """One of torchvision's models in evaluation mode."""
    torch.manual_seed(seed)
    return randomised(torchvision_module("models").__dict__[name](weights=None, num_classes=classes), side)


def randomised(model: nn.Module, side: int) -> nn.Module:
    """A model of random weights, in evaluation mode, with random batch-norm statistics, but near those of images: with
    others a signal fades on its way, and any two networks with the same biases look equal."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.8, 1.25)
            norm.bias.normal_(0, 0.3)
            norm.train().momentum = None
        model(torch.randn(4, 3, side, side))
        for norm in norms:
            norm.eval()
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
            norm.running_mean += norm.running_var.sqrt() * torch.randn_like(norm.running_mean) * 0.1
    return model


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of a logit, relative to the largest logit: rounding grows on its way through any network
    of random weights, whoever computes it."""
    return float((found - expected).abs().max() / expected.abs().max())
