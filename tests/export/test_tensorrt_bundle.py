"""What a TensorRT bundle carries: the recipe, and real TensorRT-RTX engines where its wheels are installed."""

import hashlib
import json

import numpy as np
import pytest

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.export.tensorrt_files import RECIPE, RTX_ENGINE, rtx_engine, tensorrt_files
from ofa_deploy.fleet import resolve_target
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.space import PopulationCodec, load_space

SIMULATED = {"simulated": True, "runtime_version": "1"}
MEASURED = {"simulated": False, "runtime_version": "8.2.1"}


@pytest.fixture(scope="module")
def nano():
    return resolve_target("jetson_nano").model_copy(update={"runtime": "tensorrt", "provider": "TensorRT"})


@pytest.fixture(scope="module")
def model():
    codec = PopulationCodec(load_space("tiny_16"))
    arch = codec.decode(codec.sample(1, np.random.default_rng(0)))[0]
    return network_item(codec.space.network(arch), arch, resolve_target("local")).model


def test_the_recipe_says_how_each_version_builds(nano, model):
    files = tensorrt_files(nano, model, MEASURED)
    recipe = json.loads(files[RECIPE])
    assert list(files) == [RECIPE], "no engine travels"
    assert recipe["onnx"] == {"file": "model.onnx", "sha256": hashlib.sha256(model).hexdigest(), "opset": 17}
    assert (recipe["tensorrt"], recipe["precision"], recipe["engine"]) == ("8.2.1", "fp16", None)
    assert recipe["commands"]["8.2"].startswith(
        "trtexec --onnx=model.onnx --saveEngine=model.engine --noTF32 --buildOnly"
    )
    assert "--fp16" in recipe["flags"]["10.0"]
    assert "--fp16" not in recipe["flags"]["11.0"]
    assert tensorrt_files(nano, model, MEASURED) == files
    assert json.loads(tensorrt_files(nano, model, SIMULATED)[RECIPE])["tensorrt"] is None


def test_other_targets_carry_nothing(model):
    assert tensorrt_files(resolve_target("local"), model, MEASURED) == {}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rtx_engines_are_built_here(nano, model, precision):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX's wheels are no extra; see INSTALL in the runtime")
    desktop = nano.model_copy(update={"provider": "TensorRT-RTX", "precision": precision})
    files = tensorrt_files(desktop, model, MEASURED)
    assert json.loads(files[RECIPE])["engine"] == RTX_ENGINE
    assert len(files[RTX_ENGINE]) > 10_000
    assert rtx_engine(model, precision) == files[RTX_ENGINE], "the same inputs give the same bytes"
    with pytest.raises(OfaDeployError, match="compiles no engine"):
        rtx_engine(b"garbage", precision)


def test_without_rtx_there_is_a_recipe_alone(nano, model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    files = tensorrt_files(nano.model_copy(update={"provider": "TensorRT-RTX"}), model, MEASURED)
    assert (list(files), json.loads(files[RECIPE])["engine"]) == ([RECIPE], None)
