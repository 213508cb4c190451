"""What is known of a target: its latency table, and the model that predicts from it and from other devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from ofa_deploy.config import PUBLISHED, TargetProfile
from ofa_deploy.latency import LatencyModel, LatencyTable, differences
from ofa_deploy.latency.posterior import design
from ofa_deploy.latency.priors import BlockPrior, OtherDevice, interpolate, prior_from_devices, table_prior
from ofa_deploy.space import Arch, Network, OpSpec, PopulationCodec, SearchSpace
from ofa_deploy.store import Workspace

TYPICAL = 256  # random networks of a space whose median latency is the unit in which devices are compared


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
    """Everything measured on a target under its profile's condition, its newest runtime version and power mode.

    A profile without measurements gives an empty table.
    """
    return _newest(target.name, measurements(workspace, target))


def table_file(workspace: Workspace, table: LatencyTable) -> Path:
    """Where a table's export lies: one file for each precision of a device."""
    return workspace.tables / f"{table.device}-{table.condition.get('precision', 'unknown')}.json"


def export_table(workspace: Workspace, table: LatencyTable) -> Path:
    """Write a table to the workspace's ``tables`` folder; the file that one of any precision had before goes."""
    file = table_file(workspace, table)
    table.save(file)
    file.with_name(f"{table.device}.json").unlink(missing_ok=True)
    return file


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
    table = load_table(workspace, target)
    codec = PopulationCodec(space, table.per_resolution)
    keys = codec.op_keys
    if not table.missing(keys):
        return LatencyModel(table, statistic=statistic)
    others = other_devices(workspace, target, space)
    if strict or not (table.rows or table.networks or others):
        table.require(keys)
    blocks = table_prior(table, keys, others) if table.rows else prior_from_others(others, codec, keys)
    return LatencyModel(table, statistic=statistic, blocks=blocks)


def predict_archs(
    workspace: Workspace,
    target: TargetProfile,
    archs: Sequence[tuple[SearchSpace, Arch]],
    confidence: float,
    strict: bool = False,
    explain: bool = False,
) -> list[dict[str, Any]]:
    """The predictions of subnets, each with its space: ``key``, ``mean_ms``, ``std_ms``, ``upper_ms``, ``simulated``.

    Args:
        confidence: that a latency is under ``upper_ms``.
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
        upper = mean + NormalDist().inv_cdf(confidence) * std
        row = {"key": arch.key, "mean_ms": float(mean), "std_ms": float(std), "upper_ms": float(upper)}
        row["simulated"] = target.simulated or models[at].table.simulated
        answers.append({**row, "blocks": models[at].explain(network)} if explain else row)
    return answers


def other_devices(workspace: Workspace, target: TargetProfile, space: SearchSpace) -> list[OtherDevice]:
    """What a space's blocks cost on the other devices of the workspace that know most of them, in their newest tables.

    What a device does not know is interpolated from what it does. A simulated device says nothing of a real one, nor a
    real one of it: what is simulated does not depend on a machine's noise.
    """
    found = []
    for name in workspace.store.measured_devices():
        table = _newest(name, workspace.store.measurements(name) if name != target.name else [])
        tells = table.rows and table.simulated == target.simulated
        effects = _effects(table, space) if tells else None
        if effects is not None:
            found.append(OtherDevice(name, effects))
    return found


def _effects(table: LatencyTable, space: SearchSpace) -> dict[str, float] | None:
    """Every block's contribution to a network on a device; None where most of them are unknown there."""
    wanted = PopulationCodec(space).op_keys
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


def prior_from_others(others: list[OtherDevice], codec: PopulationCodec, keys: Sequence[str]) -> BlockPrior:
    """The prior over a space's blocks where the target's own table has none of them."""
    typical = codec.decode(codec.sample(TYPICAL, np.random.default_rng(0)))
    return prior_from_devices(keys, others, design(keys, [op_keys(codec.space.network(arch)) for arch in typical]))


def op_keys(network: Network) -> list[str]:
    """The keys of a network's blocks."""
    return network.unit_keys
