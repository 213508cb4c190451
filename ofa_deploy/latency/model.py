"""Predicting a network's latency from a table, with an honest uncertainty.

A network's latency is close to the sum of its blocks' latencies, but not equal. With ``x`` the counts of a network's
blocks and ``t`` the table, the model is Bayesian linear regression (Bishop, PRML, §3.3) on block effects

    y = x·β + noise,     β_j = a·t_j + b + ε_j

where ``a`` (common scale; 1 a priori) and ``b`` (cost of a block boundary; 0 a priori) are unknown for the device, and
``ε_j`` is a block's own remainder. Every whole network that was measured on the device updates all three in closed
form. The spread of the remainders and the noise are those that make the measured networks most probable (type-II
maximum likelihood over a small grid). Few networks make that choice optimistic, so the standard deviation is scaled by
what leaving each measured network out would have shown (closed form; Rasmussen & Williams, GPML, §5.4.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import csr_matrix
from scipy.stats import norm
from scipy.stats import t as t_distribution

from ofa_deploy.latency.audit import audit_statistics
from ofa_deploy.latency.table import LatencyTable
from ofa_deploy.space import Network, Population, PopulationCodec

CHUNK = 65_536  # subnets predicted at once: bounds memory


@dataclass(frozen=True)
class Spread:
    """Prior standard deviations.

    Attributes:
        scale: of the common factor ``a``.
        boundary: of ``b``, as a fraction of a small block's latency (the table's lower decile).
        block: of a block's remainder, as a fraction of its latency.
        noise: of a network's measured latency around the sum, as a fraction of the table's sum.
    """

    scale: float = 0.2
    boundary: float = 0.3
    block: float = 0.05
    noise: float = 0.03


GRID = [
    Spread(boundary=boundary, block=block, noise=noise)
    for boundary, block, noise in product((0.1, 0.3, 1.0), (0.02, 0.05, 0.1), (0.01, 0.02, 0.04, 0.08))
]
PSEUDO = 2.0  # imagined left-out networks that the deviation fits exactly: keeps one lucky network from shrinking it


@dataclass(frozen=True)
class _Fit:
    """The posterior under one choice of spreads: J blocks, K measured networks."""

    log_evidence: float
    spread: Spread
    mean: np.ndarray  # [J]
    variance: np.ndarray  # [J] a priori
    factor: np.ndarray  # [K, J]: what the measurements take off the variance of x is |factor x|²
    calibration: float  # of the standard deviation


class LatencyModel:
    """The posterior over block effects of one device.

    Attributes:
        table: the table it was fitted on, with its whole networks.
        spread: the prior standard deviations that were chosen.
        effects: posterior mean of every block's contribution in ms, by key.
    """

    def __init__(self, table: LatencyTable, use: Sequence[str] | None = None) -> None:
        """Fit on the table's networks, or on those with the keys in ``use``.

        Raises:
            OpNotProfiled: a measured network has a block without a row.
        """
        self.table = table
        self.keys = list(table.rows)
        self._column = {key: j for j, key in enumerate(self.keys)}
        rows = [table.rows[key] for key in self.keys]
        self._t = np.array([row.p50 for row in rows])
        self._se = np.array([row.se for row in rows])
        self._small = float(np.quantile(self._t, 0.1)) if rows else 0.0
        evidence = [row for key, row in table.networks.items() if use is None or key in use]
        self.evidence = [row.key for row in evidence]
        x = self._counts([row.ops for row in evidence])
        y = np.array([row.p50 for row in evidence])
        noise = np.array([row.se for row in evidence])
        fits = [self._fit(x, y, noise, spread) for spread in (GRID if len(y) else [Spread()])]
        self.fit = max(fits, key=lambda fit: fit.log_evidence)
        self.effects = dict(zip(self.keys, self.fit.mean.tolist(), strict=True))

    def _counts(self, networks: Sequence[Sequence[str]]) -> np.ndarray:
        counts = np.zeros((len(networks), len(self.keys)))
        for i, ops in enumerate(networks):
            self.table.require(ops)
            for key in ops:
                counts[i, self._column[key]] += 1
        return counts

    def _fit(self, x: np.ndarray, y: np.ndarray, se: np.ndarray, spread: Spread) -> _Fit:
        """The posterior given counts ``[K, J]``, latencies ``[K]`` and their relative standard errors ``[K]``."""
        t, ones = self._t, np.ones(len(self._t))
        variance = t**2 * (spread.block**2 + self._se**2)
        common = np.stack([spread.scale * t, spread.boundary * self._small * ones])
        prior = x * variance + (x @ common.T) @ common  # X V, with V = diag(variance) + common' common
        total = x @ t
        noise = (spread.noise * total) ** 2 + (se * y) ** 2
        cholesky = np.linalg.cholesky(prior @ x.T + np.diag(noise))
        whitened = solve_triangular(cholesky, y - total, lower=True)
        factor = solve_triangular(cholesky, prior, lower=True)
        evidence = -0.5 * float(whitened @ whitened) - float(np.log(np.diag(cholesky)).sum())
        return _Fit(evidence, spread, t + whitened @ factor, variance, factor, _calibration(cholesky, whitened))

    def predict(self, networks: Sequence[Network]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of what a measurement of each network would show, in ms.

        Raises:
            OpNotProfiled: a block was never measured.
        """
        return self.predict_ops([[op.key for op in network.ops] for network in networks])

    def predict_ops(self, networks: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Like ``predict``, for networks given as the keys of their blocks."""
        x = self._counts(networks)
        variance = (x**2) @ self.fit.variance + self.common_variance(x @ self._t, x.sum(1))
        variance -= ((x @ self.fit.factor.T) ** 2).sum(1)
        return x @ self.fit.mean, self.fit.calibration * np.sqrt(np.maximum(variance, 0.0))

    def common_variance(self, total: np.ndarray, blocks: np.ndarray) -> np.ndarray:
        """Prior variance of what all blocks share, and the noise, for networks of a table sum and a block count."""
        spread = self.fit.spread
        return (spread.scale**2 + spread.noise**2) * total**2 + (spread.boundary * self._small * blocks) ** 2

    def without(self, key: str) -> LatencyModel:
        """The model fitted on all of its networks but one."""
        return LatencyModel(self.table, [other for other in self.evidence if other != key])

    def bind(self, codec: PopulationCodec) -> SpaceLatency:
        """The model as array operations on populations of one space.

        Raises:
            OpNotProfiled: a block of the space was never measured.
        """
        return SpaceLatency(self, codec)

    def to_json(self) -> dict[str, Any]:
        """The table, which networks were fitted, and the chosen spread: all that a prediction rests on."""
        return {"table": self.table.to_json(), "evidence": self.evidence, "spread": asdict(self.fit.spread)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyModel:
        """Fit again from what ``to_json`` wrote; gives the same predictions."""
        return cls(LatencyTable.from_json(data["table"]), data["evidence"])


def leave_one_out(model: LatencyModel) -> dict[str, Any] | None:
    """Error statistics of every measured network as predicted from the others; None under two networks."""
    if len(model.evidence) < 2:
        return None
    means, stds = zip(
        *(model.without(key).predict_ops([model.table.networks[key].ops]) for key in model.evidence), strict=True
    )
    measured = np.array([model.table.networks[key].p50 for key in model.evidence])
    return audit_statistics(np.concatenate(means), np.concatenate(stds), measured)


class SpaceLatency:
    """A latency model bound to a space: ``predict`` takes whole populations.

    Every term of the posterior but one is a sum over blocks, so a population is predicted by one sparse product of its
    block numbers with ``[blocks, 3 + K]`` columns. The exception is a block's own remainder, shared by its repeats: it
    enters with the square of the count, so repeats of a block within a network are found slot against slot.
    """

    def __init__(self, model: LatencyModel, codec: PopulationCodec) -> None:
        model.table.require(op.key for op in codec.ops)
        self._codec, self._model = codec, model
        columns = np.array([model._column[op.key] for op in codec.ops])
        stacked = np.vstack([model._t, np.ones(len(model._t)), model.fit.factor])[:, columns]
        self._terms = np.vstack([stacked.T, np.zeros(len(stacked))]).astype(np.float32)
        self._mean = np.append(model.fit.mean[columns], 0.0)
        self._variance = np.append(model.fit.variance[columns], 0.0)
        self._twins = _slots_that_share(codec)

    def mean(self, population: Population) -> np.ndarray:
        """Predicted latency in ms, ``float64[N]``."""
        return np.concatenate([self._sum(self._codec.op_ids(part)) for part in _chunks(population)])

    def _sum(self, ids: np.ndarray) -> np.ndarray:
        total = np.zeros(ids.shape[1])
        for row in ids:
            total += self._mean.take(row)
        return total

    def predict(self, population: Population) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation in ms, each ``float64[N]``."""
        parts = [self._predict(part) for part in _chunks(population)]
        return np.concatenate([mean for mean, _ in parts]), np.concatenate([std for _, std in parts])

    def _predict(self, population: Population) -> tuple[np.ndarray, np.ndarray]:
        ids = self._codec.op_ids(population)
        slots, count = ids.shape
        rows = np.arange(0, slots * count + 1, slots)
        counts = csr_matrix((np.ones(ids.size, np.float32), ids.T.ravel(), rows), (count, len(self._terms)))
        terms = counts @ self._terms
        variance = self._model.common_variance(terms[:, 0], terms[:, 1])
        variance -= np.einsum("nk,nk->n", terms[:, 2:], terms[:, 2:])
        for row in ids:
            variance += self._variance.take(row)
        for i, j in self._twins:
            variance += np.where(ids[i] == ids[j], 2 * self._variance.take(ids[i]), 0.0)
        return self._sum(ids), self._model.fit.calibration * np.sqrt(np.maximum(variance, 0.0))


def _chunks(population: Population) -> list[Population]:
    return [population[i : i + CHUNK] for i in range(0, max(len(population), 1), CHUNK)]


def _calibration(cholesky: np.ndarray, whitened: np.ndarray) -> float:
    """Scale of the standard deviation: the root mean square of the left-out networks' standardised errors."""
    if not len(whitened):
        return 1.0
    inverse = solve_triangular(cholesky, np.eye(len(whitened)), lower=True)
    left_out = (inverse.T @ whitened) / np.sqrt((inverse**2).sum(0))
    scale = np.sqrt((PSEUDO + float(left_out @ left_out)) / (PSEUDO + len(whitened)))
    # a bound from few networks is a Student-t one; search uses normal quantiles
    return float(max(scale, 1.0) * t_distribution.ppf(0.95, PSEUDO + len(whitened)) / norm.ppf(0.95))


def _slots_that_share(codec: PopulationCodec) -> list[tuple[int, int]]:
    """Pairs of rows of ``op_ids`` that can hold the same block."""
    blocks, fixed = codec.tables
    held = [set(table.ravel().tolist()) - {-1} for table in (*blocks, *fixed)]
    return [(i, j) for i, j in combinations(range(len(held)), 2) if held[i] & held[j]]
