"""EfficientNets, compound scaling, and bases that become spaces."""

from __future__ import annotations

import json
from math import ceil

import numpy as np
import pytest

from ofa_deploy.blocks import OpSpec
from ofa_deploy.errors import UsageError
from ofa_deploy.space import (
    PopulationCodec,
    Scaling,
    compound,
    grid,
    largest_alone,
    load_space,
    make_divisible,
    network_macs,
    network_params,
)

B0 = load_space("efficientnet_b0")
PUBLISHED = {  # parameters and resolution
    0: (5288548, 224),
    1: (7794184, 240),
    2: (9109994, 260),
    3: (12233232, 300),
    4: (19341616, 380),
    5: (30389784, 456),
    6: (43040704, 528),
    7: (66347960, 600),
}


@pytest.mark.parametrize("phi", PUBLISHED)
def test_the_presets_are_the_published_networks(phi):
    space = load_space(f"efficientnet_b{phi}")
    network = space.network(space.largest)
    assert (network_params(network), space.largest.resolution) == PUBLISHED[phi]
    assert space.largest == space.smallest
    assert {op.eps for op in network.ops[:-1]} == {1e-5 if phi < 5 else 1e-3}


def test_b0_has_its_published_work():
    assert network_macs(B0.network(B0.largest)) == pytest.approx(0.39e9, rel=0.02)


@pytest.mark.parametrize("phi", [0.0, 0.5, 1.0, 2.5, -2.0])
def test_scaling_follows_its_rule(phi):
    scaled = compound(B0, phi, Scaling(), "scaled")
    for before, after in zip(B0.stages, scaled.stages, strict=True):
        assert after.depths == (ceil(before.depths[0] * 1.2**phi),)
        assert after.width == make_divisible(before.width * 1.1**phi)
    assert scaled.resolutions == (round(224 * 1.15**phi),)
    assert scaled.head_width == make_divisible(1280 * 1.1**phi)
    assert network_macs(scaled.network(scaled.largest)) > 0


def test_every_stage_keeps_a_block():
    assert {stage.depths for stage in compound(B0, -1e6, Scaling(gamma=1.0), "least").stages} == {(1,)}


def test_a_scaled_base_comes_back_from_its_json():
    scaled = compound(B0, 1.5, Scaling(1.1, 1.2, 1.1), "mine")
    assert load_space(scaled.to_json()) == scaled


@pytest.mark.parametrize(
    ("phi", "scaling", "message"),
    [
        (float("nan"), (1.2, 1.1, 1.15), "phi must be a finite number"),
        (float("inf"), (1.2, 1.1, 1.15), "phi must be a finite number"),
        (1e9, (1.2, 1.1, 1.15), "too large"),
        (25, (2.0, 1.0, 1.0), "blocks is more than 256"),
        (30, (1.0, 1.1, 1.0), "channels are more than"),
        (12, (1.2, 1.1, 1.15), "not from 16 to 1024 pixels"),
        (1, (0.9, 1.1, 1.15), "alpha must be a number of at least 1"),
        (1, (1.2, float("nan"), 1.15), "beta must be a number"),
    ],
)
def test_impossible_scalings_are_refused(phi, scaling, message):
    with pytest.raises(UsageError, match=message):
        compound(B0, phi, Scaling(*scaling), "scaled")


def test_the_grid_is_all_triples_near_two():
    found = grid(0.1, 0.05)
    assert all(abs(s.alpha * s.beta**2 * s.gamma**2 - 2) <= 0.05 for s in found)
    assert Scaling(1.2, 1.3, 1.0) in found
    assert Scaling(1.2, 1.2, 1.1) not in found
    with pytest.raises(UsageError, match="no alpha, beta, gamma"):
        grid(0.9, 0.001)
    with pytest.raises(UsageError, match="step must be"):
        grid(float("nan"))


def elastic(**choices):
    return load_space({"name": "mine", "base": "efficientnet_b0", "elastic": choices})


