import dataclasses

import numpy as np
import pytest

from ofa_deploy.blocks import Network, OpSpec, counts, random_weights
from ofa_deploy.errors import UsageError
from ofa_deploy.space import (
    CellSpace,
    Genotype,
    PopulationCodec,
    load_space,
    network_macs,
    network_memory,
    network_params,
    unit_counts,
)

# the cells that DARTS published for CIFAR-10, found with the second-order search (Liu et al., ICLR 2019, figures 4, 5)
DARTS_V2 = {
    "normal": [
        [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]],
        [["sep_conv_3x3", 0], ["sep_conv_3x3", 1]],
        [["sep_conv_3x3", 1], ["skip_connect", 0]],
        [["skip_connect", 0], ["dil_conv_3x3", 2]],
    ],
    "reduce": [
        [["max_pool_3x3", 0], ["max_pool_3x3", 1]],
        [["skip_connect", 2], ["max_pool_3x3", 1]],
        [["max_pool_3x3", 0], ["skip_connect", 2]],
        [["skip_connect", 2], ["max_pool_3x3", 1]],
    ],
}


def space(genotype=DARTS_V2, **changes):
    fields = {"resolutions": (32,), "channels": (36,), "cells": (20,), **changes}
    return CellSpace("cells", Genotype.of(genotype), **fields)


def test_darts_has_the_published_number_of_parameters():
    # 3.3 M in the paper's table 1; its program prints 3.349342 M without the auxiliary head
    assert network_params(space().network(space().largest)) == pytest.approx(3.349e6, rel=1e-3)


def test_the_order_of_isomorphic_nodes_changes_nothing():
    first, second = DARTS_V2["normal"][1:3]
    swapped = {**DARTS_V2, "normal": [DARTS_V2["normal"][0], second[::-1], first, DARTS_V2["normal"][3]]}
    assert Genotype.of(swapped) == Genotype.of(DARTS_V2)
    other = {**DARTS_V2, "normal": [*DARTS_V2["normal"][:3], [["skip_connect", 1], ["dil_conv_3x3", 2]]]}
    assert Genotype.of(other) != Genotype.of(DARTS_V2)


def add_network(order):
    """Two branches of an input, of unequal kind, and their sum; ``order`` says which is written first."""
    sep, pool = (OpSpec(kind, 8, 8, 4, 0, 4, 3) for kind in ("sep_conv", "avg_pool"))
    add = OpSpec("add", 8, 8, 4, 0, 4)
    ops = (sep, pool) if order else (pool, sep)
    return Network((*ops, add), ("a", "b", "c"), ((-1,), (-1,), (1, 0)))


def test_keys_do_not_depend_on_order_but_on_edges():
    assert add_network(True).key == add_network(False).key
    pool = OpSpec("avg_pool", 8, 8, 4, 0, 4, 3)
    add = OpSpec("add", 8, 8, 4, 0, 4)
    shared = Network((pool, pool, add, add, add), tuple("abcde"), ((-1,), (-1,), (0, -1), (0, -1), (2, 3)))
    apart = Network((pool, pool, add, add, add), tuple("abcde"), ((-1,), (-1,), (0, -1), (1, -1), (2, 3)))
    assert shared.key != apart.key


def test_chains_keep_their_keys():
    pool = OpSpec("avg_pool", 8, 8, 4, 0, 4, 3)
    assert Network((pool, pool), ("a", "b"), ((-1,), (0,))).key == Network((pool, pool), ("x", "y")).key


@pytest.mark.parametrize("sources", [((-1,), (-1,), (0,)), ((-1,), (2,), (0, 1))])
def test_a_graph_must_be_one(sources):
    network = add_network(True)
    with pytest.raises(UsageError, match="needs"):
        Network(network.ops, network.names, sources)


def test_every_block_has_a_key_that_reads_back():
    for op in space().network(space().largest).ops:
        assert OpSpec.from_key(op.key) == op


def test_counts_follow_the_weights():
    network = space(channels=(4,), cells=(3,)).network({"space": "cells", "resolution": 32, "channels": 4, "cells": 3})
    weights = random_weights(network)
    learned = sum(w.size for name, w in weights.items() if not name.endswith(("mean", "var")))
    assert network_params(network) == learned
    sep = next(op for op in network.ops if op.kind == "sep_conv")
    area, c = sep.out_hw[0] ** 2, sep.cin
    macs = 2 * area * (9 * c + c * c)
    assert network_macs(Network.single(sep)) == macs


def test_memory_counts_the_tensors_that_wait():
    network = add_network(True)
    values = 4 * 8 * 8
    weights = sum(counts.shipped_weights(op.block) for op in network.ops)
    assert max(counts.peak_activations(op.block) for op in network.ops) == 3 * values
    # while the second branch runs the first one's result waits
    assert network_memory(network) == 4 * (weights + 3 * values)
    longer = dataclasses.replace(network, sources=((-1,), (-1,), (1, -1)))
    assert network_memory(longer) == 4 * (weights + 3 * values)


