"""A kind of block is one definition: all that is known of its blocks follows from their layers."""

import re
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto

from ofa_deploy.blocks import INPUT, BatchNorm, Block, Builder, Conv, Network, OpSpec, counts, random_weights
from ofa_deploy.blocks.groups import channel_groups
from ofa_deploy.blocks.kinds import KINDS, StageKind
from ofa_deploy.blocks.kinds.kind import by_name
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import UsageError
from ofa_deploy.graph import write_onnx
from ofa_deploy.space import SearchSpace, StageSpec, op_counts
from ofa_deploy.supernet import Subnet, Supernet, initialise
from ofa_deploy.supernet.execute import run_block

TARGET = TargetProfile(name="t", description="", runtime="onnxruntime", batch=2)
OPS = [
    OpSpec("stem", 9, 7, 3, 0, 8, 3, 2, "hswish"),
    OpSpec("mbconv", 9, 7, 8, 24, 8, 5, 1, "silu", 2, True),
    OpSpec("mbconv", 9, 7, 8, 8, 16, 3, 2, "relu6"),
    OpSpec("mbconv", 10, 7, 8, 16, 16, 5, 2, "relu6", same=True),
    OpSpec("stem", 8, 8, 3, 0, 8, 3, 2, "relu6", same=True),
    OpSpec("uib", 9, 7, 8, 16, 8, 3, 1, "relu", skip=True, start=5),
    OpSpec("conv", 9, 7, 8, 8, 12, 3, 2, "relu"),
    OpSpec("deep_stem", 19, 17, 3, 8, 12, 0, 4, "relu"),
    OpSpec("deep_stem", 16, 16, 1, 8, 16, 3, 4, "hswish"),
    OpSpec("basic", 9, 7, 8, 12, 8, 5, 1, "relu", skip=True),
    OpSpec("basic", 9, 7, 8, 16, 12, 3, 2, "silu"),
    OpSpec("basic", 8, 7, 8, 16, 12, 3, 2, "silu", same=True),
    OpSpec("bottleneck", 9, 7, 8, 4, 8, 3, 1, "hswish", skip=True),
    OpSpec("bottleneck", 9, 8, 8, 4, 12, 5, 2, "relu"),
    OpSpec("bottleneck", 9, 8, 8, 4, 12, 5, 2, "relu", same=True),
    OpSpec("fused_mbconv", 9, 7, 8, 24, 8, 3, 1, "silu", 2, True),
    OpSpec("fused_mbconv", 9, 7, 8, 8, 12, 5, 2, "relu6"),
    OpSpec("fused_mbconv", 8, 8, 8, 8, 12, 5, 2, "relu6", same=True),
    OpSpec("convnext", 9, 7, 8, 32, 8, 7, 1, "gelu", skip=True),
    OpSpec("convnext", 9, 7, 8, 32, 12, 3, 2, "gelu"),
    OpSpec("mqa", 9, 7, 8, 12, 8, 3, 1, "relu", skip=True, heads=3, key_width=4),
    OpSpec("mqa", 9, 7, 8, 4, 12, 5, 2, "relu", heads=1, key_width=4),
    OpSpec("transformer", 9, 7, 8, 32, 8, 3, 1, "gelu", skip=True, heads=2, key_width=4),
    OpSpec("transformer", 9, 7, 8, 16, 12, 5, 2, "relu", heads=3, key_width=4),
    OpSpec("pooled_stem", 19, 17, 3, 8, 12, 3, 4, "relu"),
    OpSpec("pooled_stem", 16, 16, 1, 8, 12, 7, 4, "relu"),
    OpSpec("shuffle", 9, 7, 8, 4, 8, 3, 1, "relu", skip=True),
    OpSpec("shuffle", 9, 7, 8, 6, 12, 5, 2, "relu"),
    OpSpec("head", 5, 5, 8, 0, 16, act="hswish"),
    OpSpec("classifier", 1, 1, 16, 12, 10, act="relu"),
    OpSpec("sep_conv", 8, 8, 4, 0, 6, 5, 2),
    OpSpec("dil_conv", 8, 8, 4, 0, 4, 3, 1),
    OpSpec("fact_reduce", 8, 8, 4, 0, 5, 1, 2),
    OpSpec("relu_conv", 8, 8, 4, 0, 6),
    OpSpec("avg_pool", 8, 8, 4, 0, 4, 3, 2),
    OpSpec("max_pool", 8, 8, 4, 0, 4, 3, 1),
    OpSpec("add", 8, 8, 4, 0, 4),
    OpSpec("concat", 8, 8, 4, 0, 12),
    OpSpec("global_pool", 8, 8, 4, 0, 4),
]


class PreActivated(StageKind):
    """A residual block whose first batch norm and activation read the input (He et al., ECCV 2016): nothing that the
    package has looks like it. Its input has two readers, and its first batch norm folds into no convolution."""

    name = "pre_activated"

    def build(self, b, op):
        x = b.activation(b.batch_norm(INPUT, "first"), "act", "relu")
        x = b.conv_bn(x, "one.", op.mid, op.kernel, op.stride, act=op.act, elastic=True)
        x = b.conv(x, "two", op.cout, bias=True)
        if op.skip:
            b.add(x, INPUT, "sum")