def test_an_elastic_base_is_its_own_largest_subnet():
    space = elastic(depth=[-1], kernel=[3, 5], expand=[3, 4, 6], width=[0.75], resolution=[192])
    base = B0.network(B0.largest)
    assert space.network(space.largest).ops == base.ops
    assert [stage.depths for stage in space.stages] == [(1,), (1, 2), (1, 2), (2, 3), (2, 3), (3, 4), (1,)]
    assert [stage.kernels for stage in space.stages] == [(3,), (3,), (3, 5), (3,), (3, 5), (3, 5), (3,)]
    assert space.stages[0].expands == (1,)
    assert space.stages[1].expands == (3, 4, 6)
    assert (space.widths, space.resolutions) == ((0.75, 1.0), (192, 224))
    codec = PopulationCodec(space)
    population = codec.sample(50, np.random.default_rng(0))
    assert codec.params(population).max() <= network_params(base)
    assert [network_macs(space.network(arch)) for arch in codec.decode(population)] == list(codec.macs(population))


def test_an_elastic_base_may_be_a_file_beside_it(tmp_path):
    path = tmp_path / "scaled.yaml"
    path.write_text(json.dumps(compound(B0, 0.5, Scaling(), "scaled").to_json()))
    (tmp_path / "mine.yaml").write_text("name: mine\nbase: scaled.yaml\nelastic: {expand: [4]}\n")
    space = load_space(tmp_path / "mine.yaml")
    assert space.name == "mine"
    assert space.stages[1].expands == (4, 6)
    assert load_space({"name": "mine", "base": str(path), "elastic": {"expand": [4]}}) == space
    assert largest_alone(space, "alone").stages[1].expands == (6,)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"kernel": [7]}, "elastic.kernel: 7 is larger than the base's 5"),
        ({"expand": [8]}, "elastic.expand: 8 is larger than the base's 6"),
        ({"resolution": [256]}, "elastic.resolution: 256 is larger than the base's 224"),
        ({"depth": [1]}, "elastic.depth"),
        ({"width": [1.5]}, "elastic.width"),
        ({"deepth": [0]}, "unknown key"),
    ],
)
def test_choices_beyond_the_base_are_refused(choices, message):
    with pytest.raises(UsageError, match=message):
        elastic(**choices)


def test_uib_blocks_and_bases_of_several_widths_say_what_they_cannot():
    with pytest.raises(UsageError, match="all kernels of the base are pairs"):
        load_space({"name": "mine", "base": "uib_16", "elastic": {"kernel": [3]}})
    two = {"name": "mine", "base": "efficientnet_b0", "widths": [0.5, 1.0]}
    with pytest.raises(UsageError, match=r"elastic.width: the base must have the width 1.0 alone, not \[0.5, 1.0\]"):
        load_space({**two, "elastic": {"width": [0.75]}})


def test_a_choice_beyond_the_base_is_found_by_its_line(tmp_path):
    (tmp_path / "a.yaml").write_text("name: a\nbase: efficientnet_b0\nelastic:\n  depth: [-1]\n  kernel: [3, 7]\n")
    with pytest.raises(UsageError, match=r"a.yaml:5: elastic.kernel: 7 is larger"):
        load_space(tmp_path / "a.yaml")


@pytest.mark.parametrize("base", ["a.yaml", "./a.yaml", "../{folder}/a.yaml"])
def test_a_file_cannot_be_its_own_base(tmp_path, base):
    (tmp_path / "a.yaml").write_text(f"name: a\nbase: {base.format(folder=tmp_path.name)}\n")
    with pytest.raises(UsageError, match="itself"):
        load_space(tmp_path / "a.yaml")


def test_an_op_of_before_has_the_usual_epsilon():
    op = B0.network(B0.largest).ops[1]
    data = {name: value for name, value in op.to_json().items() if name != "eps"}
    assert OpSpec.from_json(data) == op
    assert OpSpec.from_key(op.key) == op
