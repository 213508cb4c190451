import numpy as np
import onnx
import onnxruntime
import pytest

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.half import to_fp16
from ofa_deploy.blocks import OpSpec
from ofa_deploy.fleet.profiling import block_item


def answer(model):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=session.get_inputs()[0].shape).astype(np.float32)
    return session.run(None, {"input": image})[0]


def test_computes_the_same_in_fp16_between_fp32_ends(make_items):
    model = make_items(1)[0].model
    half = to_fp16(model)
    weights = onnx.load_from_string(half).graph.initializer
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    full, halved = answer(model), answer(half)
    assert halved.dtype == np.float32
    assert 0 < np.abs(full - halved).max() < 0.01 * np.abs(full).max()


@pytest.mark.parametrize(
    "op",
    [
        OpSpec("fact_reduce", 8, 8, 4, 0, 8, 1, 2),
        OpSpec("transformer", 7, 7, 16, 32, 16, 3, 1, "gelu", skip=True, heads=2, key_width=8),
    ],
    ids=lambda op: op.kind,
)
def test_shapes_and_places_stay_whole_numbers(op, target):
    model = block_item(op, target).model
    half = onnx.load_from_string(to_fp16(model))
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}
    full, halved = answer(model), answer(half.SerializeToString())
    assert 0 < np.abs(full - halved).max() < 0.02 * np.abs(full).max()


def test_garbage_is_malformed():
    with pytest.raises(RuntimeRefused) as error:
        to_fp16(b"garbage")
    assert error.value.reason == "malformed"
