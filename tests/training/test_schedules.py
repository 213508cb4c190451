"""Phases: what opens when, for how long, at which learning rates."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ofa_deploy.config import DataConfig, TrainRecipe, read_document
from ofa_deploy.errors import UsageError
from ofa_deploy.space import load_space
from ofa_deploy.training.schedules import Rate, plan

SPACE = load_space("small_28")


def recipe(**changes):
    data = DataConfig(name="digits")
    return TrainRecipe(name="r", space="small_28", data=data, **{"epochs": 10, "schedule": "progressive", **changes})


def test_learning_rate_warms_up_and_falls_to_zero():
    rate = Rate(100, 50, 10, 0.4)
    rates = [rate.at(100 + step) for step in range(50)]
    assert rates[10] == max(rates) == pytest.approx(0.4)
    assert all(a < b for a, b in pairwise(rates[:11]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert 0 < rates[-1] < 0.001


def test_the_sandwich_opens_everything_at_once_under_one_learning_rate():
    alone, all_open = plan(recipe(schedule="sandwich", largest_epochs=1.5), SPACE, 20)
    assert (alone.first, alone.end, all_open.end) == (0, 30, 200)
    assert alone.rate == all_open.rate == Rate(0, 200, 10, 0.1)
    assert all_open.space == SPACE
    assert alone.space.smallest == alone.space.largest == SPACE.largest
    assert all_open.trained == alone.space
    (only,) = plan(recipe(schedule="sandwich"), SPACE, 20)
    assert (only.name, only.trained, only.end) == ("sandwich", None, 200)


def opened(phase):
    second, third = phase.space.stages[1:]
    return phase.name, second.depths, second.kernels, second.expands, third.expands, phase.space.widths


def test_the_progressive_schedule_opens_one_choice_after_the_other():
    phases = plan(recipe(), SPACE, 100)
    assert [opened(phase) for phase in phases] == [
        ("largest", (3,), (5,), (3,), (4,), (1.0,)),
        ("kernel", (3,), (3, 5), (3,), (4,), (1.0,)),
        ("depth", (2, 3), (3, 5), (3,), (4,), (1.0,)),
        ("depth", (1, 2, 3), (3, 5), (3,), (4,), (1.0,)),
        ("expand", (1, 2, 3), (3, 5), (2, 3), (3, 4), (1.0,)),
        ("expand", (1, 2, 3), (3, 5), (2, 3), (2, 3, 4), (1.0,)),
        ("width", (1, 2, 3), (3, 5), (2, 3), (2, 3, 4), (0.75, 1.0)),
    ]
    assert phases[-1].space == SPACE
    assert all(phase.space.largest == SPACE.largest for phase in phases)
    assert all(phase.space.resolutions == SPACE.resolutions for phase in phases)
    assert [phase.trained for phase in phases] == [None] * 4 + [phase.space for phase in phases[3:-1]]


def test_phases_share_the_epochs_and_have_their_own_learning_rates():
    changes = {
        "largest": {"share": [4]},
        "kernel": {"share": [2], "lr": [0.5], "subnets": 3},
        "depth": {"share": [1, 1]},
        "expand": {"share": [0.5], "lr": [0.2, 0.1]},
        "width": {"share": [1]},
    }
    phases = plan(recipe(progressive=changes, lr=0.2, warmup_epochs=1), SPACE, 100)
    assert [phase.end for phase in phases] == [400, 600, 700, 800, 850, 900, 1000]
    assert all(a.end == b.first for a, b in pairwise(phases))
    assert [phase.subnets for phase in phases] == [1, 3, 2, 2, 4, 4, 4]
    assert [phase.rate.peak for phase in phases] == pytest.approx([0.2, 0.1, 0.006, 0.018, 0.04, 0.02, 0.006])
    assert [phase.rate.warm for phase in phases] == pytest.approx([40, 20, 10, 10, 5, 5, 10])
    assert [(p.rate.first, p.rate.steps) for p in phases] == [(p.first, p.end - p.first) for p in phases]


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_few_steps_leave_phases_out_but_never_the_teacher(steps):
    phases = plan(recipe(epochs=1), SPACE, steps)
    assert phases[0].name == "largest"
    assert phases[0].first == 0
    assert phases[-1].end == steps
    assert all(a.end == b.first for a, b in pairwise(phases))
    assert all(later.trained in (None, before.space) for before, later in pairwise(phases))


@pytest.mark.parametrize("schedule", ["sandwich", "progressive"])
def test_a_space_with_a_single_subnet_trains_that_alone(schedule):
    stage = {"width": 8, "depths": [1], "kernels": [3], "expands": [2]}
    space = load_space({"name": "one", "base": "tiny_16", "stages": [stage], "resolutions": [16], "widths": [1.0]})
    (only,) = plan(recipe(schedule=schedule), space, 20)
    assert (only.name, only.end, only.space) == ("largest", 200, space)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"progressive": {"depth": {"shares": [1]}}}, "progressive.depth.shares: unknown key"),
        ({"progressive": {"bottom": {"share": [1]}}}, "progressive.bottom: unknown key"),
        ({"progressive": {"depth": {"share": []}}}, "progressive.depth.share"),
        ({"progressive": {"largest": {"share": [0]}}}, "progressive.largest.share.0"),
        ({"progressive": []}, "progressive: "),
        ({"progressive": {"depth": 3}}, "progressive.depth: "),
        ({"patience": 3}, "patience needs evaluate_every"),
        ({"alpha": [1, 2]}, "alpha.0"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    given = {"name": "r", "space": "small_28", "data": {"name": "digits"}, "epochs": 3, **changes}
    with pytest.raises(UsageError, match=message):
        read_document(TrainRecipe, given)
