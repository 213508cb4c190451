"""Profiling a target: which blocks and whole networks are measured to fill its latency table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa_deploy.config import PUBLISHED, TargetProfile
from ofa_deploy.fleet.items import MeasureItem
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.latency import LatencyTable
from ofa_deploy.space import Arch, Network, OpSpec, PopulationCodec, SearchSpace, random_weights
from ofa_deploy.store import Workspace

Progress = Callable[[dict], None]


def block_item(op: OpSpec, target: TargetProfile) -> MeasureItem:
    """One block as a device will run it, with random weights: latency does not depend on their values."""
    network = Network.single(op)
    return MeasureItem(network, onnx_bytes(write_onnx(network, random_weights(network), target)), None, "op")


def network_item(network: Network, arch: Arch, target: TargetProfile) -> MeasureItem:
    """A whole network with random weights."""
    model = write_onnx(network, random_weights(network), target)
    return MeasureItem(network, onnx_bytes(model), arch, "network")


def measurements(workspace: Workspace, target: TargetProfile) -> list[dict]:
    """Records of a target under its profile's condition, oldest first; of an imported table all there are."""
    records = workspace.store.measurements(target.name)
    if target.runtime == PUBLISHED:
        return records
    wanted = {
        "runtime": target.runtime,
        "provider": target.provider,
        "precision": target.precision,
        "batch": target.batch,
        "threads": target.threads,
    }
    return [record for record in records if all(record["condition"].get(key) == value for key, value in wanted.items())]


def load_table(workspace: Workspace, target: TargetProfile) -> LatencyTable:
    """Everything measured on a target under its profile's condition and its newest runtime version.

    A profile without measurements gives an empty table.
    """
    records = measurements(workspace, target)
    newest = records[-1]["condition"] if records else None
    return LatencyTable.from_records(target.name, [r for r in records if r["condition"] == newest])


def profile(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    space: SearchSpace,
    networks: int = 10,
    refresh: bool = False,
    seed: int = 0,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the blocks of a space that a target's table lacks, and whole networks beside them in the same rounds.

    Args:
        space: its resolutions are the ones that are measured.
        networks: how many whole networks the table should have of this space; they correct the sum of blocks.
        refresh: measure all again.

    Returns:
        The table, also exported to the workspace's ``tables`` folder.
    """
    codec, table = PopulationCodec(space), load_table(workspace, target)
    ops = codec.ops if refresh else [op for op in codec.ops if op.key not in table.rows]
    items = [block_item(op, target) for op in ops]
    items += [network_item(net, arch, target) for net, arch in _wanted(codec, table, networks, refresh, seed)]
    if items:
        fleet.measure(target, items, protocol or Protocol(), progress)
        table = load_table(workspace, target)
    table.save(workspace.tables / f"{target.name}.json")
    return table


def _wanted(
    codec: PopulationCodec, table: LatencyTable, count: int, refresh: bool, seed: int
) -> list[tuple[Network, Arch]]:
    """Whole networks to measure so that the table has ``count`` of this space, spread over its MACs."""
    known = {op.key for op in codec.ops}
    have = 0 if refresh else sum(known.issuperset(row.ops) for row in table.networks.values())
    if have >= count:
        return []
    archs = codec.decode(codec.stratified(count, np.random.default_rng(seed)))
    pairs = [(codec.space.network(arch), arch) for arch in archs]
    return pairs if refresh else [pair for pair in pairs if pair[0].key not in table.networks][: count - have]
