"""Heads of attention and their width as choices of a block: populations, slices of weights, sorting, a training."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.differentiable.choices import Choices, Drawn
from ofa_deploy.differentiable.paths import MixedSupernet
from ofa_deploy.errors import UsageError
from ofa_deploy.export import parity
from ofa_deploy.fleet import resolve_target
from ofa_deploy.graph import model_file
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.search.gate import Gate
from ofa_deploy.search.separable import Slots, separate
from ofa_deploy.space import PopulationCodec, StageSpec, frozen, load_space, network_macs, supernet_params
from ofa_deploy.supernet import Supernet, as_supernet, initialise, load_supernet
from ofa_deploy.training import train_supernet
from ofa_deploy.training.schedules import plan

ATTENTION = {"heads": [1, 2, 4], "key_widths": [4, 8]}
DOCUMENT = {
    "name": "heads",
    "stages": [
        {
            "width": 16,
            "stride": 2,
            "depths": [1, 2],
            "kernels": [3],
            "expands": [1, 2],
            "block": "transformer",
            **ATTENTION,
        },
        {"width": 24, "stride": 2, "depths": [1], "kernels": [3, 5], "expands": [1], "block": "mqa", **ATTENTION},
        {
            "width": 32,
            "stride": 1,
            "depths": [1, 2],
            "kernels": [3],
            "expands": [1, 2],
            "block": "mbconv",
            "kinds": ["mbconv", "conv", "mqa", "transformer"],
            "heads": [2, 4],
        },
    ],
    "resolutions": [16],
    "in_channels": 1,
    "num_classes": 10,
    "first_block": False,
    "stem_width": 8,
    "stem_stride": 1,
    "head_width": 32,
    "feature_width": 0,
}
SPACE = load_space(DOCUMENT)
CODEC = PopulationCodec(SPACE)
IMAGES = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def archs(count=16, seed=0):
    return CODEC.decode(CODEC.sample(count, np.random.default_rng(seed)))


def test_heads_and_their_width_are_genes_of_the_blocks_that_attend():
    names = [gene.name for gene in SPACE.genes]
    assert [name for name in names if "heads" in name] == [f"heads[{i}]" for i in range(5)]
    assert [name for name in names if "key_widths" in name] == [f"key_widths[{i}]" for i in range(3)]
    assert (SPACE.largest.heads, SPACE.largest.key_widths) == ((4, 4, 4, 2, 2), (8, 8, 8, 0, 0))
    assert (SPACE.smallest.heads, SPACE.smallest.key_widths) == ((1, 1, 1, 2, 2), (4, 4, 4, 0, 0))
    population = CODEC.sample(200, np.random.default_rng(1))
    found = CODEC.decode(population)
    assert np.array_equal(CODEC.encode(found), population)
    assert [SPACE.canonical(arch.to_json()) for arch in found] == found
    assert np.array_equal(CODEC.macs(population), [network_macs(SPACE.network(arch)) for arch in found])
    for arch in found:
        ops = dict(zip(SPACE.network(arch).names, SPACE.network(arch).ops, strict=True))
        assert (ops["s0b0"].heads, ops["s0b0"].key_width) == (arch.heads[0], arch.key_widths[0])
        assert (ops["s1b0"].heads, ops["s1b0"].mid) == (arch.heads[2], arch.heads[2] * arch.key_widths[2])
    assert load_space(SPACE.to_json()) == SPACE


def test_every_subnet_has_one_encoding():
    few = replace(SPACE, stages=tuple(replace(stage, depths=(1,), heads=stage.heads[:2]) for stage in SPACE.stages[1:]))
    codec = PopulationCodec(few)
    rows = np.unique(codec.canonicalise(np.array(list(product(*map(range, codec.choices))))), axis=0)
    assert len(rows) == few.size == len({few.network(arch).key for arch in codec.decode(rows)})


def test_what_does_not_go_together_is_refused():
    attention = {"depths": (1,), "kernels": (3,), "expands": (1, 2)}
    with pytest.raises(UsageError, match="mbconv blocks have no attention; remove key_width, heads"):
        StageSpec(16, 1, heads=(1, 2))
    with pytest.raises(UsageError, match="give heads, and no key_width"):
        StageSpec(16, 1, block="transformer", key_widths=(4, 8), **attention)
    with pytest.raises(UsageError, match=r"heads of mqa blocks are instead of an expansion; give expands: \[1\]"):
        StageSpec(16, 1, block="mqa", heads=(1, 2), **attention)
    with pytest.raises(UsageError, match=r"heads\[0\] is 3; the space has \[1, 2, 4\]"):
        SPACE.canonical({**SPACE.largest.to_json(), "heads": [3, 4, 4, 2, 2]})


def test_subnets_use_the_first_heads_and_the_first_channels_of_each():
    supernet = Supernet(SPACE)
    initialise(supernet, 0)
    supernet.eval()
    assert supernet_params(SPACE) == sum(parameter.numel() for parameter in supernet.parameters())
    arch = SPACE.canonical({**SPACE.largest.to_json(), "heads": [2, 4, 1, 2, 2], "key_widths": [4, 8, 4, 0, 0]})
    weights = supernet.extract(arch).state_dict()
    whole = supernet.get_submodule("s0b0").attention
    assert torch.equal(weights["s0b0.attention.query.weight"], whole.query.weight[[0, 1, 2, 3, 8, 9, 10, 11]])
    assert torch.equal(weights["s0b0.attention.project.weight"], whole.project.weight[:, [0, 1, 2, 3, 8, 9, 10, 11]])
    assert torch.equal(weights["s1b0.key.weight"], supernet.get_submodule("s1b0").key.weight[:4])
    with torch.no_grad():
        for one in archs():
            subnet, alone = supernet.extract(one), frozen(SPACE, one)
            assert torch.equal(subnet(IMAGES), supernet(IMAGES, one))
            assert torch.equal(as_supernet(subnet, alone).eval()(IMAGES, alone.largest), subnet(IMAGES))


def test_sums_over_blocks_and_the_gate_know_kinds_and_heads():
    slots, population = Slots(CODEC), CODEC.sample(600, np.random.default_rng(3))
    macs = separate(slots, lambda rows: CODEC.macs(rows)[:, None])
    assert macs.holds.all()
    assert np.allclose(macs(population)[:, 0], CODEC.macs(population))
    depths = population[:, slots.depth0 : slots.kernel0]
    again = slots.rows(slots.picks(population), depths)
    again[:, : slots.depth0] = population[:, : slots.depth0]
    assert np.array_equal(again, population)
    limits = {"max_macs": np.median(CODEC.macs(population)), "max_memory_mb": np.median(CODEC.memory(population)) / 1e6}
    problem = Problem(CODEC, CODEC.macs, None, Constraints(**limits))
    assert np.array_equal(Gate(problem).check(population).feasible, problem.violation(population) == 0)
    largest = search(problem, strategy="exact", evaluations=20_000)
    assert largest.proven
    fitting = CODEC.macs(population)[problem.violation(population) == 0]
    assert largest.best.accuracy >= fitting.max()


def test_a_mixture_of_one_choice_each_is_that_subnet():
    supernet, slots = Supernet(SPACE), Slots(CODEC)
    initialise(supernet, 0)
    mixture, choices = MixedSupernet(supernet, slots), Choices(slots)
    labels = torch.tensor([1, 2])
    for row in CODEC.sample(8, np.random.default_rng(4)):
        with torch.no_grad():
            picks = slots.picks(row[None])[0]
            chosen = [
                int(slots.size(row[None])[0]),
                *row[slots.depth0 : slots.kernel0],
                *np.where(picks == slots.C, 0, picks),
            ]
            for logits, one in zip(choices.parameters(), chosen, strict=True):
                logits.zero_()
                logits[int(one)] = 200.0
        (arch,), (likeliest,) = CODEC.decode(row[None]), CODEC.decode(choices.argmax())
        assert likeliest == arch
        drawn = Drawn(choices, "softmax", 1.0, torch.Generator().manual_seed(0))
        loss = mixture.loss((lambda resolution: IMAGES, labels), drawn)
        alone = torch.nn.functional.cross_entropy(supernet(IMAGES, arch), labels)
        assert loss.item() == pytest.approx(alone.item(), rel=1e-4)
    loss.backward()
    assert all(logits.grad is not None for logits in choices.depths if len(logits) > 1)


def test_sorting_moves_whole_heads_between_the_numbers_that_were_trained():
    supernet = Supernet(SPACE)
    initialise(supernet, 1)
    supernet.eval()
    found = archs(24, seed=2)
    with torch.no_grad():
        before = [supernet(IMAGES, arch) for arch in found]
        supernet.sort_channels(SPACE)
        for arch, expected in zip(found, before, strict=True):
            assert torch.allclose(supernet(IMAGES, arch), expected, rtol=1e-3, atol=1e-3)
        project = supernet.get_submodule("s0b0").attention.project.weight
        project.view(16, 4, 8)[:, 3] *= 9
        largest = supernet(IMAGES, SPACE.largest)
        supernet.sort_channels()
    heads = supernet.get_submodule("s0b0").attention.project.weight.detach().view(16, 4, 8).abs().sum((0, 2))
    assert heads.argmax() == 0, "the most important head is the first"
    assert (heads.diff() <= 0).all()
    assert torch.allclose(supernet(IMAGES, SPACE.largest), largest, rtol=1e-3, atol=1e-3)


def test_a_progressive_training_opens_them_with_the_expand_ratios():
    recipe = TrainRecipe(name="r", space="tiny_16", data=DataConfig(name="digits"), epochs=40, schedule="progressive")
    phases = plan(recipe, SPACE, 5)
    assert phases[0].space.size == 1
    opened = next(phase for phase in phases if phase.name == "expand").space
    assert [stage.heads for stage in opened.stages] == [(2, 4), (2, 4), (2, 4)]
    assert phases[-1].space == SPACE


def test_a_supernet_of_them_trains_and_its_subnets_ship(tmp_path):
    data = DataConfig(name="digits", valid=297)
    recipe = TrainRecipe(name="heads", space=DOCUMENT, data=data, epochs=1, batch_size=256, threads=1)
    supernet, _ = load_supernet(train_supernet(recipe, tmp_path))
    target, trained = resolve_target("local"), Supernet(SPACE)
    initialise(trained, recipe.seed)
    moved = zip(supernet.named_parameters(), trained.parameters(), strict=True)
    assert all(not torch.equal(one, other) for (name, one), other in moved if "query.weight" in name)
    for arch in (SPACE.smallest, SPACE.largest, *archs(3, seed=5)):
        subnet = supernet.extract(arch).eval()
        content = model_file(SPACE.network(arch), subnet.weights(), target)
        assert parity(subnet, content, IMAGES.numpy()).max_abs < 1e-4
