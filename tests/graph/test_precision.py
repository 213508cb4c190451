import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ofa_deploy.blocks import random_weights
from ofa_deploy.errors import UsageError
from ofa_deploy.export import run_onnx
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.graph import check_graph, model_file, write_onnx
from ofa_deploy.space import PRESETS

SPACE = PRESETS["tiny_16"]
NETWORK = SPACE.network(SPACE.smallest)
WEIGHTS = random_weights(NETWORK)
IMAGES = np.random.default_rng(0).standard_normal((16, *NETWORK.input_shape)).astype(np.float32)


def target(name, **changed):
    return read_profile(name).model_copy(update=changed)


def written(name, precision, **changed):
    return model_file(NETWORK, WEIGHTS, target(name, precision=precision, **changed), IMAGES)


@pytest.mark.parametrize(("precision", "kind"), [("fp16", TensorProto.FLOAT16), ("int8", TensorProto.INT8)])
@pytest.mark.parametrize("opset", [13, 17])
def test_weights_are_in_the_precision_and_inputs_and_outputs_stay_float(precision, kind, opset):
    made = onnx.load_from_string(written("local", precision, opset=opset))
    weights = [c for c in made.graph.initializer if len(c.dims) == 4]
    assert weights
    assert {c.data_type for c in weights} == {kind}
    ends = (*made.graph.input, *made.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.01), ("int8", 0.3)])
def test_answers_stay_close_to_those_of_fp32(precision, most):
    exact, close = (run_onnx(written("local", p), [IMAGES]) for p in ("fp32", precision))
    assert 0 < np.abs(exact - close).max() < most * np.ptp(exact)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_same_images_give_the_same_bytes(precision):
    assert written("local", precision) == written("local", precision)


def test_int8_weights_have_a_scale_for_each_channel():
    made = onnx.load_from_string(written("local", "int8"))
    scales = {c.name: numpy_helper.to_array(c) for c in made.graph.initializer if c.name.endswith("weight_scale")}
    assert scales
    assert all(scale.size > 1 for scale in scales.values())


def test_int8_for_tensorrt_has_no_zero_points_and_obeys_its_rules():
    made = onnx.load_from_string(written("jetson_nano", "int8"))
    points = [numpy_helper.to_array(c) for c in made.graph.initializer if c.name.endswith("zero_point")]
    assert points
    assert not any(point.any() for point in points)
    check_graph(made, target("jetson_nano"))


def test_a_builder_gets_fp32_to_make_fp16_of():
    assert written("jetson_nano", "fp16") == written("jetson_nano", "fp32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allowed_ops": ("Conv",)}, r"node stem\.act\.gate is a HardSigmoid.*allowed_ops leaves out"),
        ({"opset": 11}, "opset 13, the profile's opset is 11"),
        ({"batch": 2}, r"input has the shape \[1, .*batch 2"),
        ({"allowed_types": ("FLOAT16",)}, "is of type FLOAT, which the profile's allowed_types"),
    ],
)
def test_a_broken_rule_is_named_with_the_node(changes, message):
    model = write_onnx(NETWORK, WEIGHTS, target("jetson_nano"))
    with pytest.raises(UsageError, match=message):
        check_graph(model, target("jetson_nano", **changes))


def test_a_zero_point_and_bytes_are_refused_for_the_nano():
    asymmetric = onnx.load_from_string(written("local", "int8", opset=13))
    with pytest.raises(UsageError, match=r"node .* has a zero point that is not 0|is a HardSwish"):
        check_graph(asymmetric, target("jetson_nano"))
    model = write_onnx(NETWORK, WEIGHTS, target("jetson_nano"))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(UsageError, match="input is of type UINT8"):
        check_graph(model, target("jetson_nano"))


def test_a_free_batch_is_refused():
    model = write_onnx(NETWORK, WEIGHTS, target("local"))
    sides = ["N", *NETWORK.input_shape]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, sides))
    with pytest.raises(UsageError, match=r"input has the shape \[free, .*not static"):
        check_graph(model, target("local"))
