"""The audit: how far a target's predictions can be trusted, on networks that took no part in fitting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.local import Fleet
from ofa_deploy.fleet.models import load_table
from ofa_deploy.fleet.profiling import Progress, network_item
from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.latency import LatencyModel, audit_statistics, repeatability
from ofa_deploy.space import Population, PopulationCodec, SearchSpace
from ofa_deploy.store import Workspace

POOL = 4096  # random subnets from which an audit's networks are drawn


def held_out(codec: PopulationCodec, model: LatencyModel, count: int, seed: int) -> Population:
    """Random subnets that were never measured, evenly spread over the range of predicted latencies."""
    pool = np.unique(codec.sample(POOL, np.random.default_rng(seed)), axis=0)
    pool = pool[np.argsort(model.bind(codec).mean(pool), kind="stable")]
    known = set(model.table.networks)
    fresh = [i for i, arch in enumerate(codec.decode(pool)) if codec.space.network(arch).key not in known]
    if not fresh:
        raise UsageError(f"every network of {codec.space.name} was measured already: none is left to audit with")
    places = np.unique(np.linspace(0, len(fresh) - 1, min(count, len(fresh))).round().astype(int))
    return pool[np.array(fresh)[places]]


def audit(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    space: SearchSpace,
    networks: int = 40,
    seed: int = 0,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict networks, measure them, compare.

    Args:
        space: at resolutions that the target's table covers.
        networks: how many to measure; they become evidence for later predictions.

    Returns:
        The statistics of ``latency.audit_statistics``, ``n_fit``, ``n_heldout``, ``repeatability`` (mean relative
        difference between the odd and the even rounds of the same networks), the same under ``table_only`` for the
        plain sum, the ``verdict`` in words, and the ``networks`` behind it all.

    Raises:
        OpNotProfiled: the target's table does not cover the space.
    """
    codec, model = PopulationCodec(space), LatencyModel(load_table(workspace, target))
    archs = codec.decode(held_out(codec, model, networks, seed + 1))
    nets = [space.network(arch) for arch in archs]
    predicted, std = model.predict(nets)
    total = np.array([model.table.total(network) for network in nets])
    items = [network_item(network, arch, target) for network, arch in zip(nets, archs, strict=True)]
    records = fleet.measure(target, items, protocol, progress)
    measured = np.array([record["p50"] for record in records])
    noise = repeatability([record["rounds"] for record in records])
    statistics = audit_statistics(predicted, std, measured)
    return {
        "target": target.name,
        "condition": records[0]["condition"],
        "space": space.name,
        "resolutions": list(space.resolutions),
        "n_fit": len(model.evidence),
        "n_heldout": len(nets),
        **statistics,
        "repeatability": noise,
        "table_only": audit_statistics(total, std, measured),
        "verdict": verdict(statistics, noise),
        "measured_at": max(record["measured_at"] for record in records),
        "networks": [
            {
                "key": network.key,
                "role": "audit",
                "predicted_ms": float(p),
                "std_ms": float(s),
                "table_ms": float(t),
                "measured_ms": float(m),
            }
            for network, p, s, t, m in zip(nets, predicted, std, total, measured, strict=True)
        ],
    }


def verdict(statistics: dict[str, Any], noise: float) -> str:
    """The audit in words."""
    mape, within, covered = statistics["mape"], statistics["within_5"], statistics["coverage_95"]
    if mape <= max(0.02, 1.1 * noise) and within >= 0.95:
        trust = "trust it: predictions are as good as measurements repeat themselves"
    elif statistics["within_10"] >= 0.9:
        trust = "usable: predictions are within 10 %, and finalists are measured anyway"
    else:
        trust = "do not trust it: measure on a quieter machine with `profile --refresh`, or more networks"
    bound = "the 95 % bound holds" if covered >= 0.9 else f"the 95 % bound held for only {100 * covered:.0f} %"
    return f"{trust}; mean error {100 * mape:.1f} % (repeatability {100 * noise:.1f} %), {bound}"
