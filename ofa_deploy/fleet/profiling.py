"""Profiling a target: which blocks and whole networks are measured to fill its latency table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ofa_deploy.blocks import Network, OpSpec, random_weights
from ofa_deploy.config import TargetProfile
from ofa_deploy.fleet.items import MeasureItem
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.graph import model_file
from ofa_deploy.latency import LatencyTable, Row
from ofa_deploy.latency.posterior import choose, design
from ofa_deploy.latency.priors import BlockPrior, table_prior
from ofa_deploy.latency_models import (
    blocks_by_key,
    export_table,
    load_table,
    op_keys,
    other_devices,
    prior_from_others,
)
from ofa_deploy.notices import Progress
from ofa_deploy.space import Arch, Family, PopulationCodec
from ofa_deploy.store import Workspace

CANDIDATES = 500  # networks among which those are chosen that are measured


def block_item(op: OpSpec, target: TargetProfile) -> MeasureItem:
    """One block as a device will run it, with random weights: latency does not depend on their values."""
    return unit_item(Network.single(op), target)


def unit_item(network: Network, target: TargetProfile) -> MeasureItem:
    """What is measured as one, alone: a block or a cell."""
    return MeasureItem(network, _random_model(network, target), None, "op")


def network_item(network: Network, arch: Arch, target: TargetProfile) -> MeasureItem:
    """A whole network with random weights."""
    return MeasureItem(network, _random_model(network, target), arch, "network")


def _random_model(network: Network, target: TargetProfile) -> bytes:
    """A network with random weights; for a simulated device its name is enough."""
    if target.simulated:
        return network.key.encode()
    return model_file(network, random_weights(network), target)


def profile(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    space: Family,
    networks: int = 20,
    refresh: bool = False,
    seed: int = 0,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    few: bool = False,
) -> LatencyTable:
    """Measure the blocks and cells that a target's table lacks, and whole networks beside them in the same rounds.

    Args:
        space: its resolutions are the ones that are measured.
        networks: how many whole networks the table should have of this space; they correct the sum of blocks.
        refresh: measure all again.
        few: measure the networks only; ``load_model`` then predicts from them and from other devices.

    Returns:
        The table, also exported to the workspace's ``tables`` folder.
    """
    fleet.fetch(target)
    codec, table = PopulationCodec(space), load_table(workspace, target)
    for _ in range(2):  # again where the device's condition has changed since, so that its older rows do not count
        units = codec.units if refresh else [unit for unit in codec.units if unit.op.key not in table.rows]
        items = [] if few else [unit_item(unit.network, target) for unit in units]
        prior = _prior_before(workspace, target, codec, table)
        archs = to_measure(codec, prior, {} if refresh else table.networks, networks, seed)
        items += [network_item(space.network(arch), arch, target) for arch in archs]
        if not items:
            break
        fleet.measure(target, items, protocol or Protocol(), progress)
        table, refresh = load_table(workspace, target), False
    export_table(workspace, table)
    return table


def measure_blocks(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    ops: Sequence[OpSpec],
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the given blocks that a target's table lacks, without whole networks.

    Returns:
        The table, also exported to the workspace's ``tables`` folder.
    """
    fleet.fetch(target)
    table = load_table(workspace, target)
    for _ in range(2):  # see ``profile``
        missing = {op.key: op for op in ops if op.key not in table.rows}
        if not missing:
            break
        items = [block_item(op, target) for op in missing.values()]
        fleet.measure(target, items, protocol or Protocol(), progress)
        table = load_table(workspace, target)
    export_table(workspace, table)
    return table


def _prior_before(
    workspace: Workspace, target: TargetProfile, codec: PopulationCodec, table: LatencyTable
) -> BlockPrior:
    """What is believed before anything new is measured: enough to say which networks would teach most."""
    if table.rows:
        return table_prior(table, blocks_by_key(codec))
    return prior_from_others(other_devices(workspace, target, codec.space), codec)


def to_measure(
    codec: PopulationCodec, blocks: BlockPrior, known: Mapping[str, Row], count: int, seed: int = 0
) -> list[Arch]:
    """Networks to measure so that a model has ``count`` of this space: the smallest, the largest, and those from which
    it would learn most.

    Args:
        blocks: what is believed of at least the space's blocks.
        known: measured networks by key.
    """
    keys = codec.op_keys
    have = [row.ops for row in known.values() if set(keys) >= set(row.ops)]
    wanted = count - len(have)
    if wanted <= 0:
        return []
    ends = [codec.space.smallest, codec.space.largest]  # between which all others lie
    pool = codec.decode(np.unique(codec.stratified(CANDIDATES, np.random.default_rng(seed)), axis=0))
    networks = {arch: codec.space.network(arch) for arch in [*ends, *pool]}
    fresh = [arch for arch, network in networks.items() if network.key not in known]
    first = [arch for arch in fresh if arch in ends][:wanted]
    rest = [arch for arch in fresh if arch not in first]
    measured = design(keys, [*have, *(op_keys(networks[arch]) for arch in first)])
    candidates = design(keys, [op_keys(networks[arch]) for arch in rest])
    prior = blocks.prior.of(np.array([blocks.keys.index(key) for key in keys]))
    return first + [rest[i] for i in choose(prior, candidates, min(wanted - len(first), len(rest)), measured)]
