"""Every network that a model was fitted on, as the model predicts it from the others."""

from __future__ import annotations

import numpy as np

from ofa_deploy.latency.audit_statistics import AuditStatistics, audit_statistics
from ofa_deploy.latency.model import LatencyModel, Level, calibration_of

FEW = 8  # networks, below which each refit is cheap, and leaving one out changes what a closed form takes as given


def left_out(model: LatencyModel) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, ``float64[K]`` in ms, of the networks in ``model.evidence``, each without itself.

    They come from one fit, in closed form. A model that was fitted in an earlier way is fitted again for each network,
    as its version did.
    """
    rows = [model.table.networks[key] for key in model.evidence]
    if model.fit == 1 or len(rows) < FEW:
        found = [model.without(row.key).predict_ops([row.ops]) for row in rows]
        mean, std = np.array(found).reshape(-1, 2).T
        return mean, std
    x, mixture = model.counts([row.ops for row in rows]), model.posterior.mixture
    prior = model.blocks.for_evidence(x, np.array([row.best for row in rows]))
    others = mixture.left_out(prior.roots(x, mixture.scales[:, :-1]))
    *_, drift = others.squared  # of a session's level: the last term
    levels = Level.without_each(rows, model.statistic)
    factor, unsure, noise = np.array([(level.factor, level.unsure, level.noise) for level in levels]).T
    mean = factor * (x @ prior.mean + others.mean)
    relative = unsure**2 + drift + noise**2 + others.noise**2
    scale = [calibration_of(np.delete(model.posterior.left_out, i)) for i in range(len(rows))]
    return mean, scale * np.sqrt(factor**2 * others.variance + relative * mean**2)


def leave_one_out(model: LatencyModel) -> AuditStatistics | None:
    """Error statistics of every measured network as predicted from the others; None under two networks."""
    if len(model.evidence) < 2:
        return None
    measured = np.array([getattr(model.table.networks[key], model.statistic) for key in model.evidence])
    return audit_statistics(*left_out(model), measured)
