import dataclasses
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from ofa_deploy.blocks import Network, OpSpec, random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import PRESETS, PopulationCodec
from tests.graph import kinds_in_torch

SCALED = {f"efficientnet_{size}{i}" for size, most in (("b", 7), ("lite", 4)) for i in range(1, most + 1)}
WIDE = ("ofa_proxyless_w1.3", "ofa_resnet50")  # several times as wide as others: rounding adds up
SPACES = [name for name in PRESETS if name not in SCALED]  # the smallest have all their blocks


@pytest.fixture(autouse=True)
def one_thread():
    """Waiting for a second core takes far longer than these small batches where the machine is shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def profile(**changes):
    return TargetProfile(**{"name": "bench", "description": "a test's", "runtime": "onnxruntime", **changes})


@torch.inference_mode()
def reference(network, weights, x, calibrate=False):
    """The same network in plain torch functions, written from the papers' figures rather than from the graph writer.

    With ``calibrate``, batch statistics are first set to those of ``x`` in place, so that every activation has unit
    scale, as in a trained network, and no error hides behind a larger one.
    """
    t = {name: torch.from_numpy(value) for name, value in weights.items()}
    op_of = dict(zip(network.names, network.ops, strict=True))
    acts = {name: getattr(F, name) for name in ("relu", "relu6", "silu", "gelu")}
    acts |= {"hswish": F.hardswish, "none": lambda v: v}

    def conv_bn(x, name, stride=1, groups=1):
        op = op_of[name.partition(".")[0]]
        w = t[f"{name}conv.weight"]
        bn = [t[f"{name}bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        k = w.shape[-1]
        if op.same:  # as TensorFlow documents it
            (h1, h2), (w1, w2) = (
                (total // 2, total - total // 2)
                for total in (max(k - (side % stride or stride), 0) for side in x.shape[2:])
            )
            x = F.conv2d(F.pad(x, (w1, w2, h1, h2)), w, None, stride, groups=groups)
        else:
            x = F.conv2d(x, w, None, stride, k // 2, groups=groups)
        if calibrate:
            bn[0].copy_(x.mean((0, 2, 3)))
            bn[1].copy_(x.var((0, 2, 3)))
        return F.batch_norm(x, *bn, eps=op.eps)

    for name, op in zip(network.names, network.ops, strict=True):
        act, source = acts[op.act], x
        if op.kind == "stem":
            x = act(conv_bn(x, f"{name}.", op.stride))
        elif op.kind == "head":
            x = act(conv_bn(x, f"{name}.")).mean((2, 3))
        elif op.kind == "classifier":
            x = act(F.linear(x, t[f"{name}.mix.weight"])) if op.mid else x
            x = F.linear(x, t[f"{name}.linear.weight"], t[f"{name}.linear.bias"])
        elif op.kind in kinds_in_torch.KINDS:
            own = partial(lambda name, part: t[f"{name}.{part}"], name)
            bound = partial(lambda name, x, part, *more: conv_bn(x, f"{name}.{part}", *more), name)
            x = kinds_in_torch.KINDS[op.kind](x, op, own, act, bound)
        else:
            if op.start:  # of a uib: no activation follows, and it has the stride only where it is the only depthwise
                x = conv_bn(x, f"{name}.start.", 1 if op.kernel else op.stride, op.cin)
            if op.kind == "uib" or op.mid != op.cin:
                x = act(conv_bn(x, f"{name}.expand."))
            if op.kernel:
                x = act(conv_bn(x, f"{name}.depthwise.", op.stride, op.mid))
            if op.se:
                gate = F.conv2d(x.mean((2, 3), keepdim=True), *(t[f"{name}.se.reduce.{p}"] for p in ("weight", "bias")))
                inner, outer = (F.silu, torch.sigmoid) if op.act == "silu" else (F.relu, F.hardsigmoid)
                gate = F.conv2d(inner(gate), *(t[f"{name}.se.expand.{p}"] for p in ("weight", "bias")))
                x = x * outer(gate)
            x = conv_bn(x, f"{name}.project.") + (source if op.skip else 0)
    return x.numpy()


def run(model, x):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def some_networks(space):
    """The largest, the smallest and a random one, at a moderate resolution for speed."""
    codec = PopulationCodec(space)
    archs = [space.largest, space.smallest, *codec.decode(codec.sample(1, np.random.default_rng(3)))]
    return [space.network(dataclasses.replace(a, resolution=min(a.resolution, 96))) for a in archs]


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", SPACES)
def test_every_preset_matches_torch(name, opset):
    for network in some_networks(PRESETS[name]):
        weights, x = random_weights(network), normal(2, *network.input_shape)
        want = reference(network, weights, torch.from_numpy(x), calibrate=True)
        model = write_onnx(network, weights, profile(opset=opset, batch=2))
        onnx.checker.check_model(model, full_check=True)
        ops = {node.op_type for node in model.graph.node}
        assert ("HardSwish" in ops) == (opset >= 14 and any(op.act == "hswish" for op in network.ops))
        largest = np.abs(want).max() if name in WIDE else 1
        assert np.abs(run(model, x) - want).max() <= 1e-4 * largest


@pytest.mark.parametrize(
    "op",
    [
        OpSpec("stem", 17, 15, 3, 0, 8, 3, 2, "relu6"),
        OpSpec("mbconv", 9, 9, 8, 8, 8, 7, 1, "relu6", 0, True),
        OpSpec("mbconv", 9, 7, 8, 24, 16, 5, 2, "hswish", 8),
        OpSpec("mbconv", 9, 7, 8, 24, 16, 5, 2, "silu", 2, eps=1e-3),
        OpSpec("mbconv", 10, 7, 8, 24, 16, 5, 2, "relu6", same=True),
        OpSpec("stem", 16, 16, 3, 0, 8, 3, 2, "relu6", same=True),
        OpSpec("uib", 8, 8, 8, 16, 24, 7, 2, "relu", start=3, same=True),
        OpSpec("uib", 9, 7, 8, 16, 24, 0, 1, "relu"),
        OpSpec("uib", 9, 7, 8, 16, 8, 0, 1, "relu", skip=True, start=3),
        OpSpec("uib", 9, 7, 8, 16, 24, 0, 2, "relu", start=5),
        OpSpec("uib", 9, 7, 8, 8, 24, 3, 2, "relu6"),
        OpSpec("uib", 9, 7, 8, 16, 24, 5, 2, "hswish", start=3),
        OpSpec("conv", 9, 7, 8, 8, 12, 3, 2, "relu"),
        OpSpec("basic", 9, 7, 8, 12, 8, 5, 1, "relu", skip=True),
        OpSpec("basic", 9, 7, 8, 16, 12, 3, 2, "silu", eps=1e-3),
        OpSpec("bottleneck", 9, 7, 8, 4, 8, 3, 1, "hswish", skip=True),
        OpSpec("bottleneck", 9, 8, 8, 4, 12, 5, 2, "relu"),
        OpSpec("bottleneck", 8, 7, 8, 4, 12, 3, 2, "gelu"),
        OpSpec("fused_mbconv", 9, 7, 8, 24, 8, 3, 1, "silu", 2, True),
        OpSpec("fused_mbconv", 9, 7, 8, 8, 12, 5, 2, "relu6"),
        OpSpec("convnext", 9, 7, 8, 32, 8, 7, 1, "gelu", skip=True),
        OpSpec("convnext", 9, 7, 8, 32, 12, 3, 2, "gelu"),
        OpSpec("mqa", 9, 7, 8, 12, 8, 3, 1, "relu", skip=True, heads=3, key_width=4),
        OpSpec("mqa", 9, 7, 8, 4, 12, 5, 2, "relu", heads=1, key_width=4),
        OpSpec("transformer", 9, 7, 8, 32, 8, 3, 1, "gelu", skip=True, heads=2, key_width=4),
        OpSpec("transformer", 9, 7, 8, 16, 12, 5, 2, "relu", heads=3, key_width=4),
        OpSpec("pooled_stem", 19, 17, 3, 12, 12, 7, 4, "relu"),
        OpSpec("shuffle", 9, 7, 8, 4, 8, 3, 1, "relu", skip=True),
        OpSpec("shuffle", 9, 7, 8, 6, 12, 5, 2, "relu"),
        OpSpec("head", 7, 7, 16, 0, 32, 1, 1, "none"),
        OpSpec("classifier", 1, 1, 32, 16, 10, 1, 1, "relu6"),
        OpSpec("classifier", 1, 1, 32, 0, 10, 1, 1, "none"),
    ],
    ids=lambda op: op.key,
)
@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_a_single_block_matches_torch(op, opset):
    network = Network.single(op)
    weights, x = random_weights(network), normal(3, *op.input_shape)
    model = write_onnx(network, weights, profile(opset=opset, batch=3))
    want = reference(network, weights, torch.from_numpy(x))
    got = run(model, x)
    assert [o.name for o in model.graph.output] == ["output"]
    assert got.shape == (3, *op.output_shape)
    assert np.abs(got - want).max() <= 1e-4


def test_a_network_is_the_chain_of_its_blocks():
    network = PRESETS["ofa_mbv3_w1.0"].network(PRESETS["ofa_mbv3_w1.0"].largest)
    weights, target = random_weights(network), profile(opset=13)
    whole = write_onnx(network, weights, target)
    nodes, constants, x = [], [], "input"
    for name, op in zip(network.names, network.ops, strict=True):
        own = {key: value for key, value in weights.items() if key.startswith(f"{name}.")}
        graph = write_onnx(Network((op,), (name,)), own, target).graph
        for node in graph.node:
            node.input[:] = [x if i == "input" else i for i in node.input]
        graph.node[-1].output[0] = x = "logits" if op is network.ops[-1] else graph.node[-1].name
        nodes += graph.node
        constants += graph.initializer
    assert list(whole.graph.node) == nodes
    assert list(whole.graph.initializer) == constants


def test_the_same_inputs_give_the_same_bytes():
    network = PRESETS["tiny_16"].network(PRESETS["tiny_16"].largest)
    weights = random_weights(network)
    shuffled = dict(reversed(weights.items()))
    assert onnx_bytes(write_onnx(network, weights, profile())) == onnx_bytes(write_onnx(network, shuffled, profile()))


def test_shapes_are_static_and_the_file_names_its_producer():
    network = PRESETS["tiny_16"].network(PRESETS["tiny_16"].smallest)
    model = write_onnx(network, random_weights(network), profile(batch=4, opset=13))
    dims = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in (model.graph.input[0], model.graph.output[0])]
    assert dims == [[4, 1, 16, 16], [4, 10]]
    assert model.graph.output[0].name == "logits"
    assert model.producer_name == "ofa-deploy"
    assert model.producer_version
    assert model.ir_version == 7


def test_hard_swish_is_replaced_where_a_target_forbids_it():
    network = PRESETS["small_28"].network(PRESETS["small_28"].smallest)
    weights, x = random_weights(network), normal(1, *network.input_shape)
    with_op, without = (write_onnx(network, weights, profile(forbidden_ops=ops)) for ops in [(), ("HardSwish",)])
    assert "HardSwish" in {node.op_type for node in with_op.graph.node}
    assert "HardSwish" not in {node.op_type for node in without.graph.node}
    np.testing.assert_allclose(run(with_op, x), run(without, x), atol=1e-5)


def test_a_forbidden_op_is_named_with_its_node_and_rule():
    network = PRESETS["small_28"].network(PRESETS["small_28"].smallest)
    with pytest.raises(UsageError, match=r"node s\db\d\.se\.gate is a HardSigmoid.*forbidden_ops") as caught:
        write_onnx(network, random_weights(network), profile(forbidden_ops=("HardSigmoid",)))
    assert "bench" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value):
    network = PRESETS["tiny_16"].network(PRESETS["tiny_16"].smallest)
    weights = random_weights(network)
    weights["s0b0.project.bn.running_var"][1] = value
    if np.isinf(value):
        weights["s0b0.project.bn.running_mean"][1] = value
    with pytest.raises(OfaDeployError, match=r"s0b0\.project\.conv\..* NaN or infinity"):
        write_onnx(network, weights, profile())


def test_wrong_weights_and_unknown_blocks_are_refused():
    op = OpSpec("head", 7, 7, 16, 0, 32)
    network = Network.single(op)
    weights = random_weights(network)
    with pytest.raises(OfaDeployError, match=r"missing op\.conv\.weight"):
        write_onnx(network, {k: v for k, v in weights.items() if k != "op.conv.weight"}, profile())
    odd = Network.single(dataclasses.replace(op, act="swish"))
    with pytest.raises(OfaDeployError, match="activation 'swish'"):
        write_onnx(odd, weights, profile())


def test_torchs_own_exporter_agrees():
    pytest.importorskip("onnxscript")
    supernet = pytest.importorskip("ofa_deploy.supernet")
    network = PRESETS["small_28"].network(PRESETS["small_28"].largest)
    weights, x = random_weights(network), normal(1, *network.input_shape)
    subnet = supernet.Subnet(network)
    subnet.load_weights(weights)
    exported = torch.onnx.export(
        subnet.eval(), (torch.from_numpy(x),), dynamo=True, input_names=["input"], verbose=False
    )
    ours = write_onnx(network, weights, profile(opset=17))
    assert np.abs(run(exported.model_proto, x) - run(ours, x)).max() <= 1e-4
