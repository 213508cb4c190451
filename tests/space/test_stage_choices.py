"""Stages that choose the kind of their blocks: one gene for kind and depth, and weights of its own for every kind."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.space import PopulationCodec, StageSpec, frozen, load_space, network_macs, supernet_params
from ofa_deploy.supernet import Supernet, as_supernet, initialise
from ofa_deploy.training.schedules import plan

SPACE = load_space(
    {
        "name": "kinds",
        "stages": [
            {"width": 16, "stride": 1, "depths": [1], "kernels": [3, 5], "expands": [1, 2]},
            {
                "width": 32,
                "widths": [16, 32],
                "stride": 2,
                "depths": [1, 2],
                "kernels": [3, 5],
                "expands": [1, 2],
                "block": "mbconv",
                "kinds": ["conv", "mbconv", "bottleneck", "transformer"],
            },
        ],
        "resolutions": [16, 24],
        "in_channels": 1,
        "num_classes": 10,
        "first_block": False,
        "head_width": 32,
        "feature_width": 0,
    }
)
CODEC, KINDS = PopulationCodec(SPACE), SPACE.stages[1].kinds
EVALUATIONS = {"exact": 20_000}  # a proof needs many, and then few


def sample(count, seed=0):
    return CODEC.sample(count, np.random.default_rng(seed))


def test_such_a_stage_has_one_gene_for_its_kind_and_depth():
    assert [gene.name for gene in SPACE.genes[3:5]] == ["depths[0]", "stages[1]"]
    assert SPACE.genes[4].choices == tuple(product(KINDS, (1, 2)))
    assert SPACE.largest.kinds == ("mbconv", "mbconv")
    kinds = {kind: SPACE.canonical({**SPACE.smallest.to_json(), "kinds": ["mbconv", kind]}) for kind in KINDS}
    assert network_macs(SPACE.network(SPACE.smallest)) == min(network_macs(SPACE.network(a)) for a in kinds.values())
    assert list(SPACE.blocks)[:2] == ["s0b0", "s1b0_conv"]


def test_populations_are_their_subnets():
    population = sample(300)
    archs = CODEC.decode(population)
    assert np.array_equal(CODEC.encode(archs), population)
    assert [SPACE.canonical(arch.to_json()) for arch in archs] == archs
    assert {arch.kinds[1] for arch in archs} == set(KINDS)
    names = {frozenset(name[:2] + name[4:] for name in SPACE.network(arch).names[2:-2]) for arch in archs}
    assert names == {frozenset({f"s1_{kind}"}) for kind in KINDS}, "all blocks of a stage are of one kind"
    assert np.array_equal(CODEC.macs(population), [network_macs(SPACE.network(arch)) for arch in archs])


def test_a_choice_that_means_nothing_is_not_told_apart():
    arch = SPACE.largest.to_json()
    one, other = ({**arch, "kinds": ["mbconv", "conv"], "expands": [2, e, e]} for e in (1, 2))
    assert SPACE.canonical(one) == SPACE.canonical(other)
    assert np.array_equal(*(CODEC.encode([given]) for given in (one, other)))
    fewer = replace(SPACE, resolutions=(16,), stages=tuple(replace(s, depths=(1,), widths=()) for s in SPACE.stages))
    codec = PopulationCodec(fewer)
    rows = np.array(list(product(*map(range, codec.choices))))
    networks = {fewer.network(arch).key for arch in codec.decode(rows)}
    assert len(np.unique(codec.canonicalise(rows), axis=0)) == fewer.size
    assert len(networks) == fewer.size


def test_spaces_come_back_from_json():
    assert load_space(SPACE.to_json()) == SPACE
    assert "kinds" not in load_space("tiny_16").to_json()["stages"][0]
    assert "kinds" not in load_space("tiny_16").largest.to_json()


def test_what_is_wrong_is_named():
    with pytest.raises(UsageError, match=r"kinds\[1\] is 'uib'; the space has"):
        SPACE.canonical({**SPACE.largest.to_json(), "kinds": ["mbconv", "uib"]})
    with pytest.raises(UsageError, match=r"kinds\[0\] is 'conv'"):
        SPACE.canonical({**SPACE.largest.to_json(), "kinds": ["conv", "conv"]})
    with pytest.raises(UsageError, match="kinds needs a list of 2 values"):
        SPACE.canonical({**SPACE.largest.to_json(), "kinds": ["mbconv", "conv", "conv"]})
    with pytest.raises(UsageError, match="block is mbconv; it must be one of kinds, which are conv, basic"):
        StageSpec(16, 1, kinds=("conv", "basic"))
    with pytest.raises(UsageError, match="kernels of uib blocks are pairs"):
        StageSpec(16, 1, kinds=("mbconv", "uib"))


def test_a_supernet_holds_every_kind():
    supernet = Supernet(SPACE)
    initialise(supernet, 0)
    assert supernet_params(SPACE) == sum(parameter.numel() for parameter in supernet.parameters())
    archs = [replace(arch, resolution=24) for arch in CODEC.decode(sample(12))]
    x = torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    supernet.eval()
    with torch.no_grad():
        for arch in archs:
            subnet, alone = supernet.extract(arch).eval(), frozen(SPACE, arch)
            assert torch.equal(subnet(x), supernet(x, arch))
            assert torch.equal(as_supernet(subnet, alone)(x, alone.largest), subnet(x))
        before = [supernet(x, arch) for arch in archs]
        supernet.sort_channels(SPACE)
        for arch, expected in zip(archs, before, strict=True):
            assert torch.allclose(supernet(x, arch), expected, rtol=1e-3, atol=1e-3)


def test_channels_can_be_sorted_after_training_one_kind():
    supernet, x = Supernet(SPACE), torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    initialise(supernet, 0)
    stages = tuple(replace(stage, kinds=(stage.block,)) if stage.kinds else stage for stage in SPACE.stages)
    supernet.eval()
    largest = replace(SPACE.largest, resolution=24)
    before = supernet(x, largest)
    supernet.sort_channels(replace(SPACE, stages=stages))
    assert torch.allclose(supernet(x, largest), before, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("strategy", ["evolution", "exact", "predictor-guided", "nsga2"])
def test_strategies_find_the_best_kinds(strategy):
    def latency(population):
        return CODEC.macs(population) / 1e6, np.zeros(len(population))

    worth = np.random.default_rng(3).uniform(0, 0.1, (len(CODEC.ops) + 1))
    worth[-1] = 0

    def accuracy(population):
        return 0.5 + worth[CODEC.op_ids(population)].sum(axis=0) / 10

    rows = np.unique(CODEC.canonicalise(np.array(list(product(*map(range, CODEC.choices))))), axis=0)
    budget = float(np.quantile(latency(rows)[0], 0.3))
    best = accuracy(rows)[latency(rows)[0] <= budget].max()
    found = search(
        Problem(CODEC, accuracy, latency, Constraints(max_ms=budget)),
        0,
        strategy,
        evaluations=EVALUATIONS.get(strategy, 1200),
    )
    assert found.best.accuracy >= best - 0.02
    if strategy in ("evolution", "exact"):
        assert found.best.accuracy == pytest.approx(best)


@pytest.mark.parametrize("schedule", ["sandwich", "progressive"])
def test_a_training_begins_with_the_largest_and_ends_with_all_kinds(schedule):
    data = DataConfig(name="digits")
    recipe = TrainRecipe(name="r", space="tiny_16", data=data, epochs=40, schedule=schedule, largest_epochs=2)
    phases = plan(recipe, SPACE, 5)
    assert phases[0].space.size == len(phases[0].space.resolutions)
    assert phases[0].space.blocks.keys() < SPACE.blocks.keys()
    assert phases[-1].space == SPACE
    only = replace(
        SPACE, resolutions=(16,), stages=(replace(SPACE.stages[1], widths=(), depths=(1,), kernels=(3,), expands=(1,)),)
    )
    assert plan(recipe, only, 5)[-1].space == only


@pytest.mark.parametrize("name", ["kinds", "resnet"])
def test_a_small_space_is_evaluated_whole_and_its_best_is_proven(name):
    space = SPACE if name == "kinds" else replace(load_space("resnet_28"), resolutions=(20,))
    codec = PopulationCodec(space)
    rows = codec.everything(20_000)
    assert len(rows) == space.size
    assert codec.everything(len(rows) - 1) is None

    def latency(population):
        return codec.macs(population) / 1e6, np.zeros(len(population))

    def accuracy(population):  # no sum over blocks
        return 0.5 + 0.1 * np.sin(population.astype(float) @ np.arange(1, population.shape[1] + 1))

    budget = float(np.quantile(latency(rows)[0], 0.5))
    found = search(Problem(codec, accuracy, latency, Constraints(max_ms=budget)), 0, "exact", evaluations=20_000)
    assert found.proven
    assert found.best.accuracy == accuracy(rows)[latency(rows)[0] <= budget].max()
