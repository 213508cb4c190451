"""What is believed about the cost of blocks before a whole network was measured.

Three sources, from the best to the weakest: the device's own table; rows of blocks that lie around one that was never
measured; and the tables and networks of other devices, with made-up devices that only count MACs, traffic, weights or
launches.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_deploy.blocks import OpSpec, Unit, counts
from ofa_deploy.blocks.kinds import KINDS
from ofa_deploy.blocks.kinds.kind import HEAD, STAGE, STEM
from ofa_deploy.json_types import JSON
from ofa_deploy.latency.mixture import Prior, Term
from ofa_deploy.latency.posterior import device_prior
from ofa_deploy.latency.table import LatencyTable, Row

# Ranges of the prior's scales, and the noise of a network around the sum, all as fractions of latencies:
FACTOR = (0.05, 0.3)  # common to all blocks
BOUNDARY = (0.05, 1.5)  # of a block, as a fraction of a small one (the table's lower decile)
AREA = (0.005, 0.1)  # of a block, for every standard deviation of the logarithm of its input's area
REMAINDER = (0.01, 0.15)  # of each block's own
NOISE = (0.003, 0.1)
UNKNOWN_LEVEL = 1.0  # of a device of which nothing was measured: a factor of e either way
# Kinds that are not like each other: all but the two inverted bottlenecks, and the small blocks of cells.
INVERTED = ("mbconv", "uib")
APART = tuple(name for name, kind in KINDS.items() if kind.role in (STEM, STAGE, HEAD) and name not in INVERTED)
LEAST_GUESS = 0.03  # relative error of a row that was interpolated, at least


@dataclass(frozen=True)
class BlockPrior:
    """A prior over the blocks with the given keys.

    Attributes:
        keys: of the blocks, in the order of the prior's columns.
        prior: in ms, or in units of a typical network's latency where ``relative``.
        origin: for every key ``measured``, ``interpolated`` or ``other devices``.
        relative: whether the device's level is unknown until a network of it was measured.
        level: ms that a typical network takes on the other devices; what a relative prior is scaled with till then.
        devices: names of the other devices that it rests on.
    """

    keys: tuple[str, ...]
    prior: Prior
    origin: tuple[str, ...]
    relative: bool = False
    level: float = 1.0
    devices: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        if self.relative:
            return f"the devices {', '.join(self.devices)}" if self.devices else "MACs, traffic, weights and launches"
        guessed = self.origin.count("interpolated")
        return "the device's own table" + (f", {guessed} blocks of it interpolated" if guessed else "")

    def for_evidence(self, x: np.ndarray, y: np.ndarray) -> Prior:
        """The prior in ms, given networks ``x [K, J]`` that took ``y [K]`` ms; K may be 0."""
        if not self.relative:
            return self.prior
        if len(y):
            return self.prior.scaled_to(x, y)
        unsure = Term(self.prior.mean[None], UNKNOWN_LEVEL, UNKNOWN_LEVEL)
        prior = Prior(self.prior.mean, (*self.prior.terms, unsure), self.prior.noise)
        return prior.scaled(self.level)

    def to_json(self) -> dict[str, JSON]:
        """All of it, as a JSON object."""
        terms = [{"rows": term.rows.tolist(), "low": term.low, "high": term.high} for term in self.prior.terms]
        prior = {"mean": self.prior.mean.tolist(), "terms": terms, "noise": list(self.prior.noise)}
        fields = {name: getattr(self, name) for name in ("relative", "level")}
        return {"prior": prior, **{name: list(getattr(self, name)) for name in ("keys", "origin", "devices")}, **fields}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockPrior:
        """Read what ``to_json`` wrote."""
        stored = data["prior"]
        terms = tuple(Term(np.array(term["rows"]), term["low"], term["high"]) for term in stored["terms"])
        prior = Prior(np.array(stored["mean"]), terms, (stored["noise"][0], stored["noise"][1]))
        lists = {name: tuple(data[name]) for name in ("keys", "origin", "devices")}
        return cls(prior=prior, relative=data["relative"], level=data["level"], **lists)


@dataclass(frozen=True)
class OtherDevice:
    """A device whose blocks are known: what each adds to a whole network there, in ms, by its key."""

    name: str
    effects: Mapping[str, float]


def table_prior(
    table: LatencyTable, needed: Mapping[str, Unit] | None = None, others: Sequence[OtherDevice] = ()
) -> BlockPrior:
    """The device's own table as a prior; needed blocks that it lacks are interpolated.

    Args:
        needed: blocks and cells by the keys of their rows.
        others: what the missing blocks cost elsewhere helps to guess what they cost here.
    """
    rows = list(table.rows.values())
    missing = {key: unit for key, unit in (needed or {}).items() if key not in table.rows}
    t = np.array([row.best for row in rows])
    error = np.array([row.best_se for row in rows])
    if missing:
        guess, unsure = interpolate(rows, missing, others)
        t, error = np.concatenate([t, guess]), np.concatenate([error, unsure])
    keys = [*(row.key for row in rows), *missing]
    ops = [*(row.block for row in rows), *(unit.op for unit in missing.values())]
    origin = ["measured"] * len(rows) + ["interpolated"] * len(missing)
    return BlockPrior(tuple(keys), _sum_of_blocks(ops, t, error), tuple(origin))


def _sum_of_blocks(ops: Sequence[OpSpec], t: np.ndarray, error: np.ndarray) -> Prior:
    """The prior mean is the sum of the blocks' latencies ``t`` with relative errors ``error``."""
    small = float(np.quantile(t, 0.1)) if len(t) else 0.0
    area = _standardised(np.array([np.log(op.h * op.w) for op in ops]))
    terms = (
        Term(t[None], *FACTOR),
        Term(np.full((1, len(t)), small), *BOUNDARY),
        Term((t * area)[None], *AREA),
        Term(t**2, *REMAINDER),
        Term((t * error) ** 2, 1.0, 1.0),
    )
    return Prior(t, terms, NOISE)


