"""Distances between predictions, against their definitions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.training.distillation import alpha_divergence, distillation

NO_CLIP = 1e30


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher.log_softmax(1)


def gradient(loss, student):
    return torch.autograd.grad(loss, student)[0]


def defined(student, teacher, alpha):
    """Of every image, by the textbook."""
    q, p = student.softmax(1), teacher.exp()
    return (q * ((p / q) ** alpha - 1)).sum(1) / (alpha * (alpha - 1))


@pytest.mark.parametrize("alphas", [(-1.0, -1.0), (0.5, 0.5), (2.0, 2.0), (-1.0, 2.0)])
def test_value_and_gradient_are_those_of_the_definition(pair, alphas):
    student, teacher = pair
    found = alpha_divergence(student, teacher, alphas, NO_CLIP)
    expected = torch.stack([defined(student, teacher, alpha) for alpha in alphas]).amax(0).mean()
    assert found.item() == pytest.approx(expected.item())
    torch.testing.assert_close(gradient(found, student), gradient(expected, student))


@pytest.mark.parametrize(("alpha", "tolerance"), [(1.0, 1e-12), (1 + 1e-6, 1e-5)])
def test_alpha_towards_one_is_the_kullback_leibler_divergence(pair, alpha, tolerance):
    student, teacher = pair
    found = alpha_divergence(student, teacher, (alpha, alpha), NO_CLIP)
    expected = F.kl_div(student.log_softmax(1), teacher, reduction="batchmean", log_target=True)
    assert found.item() == pytest.approx(expected.item(), abs=tolerance)
    torch.testing.assert_close(gradient(found, student), gradient(expected, student), rtol=tolerance, atol=tolerance)


def test_clipping_bounds_the_gradient_of_an_image_that_the_student_gets_all_wrong():
    student = torch.tensor([[9.0, -9.0]], requires_grad=True)
    teacher = torch.tensor([[-9.0, 9.0]]).log_softmax(1)
    sizes = [gradient(alpha_divergence(student, teacher, (-1.0, -1.0), clip), student).abs().max() for clip in (5, 50)]
    assert sizes[0] < 5.1
    assert sizes[1] > 3 * sizes[0]


def test_equal_predictions_are_at_no_distance_and_feel_no_force(pair):
    _, teacher = pair
    student = teacher.clone().requires_grad_()
    for how in ("kl", "alpha"):
        recipe = TrainRecipe(name="r", space="tiny_16", data=DataConfig(name="digits"), epochs=1, distill=how)
        loss = distillation(recipe, student, teacher)
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert gradient(loss, student).abs().max() < 1e-12