class Grouped(StageKind):
    """A convolution of two groups, its bias before batch norm, and the input's ReLU beside the input itself."""

    name = "grouped"

    def build(self, b, op):
        x = b.conv(b.activation(INPUT, "act", "relu"), "conv", op.cin, op.kernel, groups=2, bias=True)
        x = b.batch_norm(b.add(b.batch_norm(x, "bn"), INPUT, "sum"), "after")
        b.conv_bn(x, "out.", op.cout, 1, op.stride, act="hswish")


@pytest.fixture(params=[PreActivated, Grouped])
def new_kind(request, monkeypatch):
    """A kind that no file of the package knows."""
    kind = request.param()
    monkeypatch.setitem(KINDS, kind.name, kind)
    return OpSpec(kind.name, 9, 9, 8, 12, 8, 3, 1, "relu", skip=True)


def images(op, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, *op.input_shape, generator=generator) for _ in range(op.fan_in))


def check_everywhere(op):
    """What is known of a block, by every interpreter of layers."""
    network, x = Network.single(op), images(op)
    weights = random_weights(network, seed=1)
    assert {name.removeprefix("op."): value.shape for name, value in weights.items()} == op.block.weight_shapes
    subnet = Subnet(network).eval()
    subnet.load_weights(weights)
    expected = subnet.op(*x)
    assert all(map(torch.equal, x, images(op))), "a block's input has other readers"
    assert expected.shape == (2, *op.output_shape)
    tensors = {name.removeprefix("op."): torch.from_numpy(value) for name, value in weights.items()}
    assert torch.equal(run_block(op.block, x, tensors, training=False), expected)
    again = run_block(op.block, x, tensors, training=True)
    assert torch.equal(subnet.train().op(*x), again)

    subnet.load_weights(weights)  # training moved the running statistics
    answer = subnet.eval()(x[0])  # a single block reads the network's input as often as it has inputs
    for opset in (13, 17):
        model = write_onnx(network, weights, TARGET.model_copy(update={"opset": opset}))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": x[0].numpy()})
        assert np.abs(found - answer.detach().numpy()).max() < 1e-4
        constants = [c for c in model.graph.initializer if c.data_type == TensorProto.FLOAT and c.dims]
        assert counts.shipped_weights(op.block) == sum(np.prod(constant.dims) for constant in constants)

    assert counts.params(op.block) == sum(parameter.numel() for parameter in subnet.parameters())
    amounts = op_counts(op)
    assert amounts["dense_macs"] + amounts["depthwise_macs"] == counts.macs(op.block)
    assert amounts["output"] == prod(op.output_shape)
    assert counts.peak_activations(op.block) >= max(prod(op.input_shape), prod(op.output_shape))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.key)
def test_every_interpreter_agrees_about_every_kind(op):
    check_everywhere(op)


def test_every_kind_is_tested():
    assert {op.kind for op in OPS} == set(KINDS) - {"cell"}


def test_every_interpreter_knows_a_kind_that_it_never_saw(new_kind):
    check_everywhere(new_kind)
    check_everywhere(replace(new_kind, cout=6, skip=False, stride=2))


def test_the_kind_that_the_documentation_adds_is_whole(monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "explanations" / "design.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found = {}
    exec(code, found)
    (kind,) = found["KINDS"]
    monkeypatch.setitem(KINDS, kind.name, kind)
    stage = StageSpec(16, 2, kernels=(3, 5), expands=(1,), block=kind.name)
    space = SearchSpace("one", (stage,), (16,), stem_width=8, first_block=False)
    for slot in space.slots:
        check_everywhere(space.block(*slot, 16, 1.0, 5, 1))


def test_a_new_kinds_key_tells_its_layers_apart(new_kind):
    wider = replace(new_kind, mid=16, kernel=5)
    assert new_kind.key.startswith(f"{new_kind.kind}-9x9-c8-o8-in")
    assert wider.key != new_kind.key
    assert replace(new_kind, eps=1e-3).key == new_kind.key, "what batch norm adds changes no latency"
    assert OpSpec.from_json(wider.to_json()) == wider
    with pytest.raises(UsageError, match="not the key of a block"):
        OpSpec.from_key(wider.key)


def test_two_kinds_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="two kinds of blocks are called 'grouped'"):
        by_name([Grouped(), Grouped()])


def test_an_unknown_kind_is_named():
    with pytest.raises(UsageError, match=r"unknown op kind 'mystery'; known: stem, .*mbconv, uib, .*head, classifier"):
        OpSpec.from_json({"kind": "mystery", "h": 8, "w": 8, "cin": 3, "mid": 0, "cout": 4})


