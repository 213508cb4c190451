"""What is known of a target: its latency table, and the model that predicts from it and from other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from ofa_deploy.blocks import Network, Unit
from ofa_deploy.config import PUBLISHED, TargetProfile
from ofa_deploy.json_types import JSON
from ofa_deploy.latency import LatencyModel, LatencyTable, Measurement, differences
from ofa_deploy.latency.level import LevelNow, LevelTold
from ofa_deploy.latency.model import BlockShare
from ofa_deploy.latency.posterior import design
from ofa_deploy.latency.priors import BlockPrior, OtherDevice, interpolate, prior_from_devices, table_prior
from ofa_deploy.latency.table import block_key
from ofa_deploy.space import Arch, Family, PopulationCodec
from ofa_deploy.store import Store, Workspace

TYPICAL = 256  # random networks of a space whose median latency is the unit in which devices are compared


def measurements(workspace: Workspace, target: TargetProfile) -> list[Measurement]:
    """Measurements of a target under its profile's condition, oldest first; of an imported table all there are."""
    records = map(Measurement.from_json, workspace.store.measurements(target.name))
    return [record for record in records if _wanted(target, record.condition)]


def _wanted(target: TargetProfile, condition: Mapping[str, object]) -> bool:
    """Whether a condition is that of a target's profile."""
    names = () if target.runtime == PUBLISHED else ("runtime", "provider", "precision", "batch", "threads")
    return all(condition.get(name) == getattr(target, name) for name in names)


def load_table(workspace: Workspace, target: TargetProfile) -> LatencyTable:
    """Everything measured on a target under its profile's condition, its newest runtime version and power mode.

    A profile without measurements gives an empty table.
    """
    return _table(workspace.store, target.name, lambda condition: _wanted(target, condition))


def _table(store: Store, device: str, wanted: Callable[[Mapping[str, object]], bool] = lambda _: True) -> LatencyTable:
    """The newest measurement of everything, under the newest of the conditions that are wanted."""
    records = store.newest_records(device, _alike(store, device, wanted))
    return LatencyTable.from_records(device, map(Measurement.from_json, records))


def _alike(store: Store, device: str, wanted: Callable[[Mapping[str, object]], bool] = lambda _: True) -> list[str]:
    """Hashes of the conditions that are wanted and like the newest of these."""
    found = [(name, condition) for name, condition in store.conditions(device) if wanted(condition)]
    return [name for name, condition in found if not differences(found[0][1], condition)]


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
    return workspace.store.has_measurements(target.name, "op")


