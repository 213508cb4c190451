"""One subnet trained alone: the same network, the same recipe, and a teacher where one is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.space import PRESETS, PopulationCodec, frozen, load_space
from ofa_deploy.supernet import Supernet, as_subnet, as_supernet, initialise, load_supernet, save_supernet
from ofa_deploy.training import alone_recipe, expected_seconds, load_data, train_supernet, training_id
from tests.training.test_training_loop import (
    SPACE,
    Stop,
    assert_same_result,
    metrics,
    recipe,
    stop_after,
)

ELASTIC = load_space(SPACE)


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    path = tmp_path_factory.mktemp("supernet") / "supernet.safetensors"
    made = Supernet(ELASTIC)
    initialise(made, 3)
    save_supernet(path, made.eval(), {})
    return path


@pytest.mark.parametrize("name", ["tiny_16", "uib_16", "small_28", "ofa_mbv3_w1.0"])
def test_a_frozen_space_has_one_subnet_of_the_same_blocks(name):
    space = PRESETS[name]
    codec = PopulationCodec(space)
    for arch in [space.largest, space.smallest, *codec.decode(codec.sample(6, np.random.default_rng(0)))]:
        single = load_space(frozen(space, arch).to_json())
        assert single.largest == single.smallest
        assert single.network(single.largest).ops == space.network(arch).ops


def test_weights_travel_into_a_frozen_space_and_back(supernet):
    whole, space = load_supernet(supernet)[0], ELASTIC
    for arch in PopulationCodec(space).decode(PopulationCodec(space).sample(4, np.random.default_rng(1))):
        subnet = whole.extract(arch)
        single = as_supernet(subnet, frozen(space, arch))
        x = torch.randn(2, 1, arch.resolution, arch.resolution)
        with torch.no_grad():
            assert torch.equal(single(x, single.space.largest), subnet(x))
        back = as_subnet(single, space.network(arch))
        assert all(np.array_equal(value, back.weights()[name]) for name, value in subnet.weights().items())


def test_the_recipe_stays_but_for_the_schedule():
    whole = recipe(warmup_epochs=0.6, evaluate_every=1, patience=2, ema=0.9)
    alone = alone_recipe(whole, ELASTIC, ELASTIC.smallest, 1, seed=4)
    assert (alone.data, alone.batch_size, alone.lr, alone.ema) == (whole.data, whole.batch_size, whole.lr, 0.9)
    assert (alone.epochs, alone.seed, alone.patience) == (1, 4, 0)
    assert alone.warmup_epochs == pytest.approx(0.2)


def test_a_rate_or_length_of_zero_is_refused_not_replaced():
    for changes, what in (({"lr": 0.0, "epochs": 1}, "lr"), ({"epochs": 0}, "epochs")):
        with pytest.raises(UsageError, match=rf"{what}: Input should be greater than 0"):
            alone_recipe(recipe(), ELASTIC, ELASTIC.smallest, **changes)


def test_what_a_result_depends_on_is_its_id():
    data = load_data(recipe().data)
    alone = alone_recipe(recipe(), ELASTIC, ELASTIC.smallest, 1)
    same = alone.model_copy(update={"threads": 2, "checkpoint_seconds": 9})
    others = [
        alone_recipe(recipe(), ELASTIC, arch, 1, seed) for arch, seed in ((ELASTIC.largest, 0), (ELASTIC.smallest, 1))
    ]
    assert training_id(alone, data) == training_id(same, data)
    assert len({training_id(alone, data), training_id(alone, data, "a"), *(training_id(o, data) for o in others)}) == 4


def test_ids_are_those_of_the_version_that_came_before_sampling():
    fields = {"name": "r", "space": "tiny_16", "data": {"name": "digits", "valid": 297}, "epochs": 2, "threads": 1}
    before = TrainRecipe.model_validate(fields)
    data = load_data(before.data)
    assert training_id(before, data, "a") == "a951825fc5cd425dcdf2e97188472b669132a975d77ddee8d0d67004345d623b"
    assert training_id(before.model_copy(update={"sampling": "spread"}), data, "a") != training_id(before, data, "a")


def test_a_teacher_of_another_space_teaches_and_a_resumed_run_is_the_same(supernet, tmp_path):
    init = tmp_path / "init.safetensors"
    subnet = load_supernet(supernet)[0].extract(ELASTIC.smallest)
    save_supernet(init, as_supernet(subnet, frozen(ELASTIC, ELASTIC.smallest)), {})
    taught = alone_recipe(recipe(), ELASTIC, ELASTIC.smallest, 1, lr=0.01, init=init, teacher=supernet)
    train_supernet(taught, tmp_path / "whole")
    steps = [line for line in metrics(tmp_path / "whole") if "loss" in line]
    assert steps
    assert all(line["distill"] > 0 for line in steps)
    with pytest.raises(Stop):
        train_supernet(taught, tmp_path / "killed", report=stop_after(2))
    train_supernet(taught, tmp_path / "killed", resume=True)
    assert_same_result(tmp_path / "killed", tmp_path / "whole")


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_supernet(path, Supernet(load_space({**SPACE, "num_classes": 3})), {})
    with pytest.raises(UsageError, match="num_classes is 3"):
        train_supernet(alone_recipe(recipe(), ELASTIC, ELASTIC.smallest, 1, teacher=path), tmp_path / "run")
    with pytest.raises(ValueError, match="teacher needs schedule: progressive"):
        recipe(teacher=path)


def test_times_are_between_those_of_the_ends():
    archs = [ELASTIC.smallest, ELASTIC.largest]
    first, last = expected_seconds(recipe(epochs=2), ELASTIC, archs, load_data(recipe().data))
    assert first > 0
    assert last > 0
