"""Universal inverted bottlenecks with weights: module, function and ONNX agree; the supernet's slices are right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ofa_deploy.blocks import Network, OpSpec, random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.graph import write_onnx
from ofa_deploy.space import (
    PopulationCodec,
    SearchSpace,
    StageSpec,
    elastic_kernels,
    load_space,
    network_macs,
    network_params,
    supernet_params,
)
from ofa_deploy.supernet import Subnet, Supernet, initialise
from ofa_deploy.supernet.execute import run_block

MIXED = SearchSpace(
    # an mbconv stage before and after; three sizes of each depthwise; an expand ratio of 1; two widths
    name="mixed_blocks",
    stages=(
        StageSpec(16, 1, depths=(1, 2), kernels=(3, 5), expands=(1, 3)),
        StageSpec(
            24,
            2,
            depths=(1, 3),
            kernels=((0, 0), (3, 0), (5, 0), (0, 3), (3, 5), (7, 7), (5, 3)),
            expands=(1, 2, 4),
            block="uib",
        ),
        StageSpec(32, 2, "hswish", True, (1, 2), (3, 7), (2, 4)),
    ),
    resolutions=(16, 20),
    widths=(0.5, 1.0),
    num_classes=7,
    head_width=48,
    feature_width=0,
)
FORMS = [
    OpSpec("uib", 9, 9, 8, mid, cout, kernel, stride, act, skip=stride == 1 and cout == 8, start=start)
    for start in (0, 3)
    for kernel in (0, 5)
    for stride in (1, 2)
    for cout, mid, act in ((8, 24, "relu"), (16, 8, "hswish"))
    if stride == 1 or start or kernel
]


def make(seed: int = 0) -> Supernet:
    """A supernet whose every number is random, running statistics and transforms too."""
    supernet = Supernet(MIXED)
    initialise(supernet, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in supernet.state_dict().items():
            if name.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("running_mean", "bias", "linear.weight")) or "transform" in name:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return supernet.eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("op", FORMS, ids=lambda op: op.key)
@torch.inference_mode()
def test_module_function_and_onnx_agree(op):
    network = Network.single(op)
    weights, x = random_weights(network), images(2, *op.input_shape)
    subnet = Subnet(network).eval()
    subnet.load_weights(weights)
    expected = subnet(x)
    tensors = {name.removeprefix("op."): torch.from_numpy(value) for name, value in weights.items()}
    assert torch.equal(run_block(op.block, (x.clone(),), tensors, training=False), expected)
    target = TargetProfile(name="t", description="", runtime="onnxruntime", batch=2)
    content = write_onnx(network, weights, target).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"input": x.numpy()})[0] - expected.numpy()).max() < 1e-4
    assert expected.shape == (2, *op.output_shape)


@pytest.mark.parametrize("op", FORMS, ids=lambda op: op.key)
def test_counts_are_torchs(op):
    network = Network.single(op)
    subnet = Subnet(network).eval()
    assert sum(p.numel() for p in subnet.parameters()) == network_params(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        subnet(images(1, *op.input_shape))
    assert counter.get_total_flops() == 2 * network_macs(network)


def test_parameters_are_those_of_the_space():
    assert sum(p.numel() for p in Supernet(MIXED).parameters()) == supernet_params(MIXED)


def test_extracted_subnets_compute_what_the_supernet_does():
    supernet, codec = make(), PopulationCodec(MIXED)
    with torch.no_grad():
        for arch in [MIXED.smallest, MIXED.largest, *codec.decode(codec.sample(30, np.random.default_rng(0)))]:
            x, subnet = images(3, 3, arch.resolution, arch.resolution), supernet.extract(arch)
            assert torch.equal(subnet(x), supernet(x, arch))
            assert subnet(x).std() > 0


def test_each_depthwise_has_its_own_sizes_and_transforms():
    assert elastic_kernels(MIXED, "s1b0") == {"start.conv": (7, 5, 3), "depthwise.conv": (7, 5, 3)}
    block = make().s1b1
    for layer in (block.start, block.depthwise):
        assert [name for name, _ in layer.named_parameters() if "transform" in name] == [
            "transform_7to5",
            "transform_5to3",
        ]
    arch = replace(MIXED.largest, kernels=tuple((5, 3) if k == (7, 7) else k for k in MIXED.largest.kernels))
    found = make().extract(arch).s1b1

    def smaller(weight, layer, size):
        edge = (weight.shape[-1] - size) // 2
        centre = weight[:, 0, edge : edge + size, edge : edge + size].flatten(1)
        return F.linear(centre, getattr(layer, f"transform_{weight.shape[-1]}to{size}")).view(-1, 1, size, size)

    assert torch.equal(found.start.conv.weight, smaller(block.start.conv.weight, block.start, 5))
    five = smaller(block.depthwise.conv.weight, block.depthwise, 5)
    assert torch.equal(found.depthwise.conv.weight, smaller(five, block.depthwise, 3))


def test_a_depthwise_that_is_absent_is_skipped():
    supernet = make()
    arch = replace(MIXED.largest, kernels=(5, 5, (3, 0), (0, 0), (0, 3), 7, 7))
    subnet = supernet.extract(arch)
    assert [hasattr(getattr(subnet, f"s1b{b}"), "start") for b in range(3)] == [True, False, False]
    assert [hasattr(getattr(subnet, f"s1b{b}"), "depthwise") for b in range(3)] == [False, False, True]
    other = replace(arch, kernels=(5, 5, (3, 0), (3, 0), (0, 3), 7, 7))
    x = images(2, 3, 20, 20)
    assert not torch.allclose(supernet(x, other), supernet(x, arch))


def test_gradients_reach_every_weight():
    supernet = make().train()
    small = replace(MIXED.largest, kernels=(3, 3, (3, 5), (5, 3), (3, 5), 3, 3))
    other = replace(MIXED.largest, kernels=(3, 3, (5, 3), (3, 5), (5, 3), 3, 3))
    for arch in (MIXED.largest, small, other):
        supernet(images(4, 3, 20, 20), arch).square().sum().backward()
    assert [name for name, p in supernet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_first_depthwise_begins_as_the_identity():
    supernet, x = Supernet(MIXED), images(1, 24, 5, 5)
    initialise(supernet, 0)
    assert torch.equal(supernet.s1b1.start.conv(x), x)
    assert not torch.equal(supernet.s1b1.depthwise.conv(images(1, 96, 5, 5)), images(1, 96, 5, 5))


def test_sorting_channels_keeps_the_largest_and_the_inputs_of_the_first_depthwise():
    supernet, x = make(), images(3, 3, 20, 20)
    start = supernet.s1b1.start.conv.weight.clone()
    narrow = replace(MIXED.largest, expands=MIXED.smallest.expands)
    with torch.no_grad():
        before, other = supernet(x, MIXED.largest), supernet(x, narrow)
        supernet.sort_channels()
        assert torch.allclose(supernet(x, MIXED.largest), before, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(supernet(x, narrow), other, rtol=1e-3, atol=1e-3)
    assert torch.equal(supernet.s1b1.start.conv.weight, start)
    importance = supernet.s1b1.project.conv.weight.abs().sum((0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)


def test_a_checkpoint_keeps_the_kind_of_blocks(tmp_path):
    from ofa_deploy.supernet import load_supernet, save_supernet

    supernet = Supernet(load_space("uib_16"))
    save_supernet(tmp_path / "s.safetensors", supernet, {})
    again, _ = load_supernet(tmp_path / "s.safetensors")
    assert again.space == supernet.space
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), supernet.parameters(), strict=True))
