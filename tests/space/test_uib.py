"""Universal inverted bottlenecks in a space: choices by slot, keys, JSON, populations, counts."""

import json
from dataclasses import replace
from math import prod

import numpy as np
import pytest

from ofa_deploy.blocks import OpSpec, counts
from ofa_deploy.errors import UsageError
from ofa_deploy.space import (
    PopulationCodec,
    SearchSpace,
    StageSpec,
    load_space,
    network_macs,
    network_params,
    op_counts,
)

PAIRS = ((0, 0), (3, 0), (0, 5), (3, 5))
MIXED = SearchSpace(
    name="mixed_blocks",
    stages=(
        StageSpec(16, 1, depths=(1, 2), kernels=(3, 5), expands=(1, 3)),
        StageSpec(24, 2, depths=(1, 2), kernels=PAIRS, expands=(1, 2, 4), block="uib"),
        StageSpec(32, 1, "hswish", depths=(1, 3), kernels=((0, 0), (0, 3)), expands=(2,), block="uib"),
        StageSpec(40, 2, "hswish", True, depths=(1, 2), kernels=(3, 7), expands=(3, 4)),
    ),
    resolutions=(16, 20),
    widths=(0.5, 1.0),
    num_classes=7,
    head_width=48,
    feature_width=0,
)
CASES = {(0, 0): "feed-forward", (3, 0): "ConvNeXt-like", (0, 5): "inverted bottleneck", (3, 5): "ExtraDW"}


def test_only_slots_that_do_not_stride_may_be_without_depthwise() -> None:
    choices = dict(zip(MIXED.slots, map(MIXED.kernels, range(len(MIXED.slots))), strict=True))
    assert choices[1, 0] == ((3, 0), (0, 5), (3, 5))
    assert choices[1, 1] == PAIRS
    assert choices[2, 0] == ((0, 0), (0, 3))
    assert choices[0, 0] == choices[0, 1] == (3, 5)
    ops = PopulationCodec(MIXED).ops
    assert all(op.kernel or op.start for op in ops if op.stride == 2)
    assert {(op.start, op.kernel) for op in ops if op.kind == "uib"} >= CASES.keys()


def test_the_largest_has_both_depthwises_and_the_smallest_the_least_work() -> None:
    codec = PopulationCodec(MIXED)
    population = codec.sample(500, np.random.default_rng(0))
    ends = codec.encode([MIXED.smallest, MIXED.largest])
    for count in (codec.macs, codec.params):
        low, high = count(ends)
        assert low < count(population).min()
        assert count(population).max() <= high
    assert MIXED.largest.kernels[2:4] == ((3, 5), (3, 5))
    assert (MIXED.smallest.kernels[2], MIXED.smallest.kernels[4]) == ((3, 0), (0, 0))


@pytest.mark.parametrize("seed", range(5))
def test_populations_come_back_and_stay_legal(seed: int) -> None:
    codec, rng = PopulationCodec(MIXED), np.random.default_rng(seed)
    population = codec.sample(100, rng)
    archs = codec.decode(population)
    assert np.array_equal(codec.encode(archs), population)
    assert [MIXED.canonical(json.loads(json.dumps(arch.to_json()))) for arch in archs] == archs
    assert archs[0].to_json() == json.loads(json.dumps(archs[0].to_json()))
    assert codec.macs(population).tolist() == [network_macs(MIXED.network(arch)) for arch in archs]
    assert codec.params(population).tolist() == [network_params(MIXED.network(arch)) for arch in archs]
    changed = [codec.mutate(population, 0.3, rng), codec.crossover(population, population[::-1], rng)]
    for moved in (*changed, codec.neighbours(population[0])):
        assert ((moved >= 0) & (moved < codec.choices)).all()
        assert np.array_equal(codec.encode(map(MIXED.canonical, codec.decode(moved))), moved)


def test_keys_come_back_as_blocks_and_tell_all_forms_apart() -> None:
    ops = PopulationCodec(MIXED).ops
    assert len({op.key for op in ops}) == len(ops)
    assert all(OpSpec.from_key(op.key) == OpSpec.from_key(op.key_at(20)) == op for op in ops)
    assert all(OpSpec.from_json(json.loads(json.dumps(op.to_json()))) == op for op in ops)
    assert OpSpec("uib", 8, 8, 4, 16, 6, 0, 2, start=3).key == "uib-8x8-c4-m16-o6-start3-k0-s2-relu"
    assert OpSpec("mbconv", 8, 8, 4, 16, 4, 3, 1, skip=True).key == "mbconv-8x8-c4-m16-o4-k3-s1-relu-skip"


