"""Guards stop what makes no sense, and nothing else."""

from __future__ import annotations

import pytest
import torch

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.training.guards import COLLAPSED, DIVERGED, Guards, tally

SPREAD = {"largest": {"hits": 3, "sum": 45, "squares": 285, "count": 10}}


def one_class(hits):
    return {"smallest": {"hits": hits, "sum": 30, "squares": 90, "count": 10}}


def walk(losses, tallies=SPREAD, classes=10, watch_from=0):
    guards = Guards(classes, watch_from)
    for step, loss in enumerate(losses):
        guards.check(step + 1, {"loss": loss}, tallies, 0.1)
    return guards


def test_a_tally_adds_up_and_knows_equal_predictions():
    logits, labels = torch.randn(12, 10), torch.randint(0, 10, (12,))
    whole, parts = tally(logits, labels), [tally(logits[:5], labels[:5]), tally(logits[5:], labels[5:])]
    assert whole == {key: parts[0][key] + parts[1][key] for key in whole}
    predicted = logits.argmax(1)
    assert whole["hits"] == (predicted == labels).sum()
    variance = whole["squares"] / 12 - (whole["sum"] / 12) ** 2
    assert variance == pytest.approx(predicted.double().var(correction=0).item())


def test_healthy_training_passes():
    assert not walk([2.3 * 0.99**i + (3.0 if i % 20 == 0 else 0) for i in range(600)]).suspicious
    assert not walk([0.001 if i % 3 else 0.5 for i in range(600)]).suspicious
    walk([9.0] * 300)  # a bad start is not yet a divergence


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once(bad):
    with pytest.raises(OfaDeployError, match=r"not finite at step 3: lower lr in the recipe \(now 0.1\)"):
        walk([2.0, 1.9, bad])


def test_a_loss_that_stays_high_stops_after_a_while():
    healthy = [1.0] * 100
    guards = walk([*healthy, *[40.0] * (DIVERGED - 1)])
    assert guards.suspicious
    with pytest.raises(
        OfaDeployError, match=rf"diverges: the loss is 40 at step {100 + DIVERGED}, above .* set clip_norm"
    ):
        walk([*healthy, *[40.0] * DIVERGED])
    assert not walk([*healthy, *[40.0] * (DIVERGED - 1), 1.0]).suspicious


def test_a_subnet_that_sees_one_class_everywhere_stops_the_training():
    walk([2.3] * (COLLAPSED - 1), one_class(1))
    with pytest.raises(OfaDeployError, match=f"the smallest subnet has seen one class .* for {COLLAPSED} steps"):
        walk([2.3] * COLLAPSED, one_class(1))
    assert not walk([2.3] * 400, one_class(1), watch_from=400).suspicious
    walk([0.1] * 400, one_class(9), classes=2)  # nearly all images are of that class
