"""The audit: how far a target's predictions can be trusted, on networks that took no part in fitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from device_agents.summary import summarise
from ofa_deploy.blocks import Network
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.gauge import SHARED, Gauge
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.json_types import JSON
from ofa_deploy.latency import AuditedNetwork, AuditSummary, Condition, LatencyModel, Measurement, audit_summary
from ofa_deploy.latency.level import Curve, LevelTold
from ofa_deploy.latency_models import load_model
from ofa_deploy.notices import Progress
from ofa_deploy.space import Arch, Family, Population, PopulationCodec
from ofa_deploy.store import Workspace

POOL = 4096  # random subnets from which an audit's networks are drawn


@dataclass(frozen=True)
class MeanErrors:
    """Mean absolute and mean signed relative error of predictions."""

    mape: float
    bias: float


@dataclass(frozen=True)
class Audit:
    """How far a target's predictions can be trusted: ``audit.json``, but for the command that repeats it.

    Attributes:
        condition, facts: under which the networks were measured, and what the device said of itself.
        level: how much slower the device was than when it was profiled, at the networks' median latency.
        as_profiled: what predictions at the level of the profile came to.
    """

    target: str
    simulated: bool
    condition: Condition
    facts: Mapping[str, JSON]
    space: str
    resolutions: tuple[int, ...]
    statistic: str
    measured_at: str
    summary: AuditSummary
    level: LevelTold | None
    as_profiled: MeanErrors | None
    networks: tuple[AuditedNetwork, ...]

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        names = ("target", "simulated", "condition", "facts", "space", "resolutions", "statistic", "measured_at")
        return {
            "schema": 1,
            **{name: getattr(self, name) for name in names},
            "resolutions": list(self.resolutions),
            **self.summary.to_json(),
            "level": self.level and self.level.to_json(),
            "as_profiled": self.as_profiled and vars(self.as_profiled),
            "networks": [network.to_json() for network in self.networks],
        }


def held_out(codec: PopulationCodec, model: LatencyModel, count: int, seed: int) -> Population:
    """Random subnets that were never measured, evenly spread over the range of predicted latencies."""
    pool = np.unique(codec.sample(POOL, np.random.default_rng(seed)), axis=0)
    pool = pool[np.argsort(model.bind(codec).mean(pool), kind="stable")]
    known = set(model.table.networks)
    fresh = [i for i, arch in enumerate(codec.decode(pool)) if codec.space.network(arch).key not in known]
    if not fresh:
        raise UsageError(f"every network of {codec.space.name} was measured already, so none is left for an audit")
    return pool[np.array(fresh)[evenly(len(fresh), count)]]


def evenly(total: int, count: int) -> np.ndarray:
    """So many of the positions below ``total``, or all, from the first to the last at equal distances."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def audit(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    space: Family,
    networks: int = 40,
    seed: int = 0,
    statistic: str = "p50",
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Predict networks, measure them, compare.

    Args:
        space: at resolutions that the target's table covers.
        networks: how many to measure; they become evidence for later predictions.
        statistic: which latency is predicted and measured: ``p50``, ``p90`` or ``p99``.

    Raises:
        OpNotProfiled: the target's table does not cover the space.
    """
    fleet.fetch(target)
    codec, model = PopulationCodec(space), load_model(workspace, target, space, statistic)
    archs = codec.decode(held_out(codec, model, networks, seed + 1))
    gauge = Gauge(workspace, target, space, model, SHARED)
    return compared(fleet, target, model, space, archs, protocol, progress, gauge)


def compared(
    fleet: Fleet,
    target: TargetProfile,
    model: LatencyModel,
    space: Family,
    archs: Sequence[Arch],
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    gauge: Gauge | None = None,
) -> Audit:
    """Predict some networks that the model has not seen, measure them, compare.

    Args:
        gauge: shares the rounds; each prediction is then judged at the level of these rounds, as everything else that
            was measured in them shows it.
    """
    networks = [space.network(arch) for arch in archs]
    predicted = _predictions(model, networks)
    items = [network_item(network, arch, target) for network, arch in zip(networks, archs, strict=True)]
    anchor = gauge.items if gauge else []
    measured = fleet.measure(target, [*items, *anchor], protocol, progress)
    records, anchored = measured[: len(items)], measured[len(items) :]
    rows = [_judged(one, record, model.statistic) for one, record in zip(predicted, records, strict=True)]
    level, as_profiled = None, None
    shown = gauge.read(anchored, records) if gauge else None
    if gauge and shown:
        as_profiled = _errors(rows)
        curves = gauge.read_without_each(anchored, records)
        rows = [_of_now(row, model, of, at) for row, of, at in zip(rows, networks, curves, strict=True)]
        level = shown.told(float(np.median(model.undisturbed(networks))))
    return Audit(
        target=target.name,
        simulated=records[0].simulated,
        condition=records[0].condition,
        facts=records[0].facts,
        space=space.name,
        resolutions=tuple(space.resolutions),
        statistic=model.statistic,
        measured_at=max(record.measured_at for record in records),
        summary=audit_summary(rows, len(model.evidence)),
        level=level,
        as_profiled=as_profiled,
        networks=tuple(rows),
    )


def _errors(rows: Sequence[AuditedNetwork]) -> MeanErrors:
    errors = [row.predicted_ms / row.measured_ms - 1 for row in rows]
    return MeanErrors(float(np.mean(np.abs(errors))), float(np.mean(errors)))


def _of_now(row: AuditedNetwork, model: LatencyModel, network: Network, curve: Curve) -> AuditedNetwork:
    """The network as it is predicted at a level."""
    (mean,), (std,) = model.at_curve(curve).predict([network])
    return replace(row, as_profiled_ms=row.predicted_ms, predicted_ms=float(mean), std_ms=float(std))


@dataclass(frozen=True)
class _Predicted:
    """Mean and standard deviation of a network's latency, in ms: of the model, and of the sum of its blocks."""

    mean: float
    std: float
    table: float | None
    table_std: float | None


def _predictions(model: LatencyModel, networks: list[Network]) -> list[_Predicted]:
    """Of the model, and of the table alone; None where no table covers a network."""
    table, alone = model.table, LatencyModel(model.table, [], model.statistic, model.blocks)
    means, stds = model.predict(networks)
    table_stds = alone.predict(networks)[1]
    rows = []
    for network, mean, std, table_std in zip(networks, means, stds, table_stds, strict=True):
        total = table.known_total(network, model.statistic)
        rows.append(_Predicted(float(mean), float(std), total, None if total is None else float(table_std)))
    return rows


def _judged(predicted: _Predicted, record: Measurement, statistic: str) -> AuditedNetwork:
    timings = record.timings
    halves = (range(0, len(timings), 2), range(1, len(timings), 2))
    return AuditedNetwork(
        key=record.key,
        predicted_ms=predicted.mean,
        std_ms=predicted.std,
        table_ms=predicted.table,
        table_std_ms=predicted.table_std,
        measured_ms=record.ms(statistic),
        halves_ms=[summarise(timings, half)[statistic] for half in halves],
        flags=record.flags,
    )