@pytest.mark.parametrize(
    "key",
    [
        "uib-8x8-c4-m16-o6-k0-s2-relu",
        "mbconv-8x8-c4-m16-o6-k0-s1-relu",
        "mbconv-8x8-c4-m16-o6-start3-k3-s1-relu",
        "stem-8x8-c4-m0-o6-k0-s1-relu",
        "uib-8x8-c4-m16-o6-start0-k3-s1-relu",
    ],
)
def test_blocks_without_the_depthwise_that_they_need_are_none(key: str) -> None:
    with pytest.raises(UsageError, match=r"has these kernels|not the key of a block"):
        OpSpec.from_key(key)


@pytest.mark.parametrize(
    ("slot", "kernel"), [(2, [0, 0]), (2, 3), (3, [5, 0]), (3, [3, 5, 0]), (3, "35"), (3, [[3], [5]]), (0, [0, 3])]
)
def test_a_wrong_kernel_is_named(slot: int, kernel: object) -> None:
    arch = MIXED.largest.to_json()
    arch["kernels"][slot] = kernel
    with pytest.raises(UsageError, match=rf"kernels\[{slot}\] is .*; the space has \["):
        MIXED.canonical(arch)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block": "edge"}, "unknown block 'edge'; known: .*mbconv, uib"),
        ({"block": "uib"}, r"kernels of uib blocks are pairs \[before, after\], not \[3, 5, 7\]"),
        ({"kernels": ((0, 3),)}, r"kernels of mbconv blocks are numbers, not \[\[0, 3\]\]"),
        ({"block": "uib", "kernels": ((0, 3), 3)}, "kernels of uib blocks are pairs"),
        ({"block": "uib", "kernels": ((0, 3),), "se": True}, "squeeze-excitation"),
        ({"block": "uib", "kernels": ((0, 5), (3, 0))}, r"the pair \[3, 5\]"),
        ({"block": "uib", "kernels": ((0, 0),), "stride": 2}, r"a pair besides \[0, 0\]"),
    ],
)
def test_a_stage_that_cannot_be_is_refused(fields: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        StageSpec(**{"width": 24, "stride": 1, **fields})


def test_a_space_from_yaml(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    stage = "{width: 8, stride: 2, block: uib, kernels: [[0, 0], [3, 0], [3, 5]]}"
    file.write_text(f"name: mine\nbase: small_28\nstages:\n  - width: 8\n  - {stage}\n")
    space = load_space(file)
    assert space.stages[1].kernels == ((0, 0), (3, 0), (3, 5))
    assert load_space(json.loads(json.dumps(space.to_json()))) == space
    assert load_space(MIXED.to_json()) == MIXED
    file.write_text(f"name: mine\nbase: small_28\nstages:\n  - {stage.replace('[3, 0]', '[5, 0]')}\n")
    with pytest.raises(UsageError, match=r"space mine: stages\.0: kernels must have the pair \[5, 5\]"):
        load_space(file)
    file.write_text(f"name: mine\nbase: small_28\nstages:\n  - {stage.replace('[3, 0]', '[4, 0]')}\n")
    with pytest.raises(UsageError, match=r"mine\.yaml:4: stages\.0\.kernels"):
        load_space(file)


@pytest.mark.parametrize(("start", "kernel"), CASES, ids=list(CASES.values()))
@pytest.mark.parametrize("stride", [1, 2])
def test_counts_by_hand(start: int, kernel: int, stride: int) -> None:
    if stride == 2 and not start + kernel:
        return
    op = OpSpec("uib", 8, 8, 4, 16, 6, kernel, stride, "relu", start=start)
    after = 64 // stride**2
    inside = 64 if kernel else after
    depthwise = inside * 4 * start**2 + after * 16 * kernel**2
    amounts = op_counts(op)
    assert amounts == {
        "dense_macs": inside * 4 * 16 + after * 16 * 6,
        "depthwise_macs": depthwise,
        "weights": counts.shipped_weights(op.block),
        "input": 4 * 64,
        "inside": inside * 4 * (start > 0) + inside * 16 + after * 16 * (kernel > 0),
        "output": 6 * after,
        "kernels": 2 + (start > 0) + (kernel > 0),
    }
    assert counts.macs(op.block) == amounts["dense_macs"] + depthwise
    batch_norm = 2 * (4 * (start > 0) + 16 + 16 * (kernel > 0) + 6)
    assert counts.params(op.block) == 4 * start**2 + 4 * 16 + 16 * kernel**2 + 16 * 6 + batch_norm
    assert amounts["output"] == prod(op.output_shape)
    assert op_counts(replace(op, act="hswish"))["kernels"] == amounts["kernels"] + 1 + (kernel > 0)


def test_an_inverted_bottleneck_counts_the_same_as_either_kind() -> None:
    uib = OpSpec("uib", 9, 9, 8, 32, 16, 5, 2, "relu")
    mbconv = replace(uib, kind="mbconv")
    for count in (counts.macs, counts.params, counts.shipped_weights):
        assert count(uib.block) == count(mbconv.block)
    assert op_counts(uib) == op_counts(mbconv)
