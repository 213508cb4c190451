"""Predicting a network's latency from a table, with an honest uncertainty.

A network's latency is close to the sum of its blocks' latencies, but not equal. The table is the prior mean of a
Bayesian linear regression (``latency.posterior``) on the counts of a network's blocks; unknown for a device are a
common factor, a cost of every block boundary, and each block's own remainder. Every whole network that was measured on
the device updates all three in closed form. How large they and the noise may be is averaged over by evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ofa_deploy.latency.audit import audit_statistics
from ofa_deploy.latency.posterior import Prior, Term, fit
from ofa_deploy.latency.table import LatencyTable, Row
from ofa_deploy.space import Network, Population, PopulationCodec

CHUNK = 16_384  # subnets predicted at once: what they need stays in the caches


# Ranges of the prior's scales, and the noise of a network around the sum, all as fractions of latencies:
FACTOR = (0.05, 0.3)  # common to all blocks
BOUNDARY = (0.05, 1.5)  # of a block, as a fraction of a small one (the table's lower decile)
REMAINDER = (0.01, 0.15)  # of each block's own
NOISE = (0.005, 0.1)
PSEUDO = 2.0  # imagined left-out networks that the deviation fits exactly: keeps one lucky network from shrinking it


class LatencyModel:
    """The posterior over block effects of one device.

    Attributes:
        table: the table it was fitted on, with its whole networks.
        evidence: keys of the networks that were fitted.
        posterior: what is believed about the blocks' effects, in the order of ``keys``.
    """

    def __init__(self, table: LatencyTable, use: Sequence[str] | None = None, statistic: str = "p50") -> None:
        """Fit on the table's networks, or on those with the keys in ``use``.

        Args:
            statistic: what is predicted: ``p50``, ``p90`` or ``p99`` of a network's timings.

        Raises:
            OpNotProfiled: a measured network has a block without a row.
        """
        self.table, self.statistic = table, statistic
        self.keys = list(table.rows)
        self._column = {key: j for j, key in enumerate(self.keys)}
        evidence = [row for key, row in table.networks.items() if use is None or key in use]
        self.evidence = [row.key for row in evidence]
        x = self._counts([row.ops for row in evidence])
        y, se = (np.array([getattr(row, name) for row in evidence]) for name in (statistic, "se"))
        fitted = fit(_prior(list(table.rows.values()), statistic), x, y, se)
        self.posterior = replace(fitted, calibration=_calibration(fitted.left_out))

    @property
    def effects(self) -> dict[str, float]:
        """Every block's contribution to a network, in ms."""
        return dict(zip(self.keys, self.posterior.mean.tolist(), strict=True))

    def _counts(self, networks: Sequence[Sequence[str]]) -> np.ndarray:
        counts = np.zeros((len(networks), len(self.keys)))
        for i, ops in enumerate(networks):
            self.table.require(ops)
            for key in ops:
                counts[i, self._column[key]] += 1
        return counts

    def predict(self, networks: Sequence[Network]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of what a measurement of each network would show, in ms.

        Raises:
            OpNotProfiled: a block was never measured.
        """
        return self.predict_ops([[op.key for op in network.ops] for network in networks])

    def predict_ops(self, networks: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Like ``predict``, for networks given as the keys of their blocks."""
        return self.posterior.predict(self._counts(networks))

    def without(self, key: str) -> LatencyModel:
        """The model fitted on all of its networks but one."""
        return LatencyModel(self.table, [other for other in self.evidence if other != key], self.statistic)

    def learned(self, row: Row) -> LatencyModel:
        """The model fitted on one network more, or on another measurement of one that it was fitted on."""
        table = replace(self.table, networks={**self.table.networks, row.key: row})
        return LatencyModel(table, [*self.evidence, row.key], self.statistic)

    def bind(self, codec: PopulationCodec) -> SpaceLatency:
        """The model as array operations on populations of one space.

        Raises:
            OpNotProfiled: a block of the space was never measured.
        """
        return SpaceLatency(self, codec)

    def to_json(self) -> dict[str, Any]:
        """The table, which networks were fitted, and what is predicted: all that a prediction rests on."""
        return {"table": self.table.to_json(), "evidence": self.evidence, "statistic": self.statistic}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyModel:
        """Fit again from what ``to_json`` wrote; gives the same predictions."""
        return cls(LatencyTable.from_json(data["table"]), data["evidence"], data["statistic"])


def leave_one_out(model: LatencyModel) -> dict[str, Any] | None:
    """Error statistics of every measured network as predicted from the others; None under two networks."""
    if len(model.evidence) < 2:
        return None
    means, stds = zip(
        *(model.without(key).predict_ops([model.table.networks[key].ops]) for key in model.evidence), strict=True
    )
    measured = np.array([getattr(model.table.networks[key], model.statistic) for key in model.evidence])
    return audit_statistics(np.concatenate(means), np.concatenate(stds), measured)


class SpaceLatency:
    """A latency model bound to a space: ``predict`` takes whole populations.

    A mean is a sum over blocks, and a variance the squares of such sums, so a population is predicted by one sparse
    product of its block numbers with ``[blocks, R]`` columns. The exception is a block's own remainder, shared by its
    repeats: it enters with the square of the count, so repeats within a network are found slot against slot.
    """

    def __init__(self, model: LatencyModel, codec: PopulationCodec) -> None:
        model.table.require(op.key for op in codec.ops)
        columns = np.array([model.keys.index(op.key) for op in codec.ops])
        self._codec, self._posterior = codec, model.posterior
        factor = self._posterior.factor[:, columns]
        self._factor = np.vstack([factor.T, np.zeros(len(factor))]).astype(np.float32)
        self._mean = np.append(self._posterior.mean[columns], 0.0)
        self._variance = np.append(self._posterior.variance[columns], 0.0)
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
        counts = csr_matrix((np.ones(ids.size, np.float32), ids.T.ravel(), rows), (count, len(self._factor)))
        mean = self._sum(ids)
        variance = (counts @ self._factor) ** 2 @ self._posterior.sign + (self._posterior.noise * mean) ** 2
        for row in ids:
            variance += self._variance.take(row)
        for i, j in self._twins:
            variance += np.where(ids[i] == ids[j], 2 * self._variance.take(ids[i]), 0.0)
        return mean, self._posterior.calibration * np.sqrt(np.maximum(variance, 0.0))


def _chunks(population: Population) -> list[Population]:
    return [population[i : i + CHUNK] for i in range(0, max(len(population), 1), CHUNK)]


def _prior(rows: Sequence[Row], statistic: str) -> Prior:
    """The table as a prior: its statistic, and how a device's networks may differ from their sums."""
    t, se = (np.array([getattr(row, name) for row in rows]) for name in (statistic, "se"))
    small = float(np.quantile(t, 0.1)) if rows else 0.0
    terms = (
        Term(t[None], *FACTOR),
        Term(np.full((1, len(t)), small), *BOUNDARY),
        Term(t**2, *REMAINDER),
        Term((t * se) ** 2, 1.0, 1.0),
    )
    return Prior(t, terms, NOISE)


def _calibration(left_out: np.ndarray) -> float:
    """Factor on the standard deviation, at least 1: root mean square of the left-out networks' standardised errors."""
    return max(1.0, float(np.sqrt((PSEUDO + left_out @ left_out) / (PSEUDO + len(left_out)))))


def _slots_that_share(codec: PopulationCodec) -> list[tuple[int, int]]:
    """Pairs of rows of ``op_ids`` that can hold the same block."""
    blocks, fixed = codec.tables
    held = [set(table.ravel().tolist()) - {-1} for table in (*blocks, *fixed)]
    return [(i, j) for i, j in combinations(range(len(held)), 2) if held[i] & held[j]]
