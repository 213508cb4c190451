"""Profiling a target: which blocks and whole networks are measured to fill its latency table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from ofa_deploy.config import TargetProfile
from ofa_deploy.fleet.items import MeasureItem
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.latency import LatencyModel, LatencyTable, Row, differences
from ofa_deploy.latency.posterior import choose
from ofa_deploy.latency.priors import BlockPrior, OtherDevice, interpolate, prior_from_devices, table_prior
from ofa_deploy.space import Arch, Network, OpSpec, PopulationCodec, SearchSpace, random_weights
from ofa_deploy.store import Workspace

Progress = Callable[[dict], None]
TYPICAL = 256  # random networks of a space whose median latency is the unit in which devices are compared
CANDIDATES = 500  # networks among which those are chosen that are measured


def block_item(op: OpSpec, target: TargetProfile) -> MeasureItem:
    """One block as a device will run it, with random weights: latency does not depend on their values."""
    network = Network.single(op)
    return MeasureItem(network, onnx_bytes(write_onnx(network, random_weights(network), target)), None, "op")


def network_item(network: Network, arch: Arch, target: TargetProfile) -> MeasureItem:
    """A whole network with random weights."""
    model = write_onnx(network, random_weights(network), target)
    return MeasureItem(network, onnx_bytes(model), arch, "network")


def load_table(workspace: Workspace, target: TargetProfile) -> LatencyTable:
    """Everything measured on a target under its profile's condition, its newest runtime version and power mode.

    A profile without measurements gives an empty table.
    """
    wanted = {
        "runtime": target.runtime,
        "provider": target.provider,
        "precision": target.precision,
        "batch": target.batch,
        "threads": target.threads,
    }
    records = [
        record
        for record in workspace.store.measurements(target.name)
        if all(record["condition"].get(key) == value for key, value in wanted.items())
    ]
    return _newest(target.name, records)


def has_blocks(workspace: Workspace, target: TargetProfile) -> bool:
    """Whether a block was ever measured on a target, under whatever condition."""
    return any(record["kind"] == "op" for record in workspace.store.measurements(target.name))


def _newest(device: str, records: list[dict[str, Any]]) -> LatencyTable:
    newest = records[-1]["condition"] if records else {}
    same = [record for record in records if not differences(newest, record["condition"])]
    return LatencyTable.from_records(device, same)


def load_model(
    workspace: Workspace, target: TargetProfile, space: SearchSpace, statistic: str = "p50", strict: bool = False
) -> LatencyModel:
    """What predicts the networks of a space on a target, from the best that is known.

    That is the target's own table; with blocks that it lacks interpolated; or, where none of its blocks was measured,
    the other devices in the workspace. Networks that were measured on the target are evidence in each case.

    Args:
        strict: refuse to guess what a block costs.

    Raises:
        OpNotProfiled: a block has no row, and ``strict`` forbids to guess, or there is nothing to guess from.
    """
    table, codec = load_table(workspace, target), PopulationCodec(space)
    keys = [op.key for op in codec.ops]
    if not table.missing(keys):
        return LatencyModel(table, statistic=statistic)
    others = other_devices(workspace, target, space)
    if strict or not (table.rows or table.networks or others):
        table.require(keys)
    blocks = table_prior(table, keys, others) if table.rows else _prior_from(others, codec, keys)
    return LatencyModel(table, statistic=statistic, blocks=blocks)


def predict_archs(
    workspace: Workspace,
    target: TargetProfile,
    archs: Sequence[tuple[SearchSpace, Arch]],
    confidence: float,
    strict: bool = False,
    explain: bool = False,
) -> list[dict[str, Any]]:
    """``key``, ``mean_ms``, ``std_ms`` and ``upper_ms`` (at ``confidence``) of subnets, each with its space.

    Args:
        strict: see ``load_model``.
        explain: add ``blocks``, from ``LatencyModel.explain``.

    Raises:
        OpNotProfiled: see ``load_model``.
    """
    answers, models = [], dict[SearchSpace, LatencyModel]()
    for space, arch in archs:
        network, at = space.network(arch), space.with_resolutions((arch.resolution,))
        if at not in models:
            models[at] = load_model(workspace, target, at, strict=strict)
        (mean,), (std,) = models[at].predict([network])
        upper = mean + norm.ppf(confidence) * std
        row = {"key": arch.key, "mean_ms": float(mean), "std_ms": float(std), "upper_ms": float(upper)}
        answers.append({**row, "blocks": models[at].explain(network)} if explain else row)
    return answers


def other_devices(workspace: Workspace, target: TargetProfile, space: SearchSpace) -> list[OtherDevice]:
    """What a space's blocks cost on the other devices of the workspace that know most of them, in their newest tables.

    What a device does not know is interpolated from what it does.
    """
    found = []
    for name in workspace.store.measured_devices():
        table = _newest(name, workspace.store.measurements(name) if name != target.name else [])
        effects = _effects(table, space)
        if effects is not None:
            found.append(OtherDevice(name, effects))
    return found


def _effects(table: LatencyTable, space: SearchSpace) -> dict[str, float] | None:
    """Every block's contribution to a network on a device; None where most of them are unknown there."""
    wanted = [op.key for op in PopulationCodec(space).ops]
    model, known = LatencyModel(table), dict[str, list[float]]()
    for key, effect in model.effects.items():  # a published table may have a row for every resolution
        known.setdefault(OpSpec.from_key(key).key, []).append(max(effect, 0.1 * table.rows[key].best))
    missing = [key for key in wanted if key not in known]
    if 2 * len(missing) > len(wanted):
        return None
    effects = {key: float(np.mean(values)) for key, values in known.items()}
    if missing:
        guess, _ = interpolate(list(table.rows.values()), missing)
        level = np.median([model.effects[key] / row.best for key, row in table.rows.items()])
        effects.update(zip(missing, (level * guess).tolist(), strict=True))
    return effects


