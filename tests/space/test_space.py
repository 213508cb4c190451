import json
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.blocks import OpSpec, check_weights, counts, random_weights
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import (
    GENE,
    PRESETS,
    ChainArch,
    PopulationCodec,
    SearchSpace,
    StageSpec,
    load_space,
    make_divisible,
    network_macs,
    network_params,
    op_counts,
    supernet_params,
)
from ofa_deploy.space.totals import unit_table

ANCHORS = Path(__file__).parents[2] / ".." / "shared" / "anchors" / "ofa"


@pytest.mark.parametrize(
    ("name", "supernet", "largest", "smallest"),
    [("ofa_mbv3_w1.0", 7_678_880, 7_664_760, 3_410_792), ("ofa_mbv3_w1.2", 10_715_752, 10_701_632, 4_602_456)],
)
def test_parameters_equal_once_for_alls(name: str, supernet: int, largest: int, smallest: int) -> None:
    space = load_space(name)
    assert supernet_params(space) == supernet
    assert network_params(space.network(space.largest)) == largest
    assert network_params(space.network(space.smallest)) == smallest


@pytest.mark.skipif(not ANCHORS.is_dir(), reason="the published networks are not at hand")
@pytest.mark.parametrize(("published", "own_count"), [(389, 389.49e6), (482, 482.41e6), (595, 595.19e6)])
def test_macs_of_published_networks(published: int, own_count: float) -> None:
    networks = json.loads((ANCHORS / "specialized.json").read_text())
    network = next(n for n in networks if n.get("macs_millions") == published)
    space = load_space("ofa_mbv3_w1.2")
    depths, kernels, expands = [0] * 5, [3] * 20, [3] * 20
    for block in network["blocks"]:
        stage = [32, 48, 96, 136, 192].index(block["out_channels"])
        slot = 4 * stage + depths[stage]
        kernels[slot], expands[slot] = block["kernel"], block["expand_ratio"]
        depths[stage] += 1
    arch = {"resolution": network["image_size"], "depths": depths, "kernels": kernels, "expands": expands}
    assert network_macs(space.network(arch)) == pytest.approx(own_count, rel=1e-4)
    assert [op.mid for op in space.network(arch).ops if op.kind == "mbconv"][1:] == [
        block["mid_channels"] for block in network["blocks"]
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_population_round_trip_and_counts(name: str) -> None:
    space = load_space(name)
    codec, rng = PopulationCodec(space), np.random.default_rng(0)
    population = codec.sample(64, rng)
    assert population.dtype == GENE
    archs = codec.decode(population)
    assert np.array_equal(codec.encode(archs), population)
    networks = [space.network(arch) for arch in archs]
    assert codec.macs(population).tolist() == [network_macs(network) for network in networks]
    assert codec.params(population).tolist() == [network_params(network) for network in networks]
    ids = codec.op_ids(population)
    for i, network in enumerate(networks):
        numbers = [n for n in ids[:, i] if n < len(codec.ops)]
        assert sorted(codec.ops[n].key for n in numbers) == sorted(op.key for op in network.ops)


def test_equal_networks_are_equal_archs() -> None:
    space = load_space("small_28")
    arch = space.smallest.to_json()
    other = json.loads(json.dumps(arch))
    unused = next(i for i, (s, b) in enumerate(space.slots) if b >= arch["depths"][s])
    other["kernels"][unused] = 5
    assert space.canonical(arch) == space.canonical(other)
    assert space.canonical(arch).key == space.canonical(other).key
    assert space.canonical(arch).key != space.largest.key


def test_operators_stay_in_the_space_and_canonical() -> None:
    codec, rng = PopulationCodec(load_space("small_28")), np.random.default_rng(1)
    population = codec.sample(200, rng)
    for changed in (
        codec.mutate(population, 0.2, rng),
        codec.crossover(population, population[::-1], rng),
        codec.neighbours(population[0]),
        codec.stratified(50, rng),
    ):
        assert ((changed >= 0) & (changed < codec.choices)).all()
        assert np.array_equal(changed, codec.canonicalise(changed))
    assert (codec.mutate(population, 0.2, rng) != population).any(axis=1).mean() > 0.5
    neighbours = codec.neighbours(population[0])
    assert len(np.unique(neighbours, axis=0)) == len(neighbours)


def test_stratified_spans_the_space() -> None:
    codec = PopulationCodec(load_space("small_28"))
    macs = codec.macs(codec.stratified(20, np.random.default_rng(0)))
    ends = codec.macs(codec.encode([codec.space.smallest, codec.space.largest]))
    assert (macs.min(), macs.max()) == (ends[0], ends[1])


@pytest.mark.parametrize("name", ["small_28", "resnet_28", "uib_28"])
def test_spread_reaches_both_ends_as_often_as_the_middle(name: str) -> None:
    codec = PopulationCodec(load_space(name))
    low, high = np.log(codec.macs(codec.encode([codec.space.smallest, codec.space.largest])))
    drawn = codec.spread(300, np.random.default_rng(0))
    assert np.array_equal(codec.canonicalise(drawn), drawn)
    thirds = np.histogram((np.log(codec.macs(drawn)) - low) / (high - low), bins=3, range=(0, 1))[0]
    assert thirds.min() >= 60
    assert thirds.sum() == 300
    assert codec.spread(0, np.random.default_rng(0)).shape == (0, len(codec.choices))


def test_a_space_knows_its_size_and_no_subnet_is_drawn_twice() -> None:
    stages = (
        StageSpec(16, 2, depths=(1, 2), kernels=(3, 5), expands=(2, 3)),
        StageSpec(24, 2, block="uib", depths=(1,), kernels=((0, 0), (0, 3), (3, 3)), expands=(2,)),
    )
    space = SearchSpace("few", stages, (16, 20))
    drawn = PopulationCodec(space).stratified(1000, np.random.default_rng(0))
    assert len(drawn) == len(np.unique(drawn, axis=0)) == space.size == 2 * (4 + 16) * 2  # no [0, 0] where it strides
    alone = SearchSpace("one", (StageSpec(16, 1, depths=(1,), kernels=(3,), expands=(3,)),), (16,))
    assert len(PopulationCodec(alone).stratified(5, np.random.default_rng(0))) == alone.size == 1


@pytest.mark.parametrize("resolution", [16, 97, 320])
def test_counts_accept_any_resolution(resolution: int) -> None:
    space = load_space("ofa_mbv3_w1.0")
    arch = {**space.smallest.to_json(), "resolution": resolution}
    assert network_macs(space.network(arch)) > 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"resolution": 15}, "resolution"),
        ({"resolution": "28"}, "resolution"),
        ({"depths": [9, 1, 1]}, "depths"),
        ({"kernels": [3]}, "kernels"),
        ({"width": 0.6}, "width"),
        ({"space": "other"}, "space"),
        ({"colour": 1}, "colour"),
        ({"depths": None}, "depths"),
    ],
)
def test_a_wrong_arch_is_named(change: dict, word: str) -> None:
    space = load_space("small_28")
    with pytest.raises(UsageError, match=word):
        space.canonical({**space.smallest.to_json(), **change})


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("stages", "stages: []"),
        ("resolutions", "resolutions: []"),
        ("widths", "widths: []"),
        *((f"stages.0.{name}", f"stages: [{{width: 8, {name}: []}}]") for name in ("depths", "kernels", "expands")),
        *((f"elastic.{n}", f"elastic: {{{n}: []}}") for n in ("depth", "kernel", "expand", "width", "resolution")),
    ],
)
def test_an_empty_list_is_named_with_its_line(tmp_path: Path, key: str, given: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"name: mine\nbase: tiny_16\n{given}\n")
    with pytest.raises(UsageError, match=rf"^{file}:3: {key}: the list is empty; give at least one value$"):
        load_space(file)