def test_a_supernet_of_a_new_kind_is_elastic(new_kind):
    if new_kind.kind != "pre_activated":
        return
    stages = (StageSpec(8, 1, "relu", False, (1, 2), (3, 5), (1, 2), block=new_kind.kind),)
    space = SearchSpace("new", stages, (16, 20), num_classes=5, stem_width=8, head_width=16, feature_width=0)
    supernet = Supernet(space)
    initialise(supernet, 0)
    x = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    supernet.eval()
    smaller = replace(space.largest, kernels=(3, 3), expands=(1, 1))
    with torch.no_grad():
        for arch in (space.largest, smaller):
            assert torch.equal(supernet.extract(arch).eval()(x), supernet(x, arch))
        before, narrow = supernet(x, space.largest), supernet(x, smaller)
        supernet.sort_channels()
        assert torch.allclose(supernet(x, space.largest), before, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(supernet(x, smaller), narrow, rtol=1e-3, atol=1e-4)
    importance = supernet.s0b0.two.weight.abs().sum((0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)
    assert supernet.s0b0.one.transform_5to3.shape == (9, 9)


def test_groups_tie_what_a_permutation_must_keep_together():
    block = OpSpec("mbconv", 8, 8, 8, 24, 8, 5, 1, "relu", 4, True).block
    inner, squeezed = [group for group in channel_groups(block) if not group.outer]
    assert (inner.size, squeezed.size) == (24, 4)
    assert ("se.expand.weight", 0) in inner.axes
    assert inner.readers[-1] == ("project.conv.weight", 1)
    assert squeezed.axes == [("se.reduce.weight", 0), ("se.reduce.bias", 0), ("se.expand.weight", 1)]
    free = channel_groups(OpSpec("mbconv", 8, 8, 8, 8, 16, 5).block)
    assert all(group.outer for group in free), "without an expansion the order is the input's"


@pytest.mark.parametrize("op", [op for op in OPS if op.block.weight_shapes], ids=lambda op: op.key)
def test_channels_of_a_group_change_places_without_changing_the_output(op):
    weights = {name: torch.from_numpy(v).double() for name, v in random_weights(Network.single(op)).items()}
    weights = {name.removeprefix("op."): value for name, value in weights.items()}
    x = tuple(value.double() for value in images(op))
    before = run_block(op.block, x, weights, training=False)
    generator = torch.Generator().manual_seed(1)
    for group in channel_groups(op.block):
        if not group.outer:
            order = torch.randperm(group.size, generator=generator)
            for name, dim in group.axes:
                weights[name] = weights[name].index_select(dim, order)
    assert torch.allclose(run_block(op.block, x, weights, training=False), before)


def test_memory_counts_an_input_that_waits_for_a_later_reader():
    b = Builder()
    x = b.activation(INPUT, "act", "relu")
    b.add(b.conv(x, "conv", 4), INPUT, "sum")
    block = b.block(((4, 8, 8),))
    assert counts.peak_activations(block) == 3 * 4 * 64, "the input, its activation, what the convolution writes"


def test_a_sum_is_computed_by_the_convolution_before_it_where_nothing_else_reads_that():
    b = Builder()
    x = b.conv(INPUT, "conv", 4)
    b.activation(b.add(x, INPUT, "sum"), "act", "relu")
    assert len(counts.kernels(b.block(((4, 8, 8),)))) == 1
    b.add(b.conv(x, "again", 4), x, "both")
    assert len(counts.kernels(b.block(((4, 8, 8),)))) == 3


def test_layers_say_what_they_are():
    conv = Conv("c", (INPUT,), 8, kernel=3, groups=8)
    assert conv.depthwise
    assert not replace(conv, out=16).depthwise
    assert BatchNorm("n", (INPUT,)).weights((3, 4, 4)).keys() == {"weight", "bias", "running_mean", "running_var"}
    assert Block(((3, 4, 4),), (replace(conv, groups=1),)).output == (8, 4, 4)


@pytest.mark.parametrize(
    ("side", "stride", "kernel"), [(8, 2, 3), (8, 2, 5), (9, 2, 5), (8, 3, 3), (8, 1, 5), (8, 2, 1)]
)
def test_same_padding_is_as_few_zeros_as_cover_every_place(side, stride, kernel):
    conv = Conv("c", (INPUT,), 4, kernel, stride, same=True)
    top, left, bottom, right = conv.pads((4, side, side))
    assert (top, bottom) == (left, right)
    assert 0 <= bottom - top <= 1
    last = (conv.shape((4, side, side))[1] - 1) * stride - top  # where the last output begins to read
    assert last + kernel - bottom == side or (last + kernel <= side and bottom == 0)


def test_a_key_says_same_padding_where_it_makes_a_difference():
    even, odd = (OpSpec("mbconv", side, side, 8, 16, 8, 3, 2, "relu6", same=True) for side in (8, 9))
    assert even.key == "mbconv-8x8-c8-m16-o8-k3-s2-relu6-same"
    assert OpSpec.from_key(even.key_at(224)) == OpSpec.from_json(even.to_json()) == even
    assert odd.key == replace(odd, same=False).key
    assert "same" not in replace(odd, same=False).to_json(), "records are as before there was a choice"
