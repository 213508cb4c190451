import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from ofa_deploy.blocks import Network, random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.export import parity
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import CellSpace, Genotype
from ofa_deploy.space.genotype import OPERATIONS
from ofa_deploy.supernet import Subnet

# every operation, in normal cells and at stride 2
ALL = [
    [["sep_conv_3x3", 0], ["sep_conv_5x5", 1]],
    [["dil_conv_3x3", 0], ["dil_conv_5x5", 2]],
    [["avg_pool_3x3", 1], ["max_pool_3x3", 0]],
    [["skip_connect", 1], ["skip_connect", 4]],
]
TARGET = TargetProfile(name="bench", description="a test's", runtime="onnxruntime")


@pytest.fixture(scope="module")
def network():
    space = CellSpace("all", Genotype.of({"normal": ALL, "reduce": ALL}), (16,), (4,), (5,), in_channels=1)
    return space.network(space.largest)


def test_the_graph_computes_what_torch_does(network):
    assert {kind for op in network.ops for kind in [op.kind]} >= {"fact_reduce", "add", "concat", "dil_conv"}
    subnet = Subnet(network).eval()
    weights = random_weights(network)
    subnet.load_weights(weights)
    images = np.random.default_rng(0).standard_normal((4, 1, 16, 16)).astype(np.float32)
    found = parity(subnet, onnx_bytes(write_onnx(network, weights, TARGET)), images)
    assert found.max_abs < 1e-4 * np.abs(found.torch).max()


def test_every_block_alone_is_a_graph(network):
    rng = np.random.default_rng(0)
    for op in {op.key: op for op in network.ops}.values():
        single = Network.single(op)
        weights = random_weights(single)
        model = write_onnx(single, weights, TARGET)
        x = rng.standard_normal((1, *op.input_shape)).astype(np.float32)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        module = Subnet(single).eval()
        module.load_weights(weights)
        with torch.inference_mode():
            wanted = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(None, {"input": x})[0], wanted, atol=1e-4)


def test_cells_measured_alone_are_those_that_ship(network):
    """One after the other, with their shares of the weights, they compute what the whole network does."""
    weights, image = random_weights(network), np.random.default_rng(0).standard_normal((1, 1, 16, 16))
    before = last = image.astype(np.float32)
    for unit in network.units:
        single = unit.op.kind != "cell"
        own = {unit.name} if single else set(unit.network.names)
        mine = {name: value for name, value in weights.items() if name.split(".")[0] in own}
        mine = {"op" + name.removeprefix(unit.name) if single else name: value for name, value in mine.items()}
        answer = run(write_onnx(unit.network, mine, TARGET), [last] if single else [before, last])
        before, last = last, answer
        before = last if unit.name == "stem" else before
    np.testing.assert_allclose(last, run(write_onnx(network, weights, TARGET), [image.astype(np.float32)]), rtol=1e-4)


def run(model, inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {node.name: x for node, x in zip(session.get_inputs(), inputs, strict=False)})[0]


def test_blocks_are_what_darts_says():
    """Against plain torch layers, written from the paper's appendix."""
    space = CellSpace("one", Genotype.of({"normal": ALL, "reduce": ALL}), (16,), (4,), (5,))
    sep = next(op for op in space.network(space.largest).ops if op.kind == "sep_conv" and op.stride == 2)
    module = Subnet(Network.single(sep)).eval()
    weights = random_weights(module.network)
    module.load_weights(weights)
    c = sep.cin
    layers = []
    for part, stride in (("first", 2), ("second", 1)):
        depthwise = nn.Conv2d(c, c, sep.kernel, stride, sep.kernel // 2, groups=c, bias=False)
        point, bn = nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c)
        depthwise.weight.data = torch.from_numpy(weights[f"op.{part}.depthwise.weight"])
        point.weight.data = torch.from_numpy(weights[f"op.{part}.conv.weight"])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(bn, name).data = torch.from_numpy(weights[f"op.{part}.bn.{name}"])
        layers += [nn.ReLU(), depthwise, point, bn]
    x = torch.randn(2, *sep.input_shape)
    with torch.inference_mode():
        torch.testing.assert_close(module(x), nn.Sequential(*layers).eval()(x))


def test_tensorrt_compiles_it(network):
    rtx = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX's wheels are no extra; see INSTALL in the runtime")
    from device_agents.runtimes.tensorrt import build_plan, make_log

    model = onnx_bytes(write_onnx(network, random_weights(network), TARGET))
    assert build_plan(rtx, make_log(rtx), model, "fp32", rtx.ComputeCapability.SM80).nbytes > 1000


def test_all_operations_are_covered():
    assert {operation for node in ALL for operation, _ in node} == set(OPERATIONS)
