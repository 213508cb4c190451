"""Kinds of blocks that only some targets can run: every runtime, compiler and precision that is at hand."""

import os

import numpy as np
import onnx
import pytest

from device_agents.runtimes import open_runtime
from ofa_deploy.blocks import Network, OpSpec, random_weights
from ofa_deploy.errors import UsageError
from ofa_deploy.export import run_onnx
from ofa_deploy.fleet import resolve_target
from ofa_deploy.fleet.profiling import block_item
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.graph import model_file, write_onnx
from ofa_deploy.space import PRESETS

OPS = [
    OpSpec("bottleneck", 9, 8, 16, 8, 24, 3, 2, "relu"),
    OpSpec("convnext", 9, 7, 16, 32, 16, 7, 1, "gelu", skip=True),
    OpSpec("shuffle", 9, 7, 16, 8, 16, 3, 1, "relu", skip=True),
    OpSpec("mqa", 9, 9, 16, 32, 16, 3, 1, "relu", skip=True, heads=2, key_width=16),
    OpSpec("mqa", 9, 9, 16, 32, 24, 5, 2, "hswish", heads=2, key_width=16),
    OpSpec("transformer", 7, 7, 16, 32, 16, 3, 1, "gelu", skip=True, heads=2, key_width=8),
]
PROVIDERS = {"openvino": "CPU", "torch": "cpu"}
each_kind = pytest.mark.parametrize("op", OPS, ids=lambda op: op.key)


@pytest.fixture(autouse=True)
def affinity():
    """Opening a runtime pins the process."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def answer(runtime, provider, model):
    asked = {"runtime": runtime, "provider": provider, "precision": "fp32", "batch": 1, "threads": 1}
    return open_runtime(asked, 0).load({"item": "0"}, lambda: model).outputs()[0]


@pytest.mark.parametrize("opset", [13, 17, 18])
@pytest.mark.parametrize("name", PROVIDERS)
@each_kind
def test_runtimes_answer_as_onnx_runtime_does(op, name, opset):
    pytest.importorskip(name)
    target = resolve_target("local").model_copy(update={"opset": opset, "forbidden_ops": ("LayerNormalization",)})
    if opset == 17:
        target = target.model_copy(update={"forbidden_ops": ()})
    model = block_item(op, target).model
    asked = {"precision": "fp32", "batch": 1, "threads": 1}
    ours, theirs = (
        open_runtime({"runtime": runtime, "provider": provider, **asked}, 0)
        .load({"item": "0"}, lambda: model)
        .outputs()
        for runtime, provider in ((name, PROVIDERS[name]), ("onnxruntime", "CPUExecutionProvider"))
    )
    assert np.abs(theirs).max() > 1e-2
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("profile", ["jetson_nano", "jetson_orin_nano"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@each_kind
def test_tensorrt_compiles_each_kind(op, precision, profile):
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX's wheels are no extra; see INSTALL in the runtime")
    from device_agents.runtimes.tensorrt import build_plan, make_log

    network = Network.single(op)
    target = read_profile(profile).model_copy(update={"precision": precision})
    model = model_file(network, random_weights(network), target)
    kept = "fp32" if precision == "int8" else precision
    assert build_plan(rtx, make_log(rtx), model, kept, rtx.ComputeCapability.SM80).nbytes > 1000


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.02), ("int8", 0.3)])
@each_kind
def test_answers_of_other_precisions_stay_close(op, precision, most):
    network, local = Network.single(op), read_profile("local")
    images = np.random.default_rng(0).standard_normal((16, *op.input_shape)).astype(np.float32)
    weights = random_weights(network)
    exact, close = (
        run_onnx(model_file(network, weights, local.model_copy(update={"precision": each}), images), [images])
        for each in ("fp32", precision)
    )
    assert 0 < (exact - close).std() < most * exact.std()


@pytest.mark.parametrize("name", ["android_phone", "browser", "jetson_nano", "server_gpu_t4", "x86_cpu"])
@each_kind
def test_shipped_profiles_allow_each_kind(op, name):
    model = write_onnx(Network.single(op), random_weights(Network.single(op)), read_profile(name))
    onnx.checker.check_model(model, full_check=True)


def test_a_target_without_an_op_says_which():
    op, nano = OPS[-1], read_profile("jetson_nano")
    few = nano.model_copy(update={"allowed_ops": tuple(name for name in nano.allowed_ops if name != "Erf")})
    with pytest.raises(UsageError, match=r"jetson_nano: node op\.act\.erf is a Erf, .* search a space"):
        write_onnx(Network.single(op), random_weights(Network.single(op)), few)


@pytest.mark.parametrize("name", ["resnet_28", "mnv4_hybrid_28"])
def test_whole_networks_of_new_kinds_run_in_openvino(name):
    pytest.importorskip("openvino")
    space = PRESETS[name]
    network = space.network(space.largest)
    model = model_file(network, random_weights(network), read_profile("local"))
    asked = {"precision": "fp32", "batch": 1, "threads": 1}
    ours, theirs = (
        open_runtime({"runtime": runtime, "provider": provider, **asked}, 0)
        .load({"item": "0"}, lambda: model)
        .outputs()
        for runtime, provider in (("openvino", "CPU"), ("onnxruntime", "CPUExecutionProvider"))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
