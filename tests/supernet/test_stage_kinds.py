"""A supernet of each kind of stage: subnets, channels in order, ONNX, training."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ofa_deploy.blocks import Network, counts
from ofa_deploy.blocks.kinds import KINDS, StageKind
from ofa_deploy.config import TargetProfile, TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.graph import write_onnx
from ofa_deploy.space import (
    PopulationCodec,
    SearchSpace,
    StageSpec,
    elastic_kernels,
    load_space,
    network_macs,
    op_counts,
    supernet_params,
)
from ofa_deploy.supernet import Subnet, Supernet, initialise, load_supernet
from ofa_deploy.training import load_data, specialise, train_supernet

# those that any stage can be made of: a beginning with its own stride is tested with the networks that have it
BEGINNINGS = ("deep_stem", "pooled_stem")
NAMES = [name for name, kind in KINDS.items() if isinstance(kind, StageKind) and name not in BEGINNINGS]


def space_of(name: str) -> SearchSpace:
    """Two stages, of which the second strides and widens; two kernels, and expansions where the kind has them."""
    kind = KINDS[name]
    assert isinstance(kind, StageKind)
    kernels = ((0, 3), (3, 0), (5, 5)) if kind.pairs else (3, 5)
    expands = (1, 2) if kind.expands else (1,)
    act = "gelu" if name in ("convnext", "transformer") else "relu"
    spec = StageSpec(32, 1, act, kind.gated, (1, 2), kernels, expands, block=name)
    stages = (spec, replace(spec, width=48, stride=2))
    return SearchSpace(
        f"stages_of_{name}",
        stages,
        resolutions=(16, 20),
        widths=(0.5, 1.0),
        in_channels=1,
        num_classes=10,
        stem_width=16,
        first_block=False,
        head_width=64,
        feature_width=0,
    )


def make(space: SearchSpace) -> Supernet:
    """A supernet whose every number is random, running statistics and transforms too."""
    supernet = Supernet(space)
    initialise(supernet, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in supernet.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.dtype == torch.float32:
                value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return supernet.eval()


def images(space: SearchSpace, resolution: int) -> torch.Tensor:
    return torch.randn(2, space.in_channels, resolution, resolution, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def check_onnx(subnet: Subnet, x: torch.Tensor) -> None:
    expected = subnet(x)
    for opset in (13, 17):
        target = TargetProfile(name="t", description="", runtime="onnxruntime", opset=opset, batch=2)
        model = write_onnx(subnet.network, subnet.weights(), target).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": x.numpy()})
        assert np.abs(found - expected.numpy()).max() < 1e-4 * max(1, expected.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_subnets_of_a_supernet_compute_the_same_alone_and_in_onnx(name):
    space = space_of(name)
    supernet, codec = make(space), PopulationCodec(space)
    assert sum(p.numel() for p in supernet.parameters()) == supernet_params(space)
    for arch in (space.smallest, space.largest, *codec.decode(codec.sample(6, np.random.default_rng(0)))):
        x, subnet = images(space, arch.resolution), supernet.extract(arch)
        with torch.no_grad():
            expected = supernet(x, arch)
            assert torch.equal(subnet(x), expected)
        assert expected.std() > 1e-3
        check_onnx(subnet, x)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            subnet(x[:1])
        assert counter.get_total_flops() == 2 * network_macs(subnet.network)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_as_wide_as_the_one_before_may_be_narrower(name):
    space = space_of(name)
    stages = tuple(replace(stage, stride=1, width=48, widths=(16, 48)) for stage in space.stages)
    space = replace(space, stages=stages, stem_width=48, widths=(1.0,))
    supernet = make(space)
    assert sum(p.numel() for p in supernet.parameters()) == supernet_params(space)
    for channels in product((16, 48), repeat=2):
        arch = space.canonical({**space.largest.to_json(), "channels": channels})
        x, subnet = images(space, arch.resolution), supernet.extract(arch)
        with torch.no_grad():
            assert torch.equal(subnet(x), supernet(x, arch))
        check_onnx(subnet, x)
    with torch.no_grad():
        before = supernet(x, space.largest)
        supernet.sort_channels()
        assert torch.allclose(supernet(x, space.largest), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_sorting_channels_keeps_the_largest_subnet(name):
    space = space_of(name)
    supernet, x = make(space), images(space, 20)
    with torch.no_grad():
        before = supernet(x, space.largest)
        supernet.sort_channels()
        assert torch.allclose(supernet(x, space.largest), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_genes_change_the_network_and_every_weight_gets_a_gradient(name):
    space = space_of(name)
    codec = PopulationCodec(space)
    assert len({space.network(arch).key for arch in codec.decode(codec.sample(40, np.random.default_rng(0)))}) > 20
    supernet = make(space).train()
    for kernels in [space.largest.kernels, *(tuple([k] * len(space.slots)) for k in space.kernels(0))]:
        arch = space.canonical({**space.largest.to_json(), "kernels": kernels})
        supernet(images(space, 20), arch).square().sum().backward()
    assert [n for n, p in supernet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert elastic_kernels(space, "s1b0"), "kernels are elastic"


@pytest.mark.parametrize("name", NAMES)
def test_a_supernet_of_each_kind_learns_digits(name, tmp_path):
    recipe = TrainRecipe.model_validate(
        {
            "name": name,
            "space": space_of(name).to_json(),
            "data": {"name": "digits", "valid": 200},
            "epochs": 2 if name == "shuffle" else 1,  # half of its channels pass as they are, and it learns later
            "batch_size": 64,
            "lr": 0.05,
            "threads": 1,
        }
    )
    supernet, _ = load_supernet(train_supernet(recipe, tmp_path))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-3:]) / 3 < losses[0] - 0.05
    data = load_data(recipe.data)
    for arch in (supernet.space.largest, supernet.space.smallest):
        subnet = specialise(supernet, arch, data, 256)
        check_onnx(subnet, images(supernet.space, arch.resolution))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block": "conv"}, r"conv blocks have no expansion; give expands: \[1\], not \[3, 4, 6\]"),
        ({"block": "basic", "se": True}, "basic blocks have no squeeze-excitation; remove se"),
        ({"block": "mqa", "kernels": ((3, 3),)}, r"kernels of mqa blocks are numbers, not \[\[3, 3\]\]"),
        ({"block": "bottleneck", "expands": (0,)}, "an expansion ratio is more than 0"),
        ({"block": "fused"}, "unknown block 'fused'; known: .*fused_mbconv"),
    ],
)
def test_a_stage_says_what_its_kind_cannot(fields, words):
    with pytest.raises(UsageError, match=words):
        StageSpec(**{"width": 24, "stride": 1, **fields})


def test_attention_counts_its_products_and_reduces_keys_of_large_images():
    space = space_of("mqa")
    small, large = (
        space.block(1, 1, resolution, 1.0, 3, 1.0).block.shapes for resolution in (32, 64)
    )  # 8 and 16 pixels there
    assert (3, 64, 16) in small
    assert any(shape[-1] == 64 and shape[0] == 1 for shape in small), "64 keys for 64 places"
    assert any(shape[-1] == 64 and shape[1] == 3 * 256 for shape in large), "64 keys for 256 places"
    op = space.block(1, 1, 32, 1.0, 3, 1.0)
    # norm, query, reduction, key, value, two transposes, products, shares, mix, transpose, projection with the sum
    assert op_counts(op)["kernels"] == 12
    convolutions = 64 * (48 * 48 + 48 * 9 + 2 * 48 * 16 + 48 * 48)
    assert counts.macs(op.block) == convolutions + 2 * 3 * 64 * 64 * 16


def test_a_stage_may_have_wider_heads():
    for name, heads in (("mqa", [1, 3]), ("transformer", [2, 2])):
        space = space_of(name)
        assert "key_width" not in space.to_json()["stages"][0]
        wider = replace(space, stages=tuple(replace(stage, key_width=32) for stage in space.stages))
        assert load_space(json.loads(json.dumps(wider.to_json()))) == wider
        ops = [wider.block(1, 1, 16, 1.0, 3, expand) for expand in (0.5, 2)]
        assert [op.heads for op in ops] == heads
        assert {op.key_width for op in ops} == {32}
        supernet, x = make(wider), images(wider, 20)
        check_onnx(supernet.extract(wider.largest), x)
    with pytest.raises(UsageError, match="uib blocks have no attention; remove key_width"):
        StageSpec(16, 1, kernels=((0, 3),), block="uib", key_width=32)


def test_a_network_has_one_head_more_for_every_sixteen_channels():
    space = space_of("mqa")
    assert [space.block(1, 1, 16, 1.0, 3, expand).heads for expand in (1, 2)] == [3, 6]
    op = space.block(0, 0, 16, 1.0, 3, 1.0)
    assert type(op).from_json(op.to_json()) == op
    assert "heads" not in load_space("tiny_16").block(0, 0, 16, 1.0, 3, 2).to_json()
    with pytest.raises(UsageError, match="mqa needs heads and a key_width of at least 1, not 0 and 16"):
        type(op).from_json({**op.to_json(), "heads": 0})
    assert Network.single(op).key != Network.single(replace(op, heads=1)).key