def _standardised(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1.0) if len(values) else values


def costs(unit: Unit) -> list[float]:
    """MACs, values moved, weights, and one launch, which counts for a cell as for a block."""
    macs = sum(counts.macs(op.block) for op in unit.ops)
    moved = sum(counts.values_moved(op.block) for op in unit.ops)
    return [float(macs), float(moved), float(sum(counts.params(op.block) for op in unit.ops)), 1.0]


def traits(op: OpSpec) -> list[float]:
    """Where a block lies among its like: a unit is about a doubling, another kernel, or another kind.

    An inverted bottleneck is the same, whichever kind of block it is a case of. Every other kind is far from all.
    """
    kind = [3.0 * (op.kind == name) for name in APART]
    wide = op.mid / op.cin if op.mid else 1.0
    shape = [np.log2(op.cin * op.cout) / 2, np.log2(op.h * op.w) / 2, np.log2(op.stride), np.log2(wide)]
    return [*shape, op.kernel / 2, op.start / 2, float(op.se > 0), float(op.act in ("hswish", "silu", "gelu")), *kind]


def interpolate(
    rows: Sequence[Row], missing: Mapping[str, Unit], others: Sequence[OtherDevice] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Latency in ms and relative error of blocks that were not measured, from rows of blocks that were.

    A linear trend of the logarithm on the logarithms of MACs, traffic and weights (and on what other devices take),
    and a Gaussian process over the blocks' traits for the rest: far from every row it says that it does not know.

    Args:
        missing: the blocks that were not, by the keys that their rows would have.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.linear_model import Ridge

    # no block is like a whole cell, and what pools or adds tells nothing of what multiplies
    rows = [row for row in rows if row.block.kind != "cell" and counts.macs(row.block.block)]
    blocks = {**{row.key: Unit(row.block) for row in rows}, **missing}
    trend = _standardised(_log_costs(blocks, others))
    where = np.array([traits(unit.op) for unit in blocks.values()])
    y, n = np.log([row.best for row in rows]), len(rows)
    linear = Ridge(alpha=0.1).fit(trend[:n], y)
    rest = y - linear.predict(trend[:n])
    kernel = ConstantKernel(0.05, (1e-4, 1.0)) * RBF(2.0, (0.5, 20.0)) + WhiteKernel(1e-3, (1e-5, 0.1))
    with warnings.catch_warnings():  # a table without noise takes a parameter to its bound, which is as it should be
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(kernel, random_state=0).fit(where[:n], rest)
    mean, std = process.predict(where[n:], return_std=True)
    return np.exp(linear.predict(trend[n:]) + mean), np.maximum(std, LEAST_GUESS)


def _log_costs(blocks: Mapping[str, Unit], others: Sequence[OtherDevice]) -> np.ndarray:
    columns = [np.log(np.maximum([costs(unit)[:3] for unit in blocks.values()], 1.0))]  # pooling has no MACs or weights
    columns += [np.log([[other.effects[key]] for key in blocks]) for other in others if _knows(other, blocks)]
    return np.concatenate(columns, axis=1)


def _knows(other: OtherDevice, keys: Iterable[str]) -> bool:
    return all(other.effects.get(key, 0.0) > 0 for key in keys)


def prior_from_devices(blocks: Mapping[str, Unit], others: Sequence[OtherDevice], networks: np.ndarray) -> BlockPrior:
    """The prior for a device of which no block was measured.

    Args:
        blocks: and cells, by the keys of their rows.
        others: devices that know all of them; with none, the prior rests on the made-up devices alone.
        networks: counts ``[N, J]`` of blocks in typical networks; their median latency is the unit.
    """
    keys, units = list(blocks), list(blocks.values())
    analytic = np.array([costs(unit) for unit in units]).T
    analytic /= np.median(networks @ analytic.T, axis=0)[:, None]
    known = [other for other in others if _knows(other, keys)]
    effects = np.array([[other.effects[key] for key in keys] for other in known])
    levels = np.median(networks @ effects.T, axis=0) if known else np.ones(1)
    devices = effects / levels[:, None] if known else analytic.mean(0)[None]
    prior = device_prior(devices, None, analytic, np.array([traits(unit.op) for unit in units]))
    return BlockPrior(
        tuple(keys),
        prior,
        ("other devices",) * len(units),
        relative=True,
        level=float(np.exp(np.log(levels).mean())),
        devices=tuple(other.name for other in known),
    )