def test_no_space_is_without_choices() -> None:
    space = load_space("tiny_16")
    for name in ("stages", "resolutions", "widths"):
        with pytest.raises(UsageError, match=f"{name} is empty"):
            replace(space, **{name: ()})
    for name in ("depths", "kernels", "expands"):
        with pytest.raises(UsageError, match=f"{name} is empty"):
            replace(space.stages[0], **{name: ()})
    with pytest.raises(UsageError, match="mine has no stages and no resolutions; give them"):
        load_space({"name": "mine"})


def test_genes_of_more_choices_than_a_byte_holds() -> None:
    space = replace(load_space("tiny_16"), resolutions=tuple(range(16, 201)))
    codec = PopulationCodec(space)
    archs = [replace(space.smallest, resolution=resolution) for resolution in space.resolutions]
    population = codec.encode(archs)
    assert codec.decode(population) == archs
    assert population[:, 0].tolist() == list(range(185))
    assert codec.sample(2000, np.random.default_rng(0))[:, 0].max() > 127
    assert codec.mutate(population, 0.5, np.random.default_rng(0)).min() >= 0
    assert codec.decode(codec.neighbours(population[-1]))[0].resolution in space.resolutions
    assert (np.diff(codec.macs(population)) >= 0).all(), "a larger input costs no less"


