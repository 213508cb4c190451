"""How far a student's predictions are from its teacher's: losses whose gradient goes to the student alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.config import TrainRecipe


def distillation(recipe: TrainRecipe, logits: Tensor, teacher: Tensor) -> Tensor:
    """The recipe's distance of a student, by its logits ``[N, classes]``, from a teacher, by its log-probabilities: the
    mean over the images."""
    if recipe.distill == "kl":
        return F.kl_div(logits.log_softmax(1), teacher, reduction="batchmean", log_target=True)
    return alpha_divergence(logits, teacher, recipe.alpha, recipe.alpha_clip)


def alpha_divergence(logits: Tensor, teacher: Tensor, alphas: tuple[float, float], clip: float) -> Tensor:
    """For each image the greater of two α-divergences of the teacher p from the student q; their mean.

    D_α = Σ q ((p/q)^α − 1) / (α (α − 1)); a negative α punishes a student that is sure where its teacher is not, a
    positive one the opposite, and α = 1 is the Kullback-Leibler divergence. (p/q)^α is clipped, in the gradient
    −1/α Σ q (p/q)^α ∇log q too (AlphaNet, Wang et al., ICML 2021, §3 and §4).
    """
    student = logits.log_softmax(1)
    values, slopes = zip(*(_divergence(student, teacher, alpha, clip) for alpha in alphas), strict=True)
    first = values[0] > values[1]
    slope = torch.where(first, slopes[0], slopes[1]).mean()
    return slope + (torch.where(*(first, *values)).mean() - slope).detach()


def _divergence(student: Tensor, teacher: Tensor, alpha: float, clip: float) -> tuple[Tensor, Tensor]:
    """Of every image the divergence, and a term with its gradient."""
    fixed = student.detach()
    if alpha == 1:
        p = teacher.exp()
        return (p * (teacher - fixed)).sum(1), -(p * student).sum(1)
    q = fixed.exp()
    ratio = (alpha * (teacher - fixed)).clamp(max=math.log(clip)).exp()
    return (q * (ratio - 1)).sum(1) / (alpha * (alpha - 1)), -(q * ratio * student).sum(1) / alpha
