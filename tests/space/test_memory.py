"""Memory against a brute-force count of the tensors that are alive in the graph that ships."""

from math import prod
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from ofa_deploy.blocks import Network, OpSpec, counts, random_weights
from ofa_deploy.blocks.network_counts import VALUE_BYTES
from ofa_deploy.config import TargetProfile
from ofa_deploy.graph import write_onnx
from ofa_deploy.space import PRESETS, PopulationCodec, load_space, network_memory

SIZES = (*(f"b{i}" for i in range(1, 8)), *(f"lite{i}" for i in range(1, 5)))
LARGE = {f"efficientnet_{size}" for size in SIZES}  # of the blocks of the smallest
IN_PLACE = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Mul", "Add", "Flatten", "Reshape", "Softmax"}
BATCH = 3


def brute_force(network: Network) -> tuple[int, int]:
    """Bytes of the graph's constants, and of the buffers alive at its worst node."""
    target = TargetProfile(name="t", description="", runtime="onnxruntime", batch=BATCH)
    graph = onnx.shape_inference.infer_shapes(write_onnx(network, random_weights(network), target)).graph
    weights = sum(prod(c.dims) for c in graph.initializer if c.dims and c.data_type == TensorProto.FLOAT)
    constants = {c.name for c in graph.initializer}
    size = {v.name: prod(d.dim_value for d in v.type.tensor_type.shape.dim) for v in [*graph.value_info, *graph.output]}
    nodes, gates = with_silu_fused(graph.node)
    size["input"] = prod(d.dim_value for d in graph.input[0].type.tensor_type.shape.dim)
    buffer, born, dies = {"input": "input"}, {"input": 0}, {"input": 0}
    for i, node in enumerate(nodes):
        inputs = [name for name in node.input if name not in constants | gates]
        for name in inputs:
            dies[buffer[name]] = i
        out = node.output[0]
        buffer[out] = buffer[max(inputs, key=size.__getitem__)] if node.op_type in IN_PLACE else out
        born.setdefault(buffer[out], i)
        dies[buffer[out]] = i
    alive = [sum(size[b] for b in born if born[b] <= i <= dies[b]) for i in range(len(nodes))]
    return 4 * weights, 4 * max(alive)


def with_silu_fused(nodes):
    """The nodes without the sigmoids that multiply their own input, and the names of those."""
    own = {tuple(node.input) for node in nodes if node.op_type == "Mul"}
    gates = {n.output[0] for n in nodes if n.op_type == "Sigmoid" and (n.input[0], n.output[0]) in own}
    return [node for node in nodes if node.output[0] not in gates], gates


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in LARGE])
def test_memory_equals_what_is_alive_in_the_graph(name: str) -> None:
    space = load_space(name)
    for arch in (space.smallest, space.largest, *PopulationCodec(space).decode(random_population(space, 3))):
        network = space.network(arch)
        assert network_memory(network, BATCH) == sum(brute_force(network))


def random_population(space, count):
    return PopulationCodec(space).sample(count, np.random.default_rng(0))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("se", [0, 8])
@pytest.mark.parametrize("mid", [16, 64])
@pytest.mark.parametrize("cout", [16, 240])
def test_every_form_of_a_block(mid: int, cout: int, se: int, skip: bool) -> None:
    stride = 1 if skip else 2
    op = OpSpec("mbconv", 9, 9, 16, mid, 16 if skip else cout, 3, stride, "relu", se, skip)
    assert (4 * counts.shipped_weights(op.block), 4 * BATCH * counts.peak_activations(op.block)) == brute_force(
        Network.single(op)
    )


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("kernel", [0, 5])
@pytest.mark.parametrize("mid", [16, 64])
@pytest.mark.parametrize(("cout", "stride", "skip"), [(16, 1, True), (240, 1, False), (24, 2, False)])
def test_every_form_of_a_universal_bottleneck(
    start: int, kernel: int, mid: int, cout: int, stride: int, skip: bool
) -> None:
    if stride > 1 and not start + kernel:
        return  # there is no such block
    op = OpSpec("uib", 9, 9, 16, mid, cout, kernel, stride, "relu", skip=skip, start=start)
    assert (4 * counts.shipped_weights(op.block), 4 * BATCH * counts.peak_activations(op.block)) == brute_force(
        Network.single(op)
    )


def test_a_block_by_hand() -> None:
    op = OpSpec("mbconv", 8, 8, 4, 24, 4, 3, 1, "relu", skip=True)
    assert counts.peak_activations(op.block) == 64 * (4 + 24 + 24)  # the depthwise convolution, while the skip waits
    assert counts.shipped_weights(op.block) == 4 * 24 + 24 + 9 * 24 + 24 + 24 * 4 + 4


@pytest.mark.parametrize("name", PRESETS)
def test_populations_agree_with_their_networks(name: str) -> None:
    space = load_space(name)
    codec, population = PopulationCodec(space), random_population(space, 64)
    networks = [space.network(arch) for arch in codec.decode(population)]
    assert codec.memory(population).tolist() == [network_memory(network) for network in networks]
    half = [network_memory(network, 4, "fp16") for network in networks]
    assert codec.memory(population, 4, "fp16").tolist() == half
    assert half[0] < 4 * network_memory(networks[0])


def test_every_precision_of_a_target_has_a_size() -> None:
    assert set(get_args(TargetProfile.model_fields["precision"].annotation)) <= VALUE_BYTES.keys()