def load_model(
    workspace: Workspace, target: TargetProfile, space: Family, statistic: str = "p50", strict: bool = False
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
    blocks = blocks_by_key(codec)
    if not table.missing(blocks):
        return LatencyModel(table, statistic=statistic)
    others = other_devices(workspace, target, space)
    if strict or not (table.rows or table.networks or others):
        table.require(blocks)
    prior = table_prior(table, blocks, others) if table.rows else prior_from_others(others, codec)
    return LatencyModel(table, statistic=statistic, blocks=prior)


@dataclass(frozen=True)
class PredictedNow:
    """What a prediction of now rests on.

    Attributes:
        undisturbed_ms: the prediction for an undisturbed device.
        as_profiled_ms: that at the level of the profile.
        level: how much slower the device is than when it was profiled; None where that is not known.
    """

    undisturbed_ms: float
    as_profiled_ms: float
    level: LevelTold | None

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {**vars(self), "level": self.level and self.level.to_json()}


@dataclass(frozen=True)
class Prediction:
    """The latency of a subnet on a target, in ms; ``now`` and ``blocks`` where they were asked for."""

    key: str
    mean_ms: float
    std_ms: float
    upper_ms: float
    simulated: bool
    now: PredictedNow | None = None
    blocks: list[BlockShare] | None = None

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        names = ("key", "mean_ms", "std_ms", "upper_ms", "simulated")
        now = self.now.to_json() if self.now else {}
        blocks = {} if self.blocks is None else {"blocks": [vars(block) for block in self.blocks]}
        return {**{name: getattr(self, name) for name in names}, **now, **blocks}


def predict_archs(
    workspace: Workspace,
    target: TargetProfile,
    archs: Sequence[tuple[Family, Arch]],
    confidence: float,
    strict: bool = False,
    explain: bool = False,
    look: Callable[[Family, LatencyModel], LevelNow | None] | None = None,
) -> list[Prediction]:
    """The predictions of subnets, each with its space.

    Args:
        look: measures how fast the device is now. Predictions are then of now.
        confidence: that a latency is under ``upper_ms``.
        strict: see ``load_model``.
        explain: say which blocks carry the predictions.

    Raises:
        OpNotProfiled: see ``load_model``.
    """
    answers, models, levels = list[Prediction](), dict[Family, LatencyModel](), dict[Family, LevelNow | None]()
    for space, arch in archs:
        network, at = space.network(arch), space.with_resolutions((arch.resolution,))
        if at not in models:
            models[at] = load_model(workspace, target, at, strict=strict)
            levels[at] = look(at, models[at]) if look else None
        level = levels[at]
        (mean,), (std,) = models[at].at(level).predict([network])
        upper = mean + NormalDist().inv_cdf(confidence) * std
        simulated = target.simulated or models[at].table.simulated
        now = None
        if look:
            quiet = float(models[at].undisturbed([network])[0])
            told = None if level is None else level.told(quiet)
            now = PredictedNow(quiet, float(models[at].predict([network])[0][0]), told)
        blocks = models[at].explain(network) if explain else None
        answers.append(Prediction(arch.key, float(mean), float(std), float(upper), simulated, now, blocks))
    return answers


def other_devices(workspace: Workspace, target: TargetProfile, space: Family) -> list[OtherDevice]:
    """What a space's blocks cost on the other devices of the workspace that know most of them, in their newest tables.

    What a device does not know is interpolated from what it does. A simulated device says nothing of a real one, nor a
    real one of it: what is simulated does not depend on a machine's noise.
    """
    store, wanted, found = workspace.store, blocks_by_key(PopulationCodec(space)), list[OtherDevice]()
    for name in store.measured_devices():
        conditions = store.conditions(name) if name != target.name else []
        tells = conditions and bool(conditions[0][1].get("simulated", False)) == target.simulated
        known = set(map(block_key, store.blocks(name, _alike(store, name)))) if tells else set()
        if known and 2 * len(known & wanted.keys()) >= len(wanted):
            found.append(OtherDevice(name, _effects(_table(store, name), wanted)))
    return found


def _effects(table: LatencyTable, wanted: Mapping[str, Unit]) -> dict[str, float]:
    """Every block's contribution to a network on a device; interpolated where a wanted one is unknown there."""
    model, known = LatencyModel(table), dict[str, list[float]]()
    for key, effect in model.effects.items():  # a published table may have a row for every resolution
        known.setdefault(block_key(key), []).append(max(effect, 0.1 * table.rows[key].best))
    missing = {key: unit for key, unit in wanted.items() if key not in known}
    effects = {key: float(np.mean(values)) for key, values in known.items()}
    if missing:
        guess, _ = interpolate(list(table.rows.values()), missing)
        level = np.median([model.effects[key] / row.best for key, row in table.rows.items()])
        effects.update(zip(missing, (level * guess).tolist(), strict=True))
    return effects


def prior_from_others(others: list[OtherDevice], codec: PopulationCodec) -> BlockPrior:
    """The prior over a space's blocks where the target's own table has none of them."""
    blocks = blocks_by_key(codec)
    typical = codec.decode(codec.sample(TYPICAL, np.random.default_rng(0)))
    counts = design(list(blocks), [op_keys(codec.space.network(arch)) for arch in typical])
    return prior_from_devices(blocks, others, counts)


def blocks_by_key(codec: PopulationCodec) -> dict[str, Unit]:
    """A family's blocks and cells by the keys of their rows in a latency table, in the codec's order."""
    return dict(zip(codec.op_keys, codec.units, strict=True))


def op_keys(network: Network) -> list[str]:
    """The keys of a network's blocks."""
    return network.unit_keys
