"""Stages whose width is a choice: a gene of each stage, which the blocks at both of its ends depend on."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ofa_deploy.config import DataConfig, TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.space import PopulationCodec, StageSpec, frozen, largest_alone, load_space, network_macs, rescale
from ofa_deploy.supernet import Supernet, as_supernet, initialise
from ofa_deploy.training.schedules import plan

SPACE = load_space(
    {
        "name": "elastic_widths",
        "stages": [
            {"width": 24, "widths": [8, 16, 24], "stride": 1, "depths": [1, 2], "kernels": [3, 5], "expands": [1, 2]},
            {"width": 32, "stride": 2, "depths": [1, 2], "kernels": [3], "expands": [2, 3], "se": True},
            {"width": 48, "widths": [48, 16], "stride": 2, "depths": [1, 2], "kernels": [3, 5], "expands": [2]},
        ],
        "resolutions": [16, 24],
        "in_channels": 1,
        "num_classes": 10,
        "first_block": False,
        "head_width": 64,
        "feature_width": 0,
    }
)
CODEC = PopulationCodec(SPACE)


def sample(count, seed=0):
    return CODEC.sample(count, np.random.default_rng(seed))


def test_genes_name_what_can_be_chosen():
    names = [gene.name for gene in SPACE.genes]
    assert names[:7] == ["resolution", "width", "channels[0]", "channels[2]", "depths[0]", "depths[1]", "depths[2]"]
    assert SPACE.genes[2].choices == (8, 16, 24)
    assert len(names) == len(CODEC.choices) == 7 + 2 * 6
    assert SPACE.largest.channels == (24, 32, 48)
    assert SPACE.smallest.channels == (8, 32, 16)


def test_populations_are_their_subnets():
    population = sample(200)
    archs = CODEC.decode(population)
    assert np.array_equal(CODEC.encode(archs), population)
    assert [SPACE.canonical(arch.to_json()) for arch in archs] == archs
    assert len({arch.channels for arch in archs}) == 6
    assert np.array_equal(CODEC.macs(population), [network_macs(SPACE.network(arch)) for arch in archs])
    ids = CODEC.op_ids(population)
    for column, arch in zip(ids.T, archs, strict=True):
        blocks = sorted(op.key for op in SPACE.network(arch).ops)
        assert sorted(CODEC.ops[i].key for i in column if i < len(CODEC.ops)) == blocks


def test_the_space_is_as_large_as_its_subnets_are_many():
    small = replace(SPACE, stages=tuple(replace(stage, depths=(1,), expands=(2,)) for stage in SPACE.stages))
    codec = PopulationCodec(small)
    rows = np.array(list(product(*map(range, codec.choices))))
    assert len(np.unique(codec.canonicalise(rows), axis=0)) == small.size


def test_spaces_without_such_a_choice_are_written_as_before():
    plain = load_space("tiny_16")
    assert "widths" not in plain.to_json()["stages"][0]
    assert "channels" not in plain.largest.to_json()
    assert load_space(SPACE.to_json()) == SPACE


@pytest.mark.parametrize(
    ("channels", "says"),
    [([24, 32], "needs a list of 3"), ([20, 32, 48], r"channels\[0\] is 20"), ([24, 16, 48], r"channels\[1\] is 16")],
)
def test_wrong_channels_are_named(channels, says):
    with pytest.raises(UsageError, match=says):
        SPACE.canonical({**SPACE.largest.to_json(), "channels": channels})
    plain = load_space("tiny_16")
    with pytest.raises(UsageError, match="channels needs a list of 0 values"):
        plain.canonical({**plain.largest.to_json(), "channels": [16, 32]})


def test_the_width_is_the_largest_of_the_widths():
    with pytest.raises(UsageError, match="width is 16; it must be the largest of widths, which is 24"):
        StageSpec(16, 1, widths=(16, 24))


def test_a_supernet_holds_every_width():
    supernet = Supernet(SPACE)
    initialise(supernet, 0)
    supernet.eval()
    x = torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    archs = [replace(arch, resolution=24) for arch in CODEC.decode(sample(8))]
    with torch.no_grad():
        for arch in archs:
            subnet = supernet.extract(arch).eval()
            assert torch.equal(subnet(x), supernet(x, arch))
            assert torch.equal(as_supernet(subnet, frozen(SPACE, arch))(x, frozen(SPACE, arch).largest), subnet(x))
        before = [supernet(x, arch) for arch in archs]
        supernet.sort_channels(SPACE)
        for arch, expected in zip(archs, before, strict=True):
            assert torch.allclose(supernet(x, arch), expected, rtol=1e-3, atol=1e-3)


def test_search_finds_the_best_widths():
    small = replace(
        SPACE, resolutions=(16,), stages=tuple(replace(stage, kernels=(3,), expands=(2,)) for stage in SPACE.stages)
    )
    codec = PopulationCodec(small)
    rows = np.unique(codec.canonicalise(np.array(list(product(*map(range, codec.choices))))), axis=0)

    def latency(population):
        return codec.macs(population) / 1e6, np.zeros(len(population))

    def accuracy(population):
        return np.tanh(codec.params(population) / 4e4)

    worth, ms = accuracy(rows), latency(rows)[0]
    budget = float(np.quantile(ms, 0.4))
    found = search(Problem(codec, accuracy, latency, Constraints(max_ms=budget)), 0)
    assert found.finalists[0].accuracy == pytest.approx(worth[ms <= budget].max())


def test_progressive_shrinking_opens_widths_last():
    recipe = TrainRecipe(name="r", space="tiny_16", data=DataConfig(name="digits"), epochs=40, schedule="progressive")
    phases = plan(recipe, SPACE, 5)
    opened = {phase.name: phase.space for phase in phases}
    assert opened["expand"].elastic_stages == (0, 2)
    assert all(len(gene.choices) == 1 for gene in opened["expand"].genes if gene.name.startswith("channels"))
    assert opened["width"] == SPACE
    assert phases[-1].name == "width"


def test_scaling_and_freezing_keep_widths_right():
    wider = rescale(SPACE, "wider", 2.0, 1.0, 1.0)
    assert wider.stages[0].widths == (16, 32, 48)
    assert largest_alone(SPACE, "alone").elastic_stages == ()
    assert (
        largest_alone(SPACE, "alone").network(largest_alone(SPACE, "alone").largest).key
        == SPACE.network(SPACE.largest).key
    )
