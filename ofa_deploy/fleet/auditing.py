"""The audit: how far a target's predictions can be trusted, on networks that took no part in fitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from device_agents.summary import summarise
from ofa_deploy.blocks import Network
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.gauge import SHARED, Gauge
from ofa_deploy.fleet.latency_models import load_model
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.profiling import network_item
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.latency import LatencyModel, Measurement, audit_summary
from ofa_deploy.notices import Report
from ofa_deploy.space import Arch, Family, Population, PopulationCodec
from ofa_deploy.store import Workspace

POOL = 4096  # random subnets from which an audit's networks are drawn


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
    progress: Report | None = None,
) -> dict[str, Any]:
    """Predict networks, measure them, compare.

    Args:
        space: at resolutions that the target's table covers.
        networks: how many to measure; they become evidence for later predictions.
        statistic: which latency is predicted and measured: ``p50``, ``p90`` or ``p99``.

    Returns:
        See ``compared``.

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
    progress: Report | None = None,
    gauge: Gauge | None = None,
) -> dict[str, Any]:
    """Predict some networks that the model has not seen, measure them, compare.

    Args:
        gauge: shares the rounds; each prediction is then judged at the level of these rounds, as everything else that
            was measured in them shows it.

    Returns:
        What ``latency.audit_summary`` says, the ``networks`` behind it, and under which condition on which device they
        were measured; with a gauge the ``level`` at their median latency, and what the predictions at the level of the
        profile came to, ``as_profiled``.
    """
    networks = [space.network(arch) for arch in archs]
    predicted = _predictions(model, networks)
    items = [network_item(network, arch, target) for network, arch in zip(networks, archs, strict=True)]
    anchor = gauge.items if gauge else []
    measured = fleet.measure(target, [*items, *anchor], protocol, progress)
    records, anchored = measured[: len(items)], measured[len(items) :]
    rows = [
        {"key": record.key, "role": "audit", **row, **_measured(record, model.statistic)}
        for row, record in zip(predicted, records, strict=True)
    ]
    level, as_profiled = None, None
    shown = gauge.read(anchored, records) if gauge else None
    if gauge and shown:
        as_profiled = _errors(rows)
        for row, network, curve in zip(rows, networks, gauge.read_without_each(anchored, records), strict=True):
            (mean,), (std,) = model.at_curve(curve).predict([network])
            row |= {"as_profiled_ms": row["predicted_ms"], "predicted_ms": float(mean), "std_ms": float(std)}
        middle = float(np.median(model.undisturbed(networks)))
        level = shown.to_json(middle)
    return {
        "schema": 1,
        "target": target.name,
        "simulated": records[0].simulated,
        "condition": records[0].condition,
        "facts": records[0].facts,
        "space": space.name,
        "resolutions": list(space.resolutions),
        "statistic": model.statistic,
        "measured_at": max(record.measured_at for record in records),
        **audit_summary(rows, len(model.evidence)),
        "level": level,
        "as_profiled": as_profiled,
        "networks": rows,
    }


def _errors(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean absolute and mean signed relative error of predictions."""
    errors = [row["predicted_ms"] / row["measured_ms"] - 1 for row in rows]
    return {"mape": float(np.mean(np.abs(errors))), "bias": float(np.mean(errors))}


def _predictions(model: LatencyModel, networks: list[Network]) -> list[dict[str, float | None]]:
    """Of the model, and of the table alone; None where no table covers a network."""
    table, alone = model.table, LatencyModel(model.table, [], model.statistic, model.blocks)
    means, stds = model.predict(networks)
    table_stds = alone.predict(networks)[1]
    rows = []
    for network, mean, std, table_std in zip(networks, means, stds, table_stds, strict=True):
        total = table.known_total(network, model.statistic)
        rows.append(
            {
                "predicted_ms": float(mean),
                "std_ms": float(std),
                "table_ms": total,
                "table_std_ms": None if total is None else float(table_std),
            }
        )
    return rows


def _measured(record: Measurement, statistic: str) -> dict[str, Any]:
    timings = record.timings
    halves = (range(0, len(timings), 2), range(1, len(timings), 2))
    return {
        "measured_ms": record.ms(statistic),
        "halves_ms": [summarise(timings, half)[statistic] for half in halves],
        "flags": record.flags,
    }
