"""The torch runtime against ONNX Runtime on a few networks; ``tests/benchmarks/torch_parity.py`` takes 100."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_agents.runtimes import RuntimeRefused, open_runtime
from ofa_deploy.fleet import Fleet, resolve_target
from ofa_deploy.fleet.profiling import network_item, unit_item
from ofa_deploy.space import CellSpace, Genotype, PopulationCodec, load_space

ASKED = {"precision": "fp32", "batch": 1, "threads": 1}
TWO = [("torch", "cpu"), ("onnxruntime", "CPUExecutionProvider")]


def opened():
    """PyTorch and ONNX Runtime, without what opening them does to this process."""
    before = os.sched_getaffinity(0)
    runtimes = [open_runtime({"runtime": name, "provider": provider, **ASKED}, 0) for name, provider in TWO]
    os.sched_setaffinity(0, before)
    return runtimes


@pytest.mark.parametrize(("opset", "space"), [(13, "small_28"), (17, "small_28"), (17, "uib_28")])
def test_logits_equal_onnx_runtimes_on_random_networks(opset, space):
    runtimes = opened()
    target, codec = resolve_target("local").model_copy(update={"opset": opset}), PopulationCodec(load_space(space))
    for arch in codec.decode(codec.sample(5, np.random.default_rng(opset))):
        model = network_item(codec.space.network(arch), arch, target).model
        ours, theirs = (runtime.load({}, lambda model=model: model).outputs()[0] for runtime in runtimes)
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.fixture(scope="module")
def cells():
    """A network of cells with every operation that there is, in normal cells and at stride 2."""
    edges = [
        [["sep_conv_3x3", 0], ["sep_conv_5x5", 1]],
        [["dil_conv_3x3", 0], ["dil_conv_5x5", 2]],
        [["avg_pool_3x3", 1], ["max_pool_3x3", 0]],
        [["skip_connect", 1], ["skip_connect", 4]],
    ]
    space = CellSpace("all", Genotype.of({"normal": edges, "reduce": edges}), (16,), (4,), (5,), in_channels=1)
    return space.network(space.largest), space.largest


def test_a_network_of_cells_and_each_of_its_cells_equal_onnx_runtimes(cells):
    (ours, theirs), (network, arch) = opened(), cells
    target = resolve_target("local")
    items = [
        network_item(network, arch, target),
        *(unit_item(unit.network, target) for unit in network.units),
    ]
    used = {node.op_type for item in items for node in onnx.load_from_string(item.model).graph.node}
    assert used >= {"Concat", "Slice", "MaxPool", "AveragePool"}
    for item in items:
        found, expected = (runtime.load({}, lambda item=item: item.model).outputs() for runtime in (ours, theirs))
        np.testing.assert_allclose(found[0], expected[0], atol=1e-4 * np.abs(expected[0]).max())


def test_a_network_of_cells_is_measured_on_torch(workspace, target, quick_protocol, cells):
    torch = target.model_copy(update={"runtime": "torch", "provider": "cpu"})
    item = network_item(*cells, torch)
    with Fleet.open(workspace) as fleet:
        (record,) = fleet.measure(torch, [item], quick_protocol)
    assert (record.key, record.condition["runtime"]) == (item.key, "torch")
    assert 0.05 < record.best <= record.p50 < 1000


@pytest.mark.parametrize(
    ("op", "attributes", "constants"),
    [
        ("Slice", {}, {"starts": [1, -3], "ends": [2**63 - 1, -1], "axes": [1, 3]}),
        ("Slice", {}, {"starts": [0, 1], "ends": [1, 4]}),
        ("Slice", {}, {"starts": [1], "ends": [6], "axes": [-1], "steps": [2]}),
        ("Conv", {"pads": [1, 1, 1, 1]}, {"weight": np.linspace(-1, 1, 54).reshape(2, 3, 3, 3)}),
        (
            "Conv",
            {"strides": [2, 2], "pads": [0, 1, 2, 3], "group": 3},
            {"weight": np.linspace(-1, 1, 27).reshape(3, 1, 3, 3)},
        ),
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0]}, {}),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, {}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, {}),
    ],
)
def test_ops_mean_what_onnx_says(op, attributes, constants):
    model = one_op(op, attributes, constants)
    ours, theirs = (runtime.load({}, lambda: model).outputs()[0] for runtime in opened())
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "attributes", "constants"),
    [
        ("Slice", {}, {"starts": [5], "ends": [0], "axes": [3], "steps": [-1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "ceil_mode": 1}, {}),
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}, {}),
        ("AveragePool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, {}),
        ("Conv", {"pads": [0, 0, 1, 1], "auto_pad": "SAME_UPPER"}, {"weight": np.ones((2, 3, 3, 3))}),
    ],
)
def test_what_it_would_compute_otherwise_is_refused(op, attributes, constants):
    model = one_op(op, attributes, constants)
    with pytest.raises(RuntimeRefused) as error:
        opened()[0].load({}, lambda: model).run()
    assert error.value.reason == "unsupported-op"


def one_op(op, attributes, constants):
    ends = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 6, 6])]
    ends.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, None))
    node = helper.make_node(op, ["input", *constants], ["output"], **attributes)
    values = [
        numpy_helper.from_array(np.array(v, np.float32 if op == "Conv" else np.int64), k) for k, v in constants.items()
    ]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