def test_width_may_be_absent_where_the_space_has_one() -> None:
    space = load_space("ofa_mbv3_w1.0")
    data = space.largest.to_json()
    del data["width"], data["space"]
    assert space.canonical(data) == space.largest


def test_space_from_yaml(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nbase: small_28\nresolutions: [28]\nnum_classes: 3\n")
    space = load_space(file)
    assert (space.resolutions, space.num_classes, space.stages) == ((28,), 3, PRESETS["small_28"].stages)
    assert load_space(space.to_json()) == space
    file.write_text("name: mine\nbase: small_28\nstages:\n  - width: 8\n    kernel: [3]\n")
    with pytest.raises(UsageError, match=r"mine\.yaml:5: stages\.0\.kernel: unknown key"):
        load_space(file)


def test_unknown_preset_names_the_known() -> None:
    with pytest.raises(UsageError, match=r"ofa_mbv3_w1\.0"):
        load_space("nonsense")


def test_op_json_and_keys() -> None:
    codec = PopulationCodec(load_space("small_28"))
    assert len({op.key for op in codec.ops}) == len(codec.ops)
    assert all(OpSpec.from_json(json.loads(json.dumps(op.to_json()))) == op for op in codec.ops)
    with pytest.raises(UsageError, match="transformer"):
        OpSpec.from_json({**codec.ops[0].to_json(), "kind": "transformer"})
    with pytest.raises(UsageError, match="flavour"):
        OpSpec.from_json({**codec.ops[0].to_json(), "flavour": 1})


def test_weights_are_checked_by_name() -> None:
    space = load_space("small_28")
    network = space.network(space.smallest)
    weights = random_weights(network, 3)
    check_weights(network, weights)
    assert all(np.array_equal(weights[k], v) for k, v in random_weights(network, 3).items())
    broken = {**weights, "extra": np.zeros(1), "stem.conv.weight": np.zeros((1, 1, 3, 3))}
    del broken["classifier.linear.bias"]
    with pytest.raises(OfaDeployError, match=r"missing classifier\.linear\.bias.*unknown extra.*stem\.conv\.weight is"):
        check_weights(network, broken)


def test_make_divisible_never_loses_a_tenth() -> None:
    assert [make_divisible(v) for v in (1, 8, 19.2, 28.8, 134.4, 11)] == [8, 8, 24, 32, 136, 16]


def test_arch_is_hashable_and_immutable() -> None:
    arch = load_space("small_28").largest
    assert isinstance(arch, ChainArch)
    with pytest.raises(AttributeError):
        arch.width = 2  # type: ignore[misc]


def test_keys_come_back_as_blocks() -> None:
    for space in PRESETS.values():
        for op in PopulationCodec(space).ops:
            if "-in" in op.key:  # of a kind whose keys do not spell its fields
                continue
            plain = replace(op, eps=OpSpec.eps, same=op.block.same)  # the key is silent about what changes no latency
            assert OpSpec.from_key(op.key) == OpSpec.from_key(op.key_at(224)) == plain
    for key in (
        "",
        "stem",
        "edge-8x8-c1-m0-o8-k3-s2-relu",
        "stem-0x8-c1-m0-o8-k3-s2-relu",
        "stem-8x8-c1-m0-o8-k3-s2-relu@",
    ):
        with pytest.raises(UsageError, match=r"key of a block|unknown op kind"):
            OpSpec.from_key(key)


def test_blocks_numbered_per_resolution() -> None:
    space = load_space("small_28")
    plain, apart = PopulationCodec(space), PopulationCodec(space, per_resolution=True)
    assert plain.op_keys == tuple(op.key for op in plain.ops)
    assert len(set(apart.op_keys)) == len(apart.ops) > len(plain.ops)
    population = plain.sample(40, np.random.default_rng(0))
    assert (apart.macs(population) == plain.macs(population)).all()
    for arch, numbers in zip(apart.decode(population), apart.op_ids(population).T, strict=True):
        got = sorted(apart.op_keys[n] for n in numbers if n < len(apart.ops))
        assert got == sorted(op.key_at(arch.resolution) for op in space.network(arch).ops)


def test_counts_of_a_block_add_up() -> None:
    space = load_space("ofa_mbv3_w1.0")
    for op in space.network(space.largest).ops:
        amounts = op_counts(op)
        assert amounts["dense_macs"] + amounts["depthwise_macs"] == counts.macs(op.block)
        assert amounts["output"] == prod(op.output_shape)
        assert amounts["kernels"] >= 1
    plain = OpSpec("mbconv", 8, 8, 4, 16, 4, 3, 1, "relu", skip=True)
    assert op_counts(plain) == {
        "dense_macs": 64 * 4 * 16 * 2,
        "depthwise_macs": 64 * 16 * 9,
        "weights": counts.shipped_weights(plain.block),
        "input": 2 * 64 * 4,
        "inside": 2 * 64 * 16,
        "output": 64 * 4,
        "kernels": 3,
    }
    assert op_counts(replace(plain, act="hswish"))["kernels"] == 5
    assert op_counts(replace(plain, se=4))["kernels"] == 7
    silu, gated = (op_counts(replace(plain, act="silu", se=squeezed)) for squeezed in (0, 4))
    assert gated["kernels"] == silu["kernels"] + 5, "pooled, reduced, activated, expanded, scaled"
    assert gated["inside"] == silu["inside"] + 16 + 4 + 4 + 16 + 16 * 64
    halved = OpSpec("fact_reduce", 8, 8, 4, 0, 6, 1, 2)
    assert op_counts(halved) == {
        "dense_macs": 16 * 4 * 6,
        "depthwise_macs": 0,
        "weights": counts.shipped_weights(halved.block),
        "input": 64 * 4,
        "inside": 2 * 16 * 3,
        "output": 16 * 6,
        "kernels": 3,
    }
    assert counts.peak_activations(halved.block) == 64 * 4 + 16 * 6, "both convolutions read the input"


def test_a_table_of_counts_is_made_once_and_not_written_to() -> None:
    codec = PopulationCodec(load_space("tiny_16"))
    table = unit_table(codec.units, "macs")
    assert unit_table(PopulationCodec(load_space("tiny_16")).units, "macs") is table
    assert table.tolist() == [*(counts.macs(op.block) for op in codec.ops), 0]
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1
