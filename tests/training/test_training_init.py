"""A trained base becomes the largest subnet of a supernet, which trains, and whose subnets are exported."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import PopulationCodec, load_space
from ofa_deploy.supernet import load_supernet
from ofa_deploy.training import train_supernet
from tests.training import test_training_loop
from tests.training.test_training_loop import RECIPE, Stop, assert_same_result, metrics, stop_after

STAGE = {"act": "silu", "se": True, "squeeze": "input"}
BASE = {
    "name": "dwarf-efficientnet",
    "base": "efficientnet_b0",
    "stages": [
        {"width": 8, "stride": 1, "depths": [1], "kernels": [3], "expands": [1], **STAGE},
        {"width": 16, "stride": 2, "depths": [2], "kernels": [5], "expands": [4], **STAGE},
    ],
    "resolutions": [20],
    "in_channels": 1,
    "num_classes": 10,
    "stem_width": 8,
    "head_width": 64,
    "bn_eps": 1e-3,
}
CHOICES = {"depth": [-1], "kernel": [3], "expand": [2], "width": [0.5], "resolution": [16]}
ELASTIC = {**BASE, "name": "elastic", "elastic": CHOICES}
PHASES = {"largest": {"share": [2]}, "kernel": {"share": [2]}, "depth": {"share": [2]}, "expand": {"share": [2]}}
SCHEDULES = {
    "sandwich": {"largest_epochs": 0.5},
    "progressive": {"schedule": "progressive", "progressive": {**PHASES, "width": {"share": [1]}}},
}


def recipe(space, **changes):
    small = {"data": {**RECIPE["data"], "valid": 1077, "augment": []}, "batch_size": 60, "warmup_epochs": 0}
    return test_training_loop.recipe(space=space, **{**small, "epochs": 2, **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train_supernet(recipe(BASE, epochs=6), tmp_path_factory.mktemp("base"))


def test_one_network_is_trained_alone(base):
    assert {line["phase"] for line in metrics(base.parent) if "loss" in line} == {"largest"}
    assert load_supernet(base)[1]["valid"]["largest"] > 0.5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_supernet_starts_from_its_base_and_resumes_without_it(base, tmp_path, schedule):
    init = tmp_path / "base.safetensors"
    init.write_bytes(base.read_bytes())
    asked = recipe(ELASTIC, init=str(init), **SCHEDULES[schedule])
    whole = train_supernet(asked, tmp_path / "whole")
    first = {folder: metrics(folder)[0]["accuracy"] for folder in (base.parent, whole.parent)}
    assert first[whole.parent] > first[base.parent] + 0.3
    with pytest.raises(Stop):
        train_supernet(asked, tmp_path / "cut", report=stop_after(6))
    init.unlink()
    train_supernet(asked, tmp_path / "cut", resume=True)
    assert_same_result(tmp_path / "cut", tmp_path / "whole")


def test_its_subnets_are_exported(base, tmp_path):
    supernet = load_supernet(train_supernet(recipe(ELASTIC, init=str(base), epochs=1), tmp_path))[0]
    codec = PopulationCodec(supernet.space)
    sampled = codec.decode(codec.sample(4, np.random.default_rng(0)))
    for arch in (supernet.space.largest, supernet.space.smallest, *sampled):
        subnet, image = supernet.extract(arch).eval(), torch.randn(1, 1, arch.resolution, arch.resolution)
        graph = write_onnx(subnet.network, subnet.weights(), resolve_target("local"))
        session = onnxruntime.InferenceSession(onnx_bytes(graph), providers=["CPUExecutionProvider"])
        with torch.inference_mode():
            expected = subnet(image).numpy()
            np.testing.assert_allclose(supernet.eval()(image, arch).numpy(), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(session.run(None, {"input": image.numpy()})[0], expected, rtol=1e-3, atol=1e-4)


def test_a_base_of_another_network_is_refused(base, tmp_path):
    other = {**ELASTIC, "head_width": 32}
    with pytest.raises(UsageError, match=r"elastic and dwarf-efficientnet differ in 2 fields, first in head.cout: 32"):
        train_supernet(recipe(other, init=str(base)), tmp_path)
    with pytest.raises(UsageError, match=r"no.*missing.safetensors"):
        train_supernet(recipe(ELASTIC, init=str(tmp_path / "missing.safetensors")), tmp_path)
    assert load_space(ELASTIC).largest.resolution == 20
