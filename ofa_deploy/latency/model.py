"""Predicting a network's latency from a table, with an honest uncertainty.

A network's latency is close to the sum of its blocks' latencies, but not equal. The table is the prior mean of a
Bayesian linear regression (``latency.posterior``) on the counts of a network's blocks; unknown for a device are a
common factor, a cost of every block boundary, a trend with the area a block works on, and each block's own remainder.
Every whole network that was measured on the device updates all of them in closed form. How large they and the noise
may be is averaged over by evidence. Where the table lacks blocks, ``latency.priors`` fills them in.

All of that is fitted on what blocks and networks cost while nothing disturbs the device, because that repeats itself
best. The statistic that is asked for lies above it by a level that all networks share, and that is not the same every
hour: each session in which networks were measured says what it was then.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ofa_deploy.blocks import Network
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.latency.level import Curve, LevelNow
from ofa_deploy.latency.posterior import Posterior, design, fit
from ofa_deploy.latency.priors import BlockPrior, table_prior
from ofa_deploy.latency.table import LatencyTable, Row
from ofa_deploy.space import Population, PopulationCodec

CHUNK = 16_384  # subnets predicted at once: what they need stays in the caches
PSEUDO = 2.0  # imagined left-out networks that the deviation fits exactly: keeps one lucky network from shrinking it
FIT = 2  # how a model is fitted; 1: every draw of the scales weighed on all networks
SESSION = (0.002, 0.05)  # range of the standard deviation of a session's level, as a fraction
NORMAL_MAD = 1.4826


@dataclass(frozen=True)
class BlockShare:
    """What a block adds to a network's prediction.

    Attributes:
        op: the key of its row.
        table_ms: None where it was not measured.
        posterior_ms, std_ms: what the model believes.
        share: of the whole prediction, a fraction.
        origin: where the prior comes from, in words.
    """

    name: str
    op: str
    table_ms: float | None
    posterior_ms: float
    std_ms: float
    share: float
    origin: str


class LatencyModel:
    """The posterior over block effects of one device.

    Attributes:
        table: the table it was fitted on, with its whole networks.
        blocks: the prior over the blocks.
        evidence: keys of the networks that were fitted.
        level: how far the statistic lies above the undisturbed latency.
        fit: which way of fitting it is.
        now: the device's level now, where it was measured; predictions are then of now.
        quiet: what is believed of the undisturbed latency.
        session_std: by how much one session's latencies differ from another's, a fraction.
        posterior: what is believed about the blocks' effects on the statistic, in the order of ``keys``.
    """

    def __init__(
        self,
        table: LatencyTable,
        use: Sequence[str] | None = None,
        statistic: str = "p50",
        blocks: BlockPrior | None = None,
        fit: int = FIT,
    ) -> None:
        """Fit on the table's networks, or on those with the keys in ``use``, as far as their blocks are known.

        Args:
            statistic: what is predicted: ``p50``, ``p90`` or ``p99`` of a network's timings.
            blocks: the prior where it is not the table alone.
            fit: an earlier way of fitting, for what was predicted by it.
        """
        self.table, self.statistic, self.fit = table, statistic, fit
        self.blocks = blocks or table_prior(table)
        self.keys = self.blocks.keys
        self._column = {key: j for j, key in enumerate(self.keys)}
        networks = [row for row in table.networks.values() if self._column.keys() >= set(row.ops)]
        evidence = [row for row in networks if use is None or row.key in use]
        self.evidence = [row.key for row in evidence]
        x = self.counts([row.ops for row in evidence])
        fitted, drift = _fit_sessions(self.blocks, x, evidence, thorough=fit == 1)
        self.level = Level.of(evidence or list(table.rows.values()), statistic)
        self.session_std = float(np.hypot(self.level.unsure, drift))
        self.posterior = fitted.at_level(self.level.factor, self.session_std, self.level.noise)
        self.quiet, self._drift = fitted.at_level(1.0, drift, 0.0), drift
        self.now: Curve | None = None

    def at(self, level: LevelNow | None) -> LatencyModel:
        """The same model, predicting at the device's level now; at the usual one for None."""
        return self.at_curve(level.now if level else None)

    def at_curve(self, curve: Curve | None) -> LatencyModel:
        """The same model, predicting along a curve from undisturbed latency to the statistic."""
        other = copy.copy(self)
        other.now = curve
        usual = self.level.unsure
        apart = usual if curve is None else float(np.hypot(np.median(curve.unsure), curve.noise))
        other.session_std = float(np.hypot(apart, self._drift))
        return other

    def of_now(self, quiet: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Undisturbed latencies and their standard deviations in ms, at the level now."""
        if self.now is None:
            raise ValueError("the level now is not known")
        factor, unsure = self.now.at(quiet)
        return factor * quiet, factor * np.sqrt(std**2 + (unsure**2 + self.now.noise**2) * quiet**2)

    @property
    def effects(self) -> dict[str, float]:
        """Every block's contribution to a network, in ms."""
        return dict(zip(self.keys, self.posterior.mean.tolist(), strict=True))

    def counts(self, networks: Sequence[Sequence[str]]) -> np.ndarray:
        """How often networks, given as the keys of their blocks, have each of ``keys``.

        Raises:
            OpNotProfiled: a block is unknown.
        """
        for ops in networks:
            self.require(ops)
        return design(self.keys, networks)

    def require(self, ops: Iterable[str]) -> None:
        """Check that every block is known.

        Raises:
            OpNotProfiled: names the first unknown block and the command that measures it.
        """
        self.table.require(key for key in ops if key not in self._column)

    def columns(self, ops: Sequence[str]) -> np.ndarray:
        """Places of blocks in ``keys``."""
        return np.array([self._column[key] for key in ops], dtype=int)

    def predict(self, networks: Sequence[Network]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of what a measurement of each network would show, in ms.

        Raises:
            OpNotProfiled: a block was never measured.
        """
        return self.predict_ops([self.table.row_keys(network) for network in networks])

    def predict_ops(self, networks: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Like ``predict``, for networks given as the keys of their blocks."""
        counts = self.counts(networks)
        return self.posterior.predict(counts) if self.now is None else self.of_now(*self.quiet.predict(counts))

    def undisturbed(self, networks: Sequence[Network]) -> np.ndarray:
        """What each network takes while nothing disturbs the device, in ms."""
        return self.undisturbed_ops([self.table.row_keys(network) for network in networks])

    def undisturbed_ops(self, networks: Sequence[Sequence[str]]) -> np.ndarray:
        """Like ``undisturbed``, for networks given as the keys of their blocks."""
        return self.quiet.predict(self.counts(networks))[0]

    def without(self, key: str) -> LatencyModel:
        """The model fitted on all of its networks but one."""
        use = [other for other in self.evidence if other != key]
        return LatencyModel(self.table, use, self.statistic, self.blocks, self.fit)

    def explain(self, network: Network) -> list[BlockShare]:
        """Which blocks carry a network's prediction, in order of execution."""
        posterior = self.posterior
        ops = self.table.row_keys(network)
        self.require(ops)
        columns = self.columns(ops)
        spread = np.sqrt(np.maximum(posterior.variance + posterior.sign @ posterior.factor**2, 0.0))
        total = float(posterior.mean[columns].sum())
        return [
            BlockShare(
                name=name,
                op=key,
                table_ms=getattr(self.table.rows[key], self.statistic) if key in self.table.rows else None,
                posterior_ms=float(posterior.mean[j]),
                std_ms=float(posterior.calibration * spread[j]),
                share=float(posterior.mean[j]) / total,
                origin=self.blocks.origin[j],
            )
            for name, key, j in zip([unit.name for unit in network.units], ops, columns, strict=True)
        ]

    def learned(self, row: Row) -> LatencyModel:
        """The model fitted on one network more, or on another measurement of one that it was fitted on."""
        table = replace(self.table, networks={**self.table.networks, row.key: row})
        return LatencyModel(table, [*self.evidence, row.key], self.statistic, self.blocks, self.fit)

    def bind(self, codec: PopulationCodec) -> SpaceLatency:
        """The model as array operations on populations of one space.

        Raises:
            OpNotProfiled: a block of the space was never measured.
        """
        return SpaceLatency(self, codec)

    def to_json(self) -> dict[str, object]:
        """The table, which networks were fitted, and what is predicted: all that a prediction rests on."""
        fields: dict[str, object] = {name: getattr(self, name) for name in ("evidence", "statistic", "fit")}
        fields["table"] = self.table.to_json()
        fields |= {"now": self.now.to_json()} if self.now else {}
        return {**fields, "blocks": None if set(self.blocks.origin) == {"measured"} else self.blocks.to_json()}

    def save(self, path: Path) -> None:
        """Write the model as a JSON file."""
        write_atomic(path, json.dumps(self.to_json(), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> LatencyModel:
        """Read what ``save`` wrote; gives the same predictions.

        Raises:
            UsageError: the file is missing, truncated or changed.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"cannot read the latency model {path}: {error.strerror}") from error
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a whole latency model (truncated or edited); save it again") from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyModel:
        """Fit again from what ``to_json`` wrote; gives the same predictions.

        Raises:
            UsageError: the table does not match its digest, or a newer version fitted the model.
            KeyError, TypeError: the object is no latency model.
        """
        blocks = data.get("blocks")
        prior = BlockPrior.from_json(blocks) if blocks else None
        table, fitted = LatencyTable.from_json(data["table"]), data.get("fit", 1)
        if not 1 <= fitted <= FIT:
            raise UsageError("a newer version of ofa-deploy fitted this latency model; update ofa-deploy")
        model = cls(table, data["evidence"], data["statistic"], prior, fitted)
        return model.at_curve(Curve.from_json(data["now"])) if data.get("now") else model


def _fit_sessions(blocks: BlockPrior, x: np.ndarray, rows: Sequence[Row], thorough: bool) -> tuple[Posterior, float]:
    """The posterior of the blocks' effects, and how far, as a fraction, one session's level lies from another's.

    A device's speed is not the same every hour, so networks that were measured together share a level: one more column
    for every session, which networks of other sessions do not have.
    """
    y, se = (np.array([getattr(row, name) for row in rows]) for name in ("best", "best_se"))
    prior = blocks.for_evidence(x, y)
    sessions = {session: j for j, session in enumerate(dict.fromkeys(row.measured_at for row in rows))}
    shared = np.zeros((len(rows), len(sessions) or 1))
    shared[np.arange(len(rows)), [sessions[row.measured_at] for row in rows]] = x @ prior.mean
    blocks_and_one = x.shape[1] + 1  # all sessions' levels differ by as much
    prior = prior.widened(shared.shape[1], *SESSION)
    fitted = fit(prior, np.hstack([x, shared]), y, se, blocks_and_one, thorough)
    drift = float(np.sqrt(fitted.variance[-1]))
    return replace(fitted.of(np.arange(x.shape[1])), calibration=calibration_of(fitted.left_out)), drift


@dataclass(frozen=True)
class Level:
    """How far a statistic of networks' timings lies above what they take undisturbed.

    Attributes:
        factor: the ratio, averaged over sessions.
        unsure: relative standard deviation of another session's factor.
        noise: relative standard deviation of one measurement around its session's factor.
    """

    factor: float
    unsure: float
    noise: float

    @classmethod
    def of(cls, rows: Sequence[Row], statistic: str) -> Level:
        """From measured rows; what was measured together, and has one time, is a session.

        How far sessions differ is an inverse-gamma estimate with one imagined session in it that differed by half of
        what the disturbance amounts to: a device that others slow down by a tenth is not slowed by as much every hour.
        """
        return cls.of_sessions(*_ratios(rows, statistic)) if rows else cls(1.0, 0.0, 0.0)

    @classmethod
    def without_each(cls, rows: Sequence[Row], statistic: str) -> list[Level]:
        """For each of several rows, the level from the others."""
        ratios, sessions = _ratios(rows, statistic)
        return [cls.of_sessions(np.delete(ratios, i), np.delete(sessions, i)) for i in range(len(rows))]

    @classmethod
    def of_sessions(cls, ratios: np.ndarray, sessions: np.ndarray) -> Level:
        """From logarithms of statistic / undisturbed, and the number of each one's session."""
        order = np.lexsort((ratios, sessions))
        ratios, sizes = ratios[order], np.bincount(sessions)
        sizes = sizes[sizes > 0]
        first = np.cumsum(sizes) - sizes
        middles = (ratios[first + (sizes - 1) // 2] + ratios[first + sizes // 2]) / 2  # the sessions' medians
        within = ratios - np.repeat(middles, sizes)
        level = float(middles.mean())
        imagined = (0.5 * level) ** 2
        unsure = np.sqrt((imagined + ((middles - level) ** 2).sum()) / len(middles) * (1 + 1 / len(middles)))
        return cls(float(np.exp(level)), float(unsure), float(NORMAL_MAD * np.median(np.abs(within))))


def _ratios(rows: Sequence[Row], statistic: str) -> tuple[np.ndarray, np.ndarray]:
    numbers = {session: i for i, session in enumerate(dict.fromkeys(row.measured_at for row in rows))}
    ratios = np.log([getattr(row, statistic) / row.best for row in rows])
    return ratios, np.array([numbers[row.measured_at] for row in rows])


class SpaceLatency:
    """A latency model bound to a space: ``predict`` takes whole populations.

    A mean is a sum over blocks, and a variance the squares of such sums, so a population is predicted by one sparse
    product of its block numbers with ``[blocks, R]`` columns. The exception is a block's own remainder, shared by its
    repeats: it enters with the square of the count, so repeats within a network are found slot against slot.
    """

    def __init__(self, model: LatencyModel, codec: PopulationCodec) -> None:
        if codec.per_resolution != model.table.per_resolution:
            codec = PopulationCodec(codec.space, model.table.per_resolution)
        model.require(codec.op_keys)
        columns = model.columns(codec.op_keys)
        self._codec, self._posterior = codec, model.posterior if model.now is None else model.quiet
        self._of_now = None if model.now is None else model.of_now
        factor = self._posterior.factor[:, columns]
        self._factor = np.vstack([factor.T, np.zeros(len(factor))]).astype(np.float32)
        self._mean = np.append(self._posterior.mean[columns], 0.0)
        self._variance = np.append(self._posterior.variance[columns], 0.0)
        self._twins = _slots_that_share(codec)

    def mean(self, population: Population) -> np.ndarray:
        """Predicted latency in ms, ``float64[N]``."""
        found = np.concatenate([self._sum(self._codec.op_ids(part)) for part in _chunks(population)])
        return found if self._of_now is None else self._of_now(found, np.zeros_like(found))[0]

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
        mean = self._sum(ids)
        shared = self._factor.take(ids[0], axis=0)
        for row in ids[1:]:
            shared += self._factor.take(row, axis=0)
        variance = shared**2 @ self._posterior.sign + (self._posterior.noise * mean) ** 2
        for row in ids:
            variance += self._variance.take(row)
        for i, j in self._twins:
            variance += np.where(ids[i] == ids[j], 2 * self._variance.take(ids[i]), 0.0)
        std = self._posterior.calibration * np.sqrt(np.maximum(variance, 0.0))
        return (mean, std) if self._of_now is None else self._of_now(mean, std)


def _chunks(population: Population) -> list[Population]:
    return [population[i : i + CHUNK] for i in range(0, max(len(population), 1), CHUNK)]


def calibration_of(left_out: np.ndarray) -> float:
    """Factor on the standard deviation, at least 1: root mean square of the left-out networks' standardised errors."""
    return max(1.0, float(np.sqrt((PSEUDO + left_out @ left_out) / (PSEUDO + len(left_out)))))


def _slots_that_share(codec: PopulationCodec) -> list[tuple[int, int]]:
    """Pairs of rows of ``op_ids`` that can hold the same block."""
    held = [set(table.ravel().tolist()) for table in codec.tables]
    return [(i, j) for i, j in combinations(range(len(held)), 2) if held[i] & held[j]]