def _prior_from(others: list[OtherDevice], codec: PopulationCodec, keys: list[str]) -> BlockPrior:
    typical = codec.decode(codec.sample(TYPICAL, np.random.default_rng(0)))
    return prior_from_devices(keys, others, _design(keys, [_keys(codec.space.network(arch)) for arch in typical]))


def profile(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    space: SearchSpace,
    networks: int = 20,
    refresh: bool = False,
    seed: int = 0,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    few: bool = False,
) -> LatencyTable:
    """Measure the blocks of a space that a target's table lacks, and whole networks beside them in the same rounds.

    Args:
        space: its resolutions are the ones that are measured.
        networks: how many whole networks the table should have of this space; they correct the sum of blocks.
        refresh: measure all again.
        few: measure the networks only; ``load_model`` then predicts from them and from other devices.

    Returns:
        The table, also exported to the workspace's ``tables`` folder.
    """
    codec, table = PopulationCodec(space), load_table(workspace, target)
    for _ in range(2):  # again where the device's condition has changed since, so that its older rows do not count
        ops = codec.ops if refresh else [op for op in codec.ops if op.key not in table.rows]
        items = [] if few else [block_item(op, target) for op in ops]
        prior = _prior_before(workspace, target, codec, table)
        archs = to_measure(codec, prior, {} if refresh else table.networks, networks, seed)
        items += [network_item(space.network(arch), arch, target) for arch in archs]
        if not items:
            break
        fleet.measure(target, items, protocol or Protocol(), progress)
        table, refresh = load_table(workspace, target), False
    table.save(workspace.tables / f"{target.name}.json")
    return table


def _prior_before(
    workspace: Workspace, target: TargetProfile, codec: PopulationCodec, table: LatencyTable
) -> BlockPrior:
    """What is believed before anything new is measured: enough to say which networks would teach most."""
    keys = [op.key for op in codec.ops]
    if table.rows:
        return table_prior(table, keys)
    return _prior_from(other_devices(workspace, target, codec.space), codec, keys)


def to_measure(
    codec: PopulationCodec, blocks: BlockPrior, known: Mapping[str, Row], count: int, seed: int = 0
) -> list[Arch]:
    """Networks to measure so that a model has ``count`` of this space: the smallest, the largest, and those from which
    it would learn most.

    Args:
        blocks: what is believed of at least the space's blocks.
        known: measured networks by key.
    """
    keys = [op.key for op in codec.ops]
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
    measured = _design(keys, [*have, *(_keys(networks[arch]) for arch in first)])
    candidates = _design(keys, [_keys(networks[arch]) for arch in rest])
    prior = blocks.prior.of(np.array([blocks.keys.index(key) for key in keys]))
    return first + [rest[i] for i in choose(prior, candidates, min(wanted - len(first), len(rest)), measured)]


def _keys(network: Network) -> list[str]:
    return [op.key for op in network.ops]


def _design(keys: Sequence[str], networks: Sequence[Sequence[str]]) -> np.ndarray:
    """How often each network has each block: ``[N, J]``."""
    place, counts = {key: j for j, key in enumerate(keys)}, np.zeros((len(networks), len(keys)))
    for row, network in zip(counts, networks, strict=True):
        for key in network:
            row[place[key]] += 1
    return counts
