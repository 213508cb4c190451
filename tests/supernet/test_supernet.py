"""The supernet: counts, slices, kernel transforms, purity, extraction, channel order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ofa_deploy.blocks import network_shapes
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import PRESETS, Arch, PopulationCodec, SearchSpace, StageSpec, load_space, supernet_params
from ofa_deploy.supernet import Subnet, Supernet, initialise

MIXED = SearchSpace(
    # expand ratio 1 (blocks with and without expansion), three kernel sizes, SE, a mix layer, two widths
    name="mixed",
    stages=(
        StageSpec(16, 1, "relu6", False, (1, 2), (3, 5, 7), (1, 3)),
        StageSpec(24, 2, "hswish", True, (1, 3), (3, 7), (2, 4)),
    ),
    resolutions=(16, 20),
    widths=(0.5, 1.0),
    num_classes=7,
    head_width=48,
    feature_width=32,
)


def make(space: SearchSpace, seed: int = 0) -> Supernet:
    """A supernet whose every number is random, running statistics and transforms too."""
    supernet = Supernet(space)
    initialise(supernet, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in supernet.state_dict().items():
            if name.endswith(("running_var", "bn.weight")):
                value.uniform_(0.5, 1.5, generator=generator)
            elif name == "classifier.linear.weight":
                value.normal_(0, 0.3, generator=generator)  # so that logits depend on the image
            elif name.endswith(("running_mean", "bias")) or "transform" in name:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return supernet.eval()


def archs(space: SearchSpace, count: int, seed: int = 0) -> list[Arch]:
    codec = PopulationCodec(space)
    return [space.smallest, space.largest, *codec.decode(codec.sample(count, np.random.default_rng(seed)))]


def images(space: SearchSpace, arch: Arch, count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(arch.resolution)
    return torch.randn(count, space.in_channels, arch.resolution, arch.resolution, generator=generator)


@pytest.mark.parametrize("name", [*PRESETS, "mixed"])
def test_parameters_are_those_of_the_space(name):
    space = MIXED if name == "mixed" else load_space(name)
    assert sum(p.numel() for p in Supernet(space).parameters()) == supernet_params(space)


@pytest.mark.parametrize("name", ["small_28", "uib_28", "tiny_16", "mixed", "ofa_mbv3_w1.0"])
def test_extracted_subnets_compute_what_the_supernet_does(name):
    space = MIXED if name == "mixed" else load_space(name)
    big = name.startswith("ofa")
    space = space.with_resolutions((32, 48)) if big else space
    supernet = make(space)
    with torch.no_grad():
        for arch in archs(space, 2 if big else 12):
            x, subnet = images(space, arch), supernet.extract(arch)
            assert not subnet.training
            expected = supernet(x, arch)
            assert torch.equal(subnet(x), expected)
            assert expected.shape == (3, space.num_classes)
            assert expected.std() > 0


@pytest.mark.parametrize("training", [False, True])
def test_forward_and_extract_change_nothing(training):
    supernet = make(MIXED).train(training)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    for arch in archs(MIXED, 5):
        supernet(images(MIXED, arch), arch)
        subnet = supernet.extract(arch).train()
        with torch.no_grad():
            subnet(images(MIXED, arch))
            next(subnet.parameters()).zero_()
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())


def test_threads_may_run_different_subnets_at_once():
    supernet = make(MIXED)
    pairs = [(images(MIXED, arch, 8), arch) for arch in archs(MIXED, 10)] * 3
    with torch.no_grad():
        serial = [supernet(x, arch) for x, arch in pairs]

    def run(pair):
        with torch.no_grad():
            return supernet(*pair)

    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(run, pairs))
    assert all(torch.equal(a, b) for a, b in zip(serial, parallel, strict=True))


def test_training_mode_uses_the_statistics_of_the_batch():
    supernet = make(MIXED)
    arch, x = MIXED.smallest, 5 * images(MIXED, MIXED.smallest, 16)
    reference = supernet.extract(arch).train()
    with torch.no_grad():
        assert torch.allclose(supernet.train()(x, arch), reference(x), atol=1e-5)
        assert not torch.allclose(supernet.eval()(x, arch), reference(x), atol=1e-2)


def test_smaller_kernels_are_centre_crops_times_transforms():
    supernet = make(MIXED)
    full = supernet.s0b0.depthwise.conv.weight
    arch = replace(MIXED.largest, kernels=tuple(3 for _ in MIXED.slots))
    to5, to3 = supernet.s0b0.depthwise.transform_7to5, supernet.s0b0.depthwise.transform_5to3
    assert to5.shape == (25, 25)
    assert to3.shape == (9, 9)
    five = F.linear(full[:, 0, 1:6, 1:6].flatten(1), to5).view(-1, 5, 5)
    three = F.linear(five[:, 1:4, 1:4].flatten(1), to3).view(-1, 1, 3, 3)
    assert torch.equal(supernet.extract(arch).s0b0.depthwise.conv.weight, three)
    # a stage with kernels 3 and 7 goes from one to the other in one step
    full, direct = supernet.s1b0.depthwise.conv.weight, supernet.s1b0.depthwise.transform_7to3
    three = F.linear(full[:, 0, 2:5, 2:5].flatten(1), direct).view(-1, 1, 3, 3)
    assert torch.equal(supernet.extract(arch).s1b0.depthwise.conv.weight, three)


def test_new_transforms_are_the_identity():
    supernet = Supernet(MIXED)
    arch = replace(MIXED.largest, kernels=tuple(3 for _ in MIXED.slots))
    centre = supernet.s0b0.depthwise.conv.weight[:, :, 2:5, 2:5]
    assert torch.equal(supernet.extract(arch).s0b0.depthwise.conv.weight, centre)


def test_subnets_take_leading_channels():
    supernet, smallest = make(MIXED), MIXED.smallest
    subnet = supernet.extract(smallest)
    for name, value in subnet.state_dict().items():
        full = supernet.state_dict()[name]
        if value.shape[2:] == full.shape[2:]:
            assert torch.equal(value, full[tuple(map(slice, value.shape))]), name


def test_gradients_reach_every_weight():
    supernet = make(MIXED).train()
    for arch in (MIXED.largest, replace(MIXED.largest, kernels=tuple(3 for _ in MIXED.slots))):
        supernet(images(MIXED, arch), arch).square().sum().backward()
    assert [name for name, p in supernet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("space", [MIXED, load_space("small_28"), load_space("uib_28")])
def test_sorting_channels_keeps_the_largest_and_puts_the_important_first(space):
    supernet, x = make(space), images(space, space.largest)
    smaller = replace(space.largest, expands=space.smallest.expands)
    with torch.no_grad():
        before, narrow = supernet(x, space.largest), supernet(x, smaller)
        supernet.sort_channels()
        assert torch.allclose(supernet(x, space.largest), before, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(supernet(x, smaller), narrow, rtol=1e-3, atol=1e-3)
    importance = supernet.s0b0.project.conv.weight.abs().sum((0, 2, 3))
    assert torch.equal(importance, importance.sort(descending=True).values)


@pytest.mark.parametrize("space", [MIXED, load_space("small_28"), load_space("uib_28")])
def test_sorting_channels_keeps_every_subnet_that_was_trained(space):
    stages = tuple(replace(stage, expands=tuple(sorted(stage.expands)[1:])) for stage in space.stages)
    trained = replace(space, stages=stages, widths=space.widths[-1:])
    supernet, x = make(space).train(), images(space, space.largest)
    kept = [replace(a, resolution=space.largest.resolution) for a in [trained.smallest, *archs(trained, 4)]]
    with torch.no_grad():
        before, narrow = [supernet(x, arch) for arch in kept], supernet(x, space.smallest)
        old = {name: value.clone() for name, value in supernet.state_dict().items()}
        supernet.sort_channels(trained)
        for arch, expected in zip(kept, before, strict=True):
            assert torch.allclose(supernet(x, arch), expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(supernet(x, space.smallest), narrow, rtol=1e-3, atol=1e-3)
    assert any(not torch.equal(value, old[name]) for name, value in supernet.state_dict().items())


def test_sorting_channels_leaves_alone_what_is_used_without_an_expansion():
    """Without an expansion, the first expanded channels are the block's input."""
    trained = replace(MIXED, widths=(1.0,))
    supernet, x = make(trained), images(trained, trained.largest)
    kept = [replace(arch, resolution=trained.largest.resolution) for arch in archs(trained, 6)]
    assert {expand for arch in kept for expand in arch.expands} == {1, 2, 3, 4}
    with torch.no_grad():
        before = [supernet(x, arch) for arch in kept]
        old = supernet.s0b0.expand.conv.weight.clone()
        supernet.sort_channels(trained)
        for arch, expected in zip(kept, before, strict=True):
            assert torch.allclose(supernet(x, arch), expected, rtol=1e-3, atol=1e-3)
    moved = (supernet.s0b0.expand.conv.weight != old).flatten(1).any(1)
    assert moved.nonzero().min() >= MIXED.stem_width
    assert moved.any()


def test_weights_are_named_and_shaped_as_the_space_says():
    supernet, arch = make(MIXED), archs(MIXED, 1)[-1]
    subnet = supernet.extract(arch)
    weights = subnet.weights()
    assert {name: value.shape for name, value in weights.items()} == network_shapes(subnet.network)
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}
    other = Subnet(subnet.network).eval()
    other.load_weights(weights)
    x = images(MIXED, arch)
    assert torch.equal(other(x), subnet(x))
    del weights["head.bn.running_var"]
    with pytest.raises(OfaDeployError, match=r"missing head\.bn\.running_var"):
        other.load_weights(weights)


def test_initialisation_is_a_function_of_the_seed():
    first, second, other = Supernet(MIXED), Supernet(MIXED), Supernet(MIXED)
    for supernet, seed in ((first, 1), (second, 1), (other, 2)):
        initialise(supernet, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.stem.conv.weight, other.stem.conv.weight)