def test_reductions_halve_and_double():
    network = space(cells=(6,)).network({"space": "cells", "resolution": 32, "channels": 36, "cells": 6})
    shapes = [op.output_shape for op in network.ops if op.kind == "concat"]
    assert shapes == [(144, 32, 32)] * 2 + [(288, 16, 16)] * 2 + [(576, 8, 8)] * 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"normal": []}, "normal needs a list of 1 to 7"),
        ({"normal": [[["none", 0], ["skip_connect", 1]]]}, "unknown operation 'none'"),
        ({"reduce": [[["skip_connect", 0], ["skip_connect", 2]]]}, "source 2 is not from 0 to 1"),
        ({"reduce": [[["skip_connect", 0], ["skip_connect", 0]]]}, "reads 0 twice"),
        ({"reduce": [["skip_connect"]]}, "needs two pairs"),
        ({"other": []}, "the cells normal and reduce"),
    ],
)
def test_wrong_genotypes_are_named(change, complaint):
    with pytest.raises(UsageError, match=complaint):
        Genotype.of({**DARTS_V2, **change})


def test_a_family_checks_its_choices_and_its_archs():
    for wrong in ({"resolutions": (30,)}, {"channels": (3,)}, {"cells": (2,)}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            space(**wrong)
    with pytest.raises(UsageError, match="channels is 8"):
        space().canonical({"space": "cells", "resolution": 32, "channels": 8, "cells": 20})
    assert CellSpace.from_json(space().to_json()) == space()


def test_a_population_of_cell_networks_is_one_of_genes():
    family = space(resolutions=(16, 32), channels=(4, 8), cells=(3, 4, 6))
    codec = PopulationCodec(family)
    everything = codec.everything(100)
    archs = codec.decode(everything)
    assert family.size == len({arch.key for arch in archs}) == 12
    assert (codec.encode(archs) == everything).all()
    assert {family.smallest, family.largest} <= set(archs)
    networks = [family.network(arch) for arch in archs]
    ids = codec.op_ids(everything)
    absent = len(codec.ops)
    for network, column in zip(networks, ids.T, strict=True):
        assert [codec.op_keys[i] for i in column if i != absent] == network.unit_keys
    for count, of in ((codec.macs, network_macs), (codec.params, network_params)):
        assert count(everything).tolist() == [of(network) for network in networks]
    assert codec.memory(everything, 2).tolist() == [network_memory(network, 2) for network in networks]
    assert codec.counts("layers")[ids].sum(axis=0).tolist() == [len(network.ops) for network in networks]
    near = codec.decode(codec.neighbours(codec.encode([family.smallest])[0]))
    assert len(near) == 1 + 1 + 1 + 2, "itself, another resolution, other channels, other cells"


def test_families_that_differ_in_their_resolutions_are_alike():
    family = space(cells=(3, 4))
    assert family.alike(family.with_resolutions((16, 64)))
    assert not family.alike(space(cells=(3,)))
    assert not family.alike(load_space("tiny_16"))
    assert not load_space("tiny_16").alike(family)
    with pytest.raises(UsageError, match="resolution is 64"):
        PopulationCodec(family).encode([{"space": "cells", "resolution": 64, "channels": 36, "cells": 3}])


def test_a_whole_cell_is_one_row_of_its_place():
    family = space(channels=(8,), cells=(6,))
    network = family.network(family.largest)
    assert [unit.name for unit in network.units] == ["stem", *(f"c{i}" for i in range(6)), "pool", "classifier"]
    assert sum(len(unit.network.ops) for unit in network.units) == len(network.ops)
    keys = network.unit_keys
    assert len(set(keys)) == len(keys)  # each follows other cells: their shapes differ
    assert [OpSpec.from_key(key) for key in keys] == [dataclasses.replace(unit.op, eps=1e-5) for unit in network.units]
    assert [len(unit.network.input_shapes) for unit in network.units[1:4]] == [1, 2, 2]


def test_cells_of_isomorphic_nodes_share_their_rows():
    first, second = DARTS_V2["normal"][1:3]
    swapped = {**DARTS_V2, "normal": [DARTS_V2["normal"][0], second[::-1], first, DARTS_V2["normal"][3]]}
    one, other = space(), space(swapped)
    assert one.network(one.largest).unit_keys == other.network(other.largest).unit_keys


def test_a_cell_amounts_to_its_blocks():
    family = space(channels=(8,), cells=(4,))
    unit = family.network(family.largest).units[2]
    counts = unit_counts(unit)
    assert counts["dense_macs"] + counts["depthwise_macs"] == network_macs(unit.network)
    assert counts["output"] == np.prod(unit.network.ops[-1].output_shape)
    assert counts["input"] == sum(np.prod(shape) for shape in unit.network.input_shapes)
