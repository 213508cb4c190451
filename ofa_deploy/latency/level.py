"""How fast a device is now, beside the hour in which it was profiled: a curve over latency, not a number.

Who outlives a scheduler's slice waits for a core, and who does not hardly notices; a lower clock slows all alike. So a
few networks whose undisturbed latency is known, the anchor, are measured now, from the fastest to the slowest, and a
Gaussian process through the logarithms of their ratios says how much slower a network of any latency is, and how sure
that is (Rasmussen & Williams, GPML, §2.2). Its scales are averaged over by their evidence (§5.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TypedDict

import numpy as np

from ofa_deploy.json_types import JSON

LENGTH = 1.0  # of the curve, in logarithms of latency: it goes from one level to another within a factor of about ten
COMMON = 1.0  # standard deviation of the whole curve's logarithm
BENDS = (0.0, 0.05, 0.15, 0.4, 1.0)  # how far its ends may lie apart, alike
NOISES = {0.003: 1.0, 0.01: 1.0, 0.03: 0.5, 0.1: 0.1, 0.3: 0.02}  # of one network around the curve: how plausible
NEAREST = 9  # networks whose errors are taken to be alike
GRID = 64  # places at which the curve is kept
BEYOND = 0.3  # in logarithms of latency, by which it reaches beyond the networks that it is known from
DISTURBED = 0.10  # an anchor that repeats itself worse than that promises nothing

Floats = Sequence[float] | np.ndarray


class CurveJson(TypedDict):
    """A ``Curve`` as a JSON object."""

    ms: list[float]
    factor: list[float]
    unsure: list[float]
    noise: float


@dataclass(frozen=True)
class Curve:
    """A function of latency, by its values at some latencies.

    Attributes:
        ms: latencies, ascending ``[M]``.
        factor: its values there.
        unsure: their relative standard deviations.
        noise: relative standard deviation of one measurement around it, the measurement's own error included.
    """

    ms: np.ndarray
    factor: np.ndarray
    unsure: np.ndarray
    noise: float

    def at(self, ms: Floats) -> tuple[np.ndarray, np.ndarray]:
        """Value and relative standard deviation at some latencies; beyond its ends those of the ends."""
        x, known = np.log(np.maximum(ms, 1e-12)), np.log(self.ms)
        return np.exp(np.interp(x, known, np.log(self.factor))), np.interp(x, known, self.unsure)

    def to_json(self) -> CurveJson:
        """As a JSON object."""
        return {
            "ms": self.ms.tolist(),
            "factor": self.factor.tolist(),
            "unsure": self.unsure.tolist(),
            "noise": self.noise,
        }

    @classmethod
    def from_json(cls, data: CurveJson) -> Curve:
        """Read what ``to_json`` gave."""
        ms, factor, unsure = (np.array(values, float) for values in (data["ms"], data["factor"], data["unsure"]))
        return cls(ms, factor, unsure, float(data["noise"]))


@dataclass(frozen=True)
class LevelTold:
    """How much slower a device is than when it was profiled, for a network of one undisturbed latency.

    Attributes:
        factor, low, high: how many times as slow, with the 95 % interval.
        curve: pairs of a latency in ms and the factor there.
        repeatability: by what fraction measurements of the anchor differ.
        disturbed: whether they differ too much for a promise.
        reasons: what the device says of itself, in words.
    """

    factor: float
    low: float
    high: float
    profiled_at: str
    measured_at: str
    curve: list[list[float]]
    repeatability: float
    disturbed: bool
    reasons: list[str]

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {**vars(self)}


@dataclass(frozen=True)
class LevelNow:
    """How much longer networks take now than undisturbed, and than when the device was profiled.

    Attributes:
        now: from undisturbed latency in ms to what the statistic is of it now.
        then: to what it was when the device was profiled.
        anchors: undisturbed latencies of the networks that it is known from.
        repeats: by how much the anchor's measurements differ between the odd and the even rounds, a fraction.
        profiled_at, measured_at: when.
        reasons: what the device says of itself, in words.
    """

    now: Curve
    then: Curve
    anchors: tuple[float, ...]
    repeats: float
    profiled_at: str
    measured_at: str
    reasons: tuple[str, ...] = field(default=())

    @property
    def disturbed(self) -> bool:
        """Whether the device is too disturbed for a promise."""
        return self.repeats > DISTURBED

    def factor(self, quiet_ms: float) -> tuple[float, float, float]:
        """How much slower the device is at an undisturbed latency than when it was profiled, with its 95 % interval."""
        (now,), (unsure,) = self.now.at([quiet_ms])
        (then,), (once,) = self.then.at([quiet_ms])
        reach = float(np.exp(1.96 * np.hypot(unsure, once)))
        factor = float(now / then)
        return factor, factor / reach, factor * reach

    def widened(self, spread: float) -> LevelNow:
        """The same level as a forecast: it moves by so much, a fraction, from minute to minute."""
        unsure = np.hypot(self.now.unsure, spread)
        return replace(self, now=replace(self.now, unsure=unsure))

    def told(self, quiet_ms: float) -> LevelTold:
        """As a report tells it, for a network of an undisturbed latency."""
        factor, low, high = self.factor(quiet_ms)
        curve = [[ms, self.factor(ms)[0]] for ms in sorted(self.anchors)]
        return LevelTold(
            factor=factor,
            low=low,
            high=high,
            profiled_at=self.profiled_at,
            measured_at=self.measured_at,
            curve=[[float(f"{value:.6g}") for value in pair] for pair in curve],
            repeatability=self.repeats,
            disturbed=self.disturbed,
            reasons=list(self.reasons),
        )


def curve_through(ms: Floats, ratios: Floats, errors: Floats) -> Curve:
    """The curve through measured ratios.

    Args:
        ms: undisturbed latencies ``[K]``, K > 0.
        ratios: how many times as long each took.
        errors: relative standard errors of the ratios. What counts is the median of those of similar latency: an
            item's own is an estimate that grows with its ratio, so that the curve would lie below most of them.
    """
    x, y, se = (np.asarray(values, float) for values in (np.log(ms), np.log(ratios), _typical(ms, errors)))
    grid = np.linspace(x.min() - BEYOND, x.max() + BEYOND, GRID)
    middle = float(np.median(y))
    scales = list(product(BENDS, NOISES))
    found = [_posterior(x, y - middle, se, grid, bend, noise) for bend, noise in scales]
    evidence = np.array([one[0] + np.log(NOISES[noise]) for one, (_, noise) in zip(found, scales, strict=True)])
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    means, variances = (np.array([one[i] for one in found]) for i in (1, 2))
    mean = weight @ means
    variance = weight @ (variances + (means - mean) ** 2)
    noise = float(np.sqrt(weight @ np.array([noise**2 for _, noise in scales]) + np.median(se) ** 2))
    return Curve(np.exp(grid), np.exp(middle + mean), np.sqrt(variance), noise)


def without_each(ms: Floats, ratios: Floats, errors: Floats) -> list[Curve]:
    """For each of the networks, the curve through the ratios of all others; at least two."""
    parts = np.array([ms, ratios, errors])
    return [curve_through(*np.delete(parts, i, axis=1)) for i in range(parts.shape[1])]


def _typical(ms: Floats, errors: Floats) -> np.ndarray:
    """Of each network, the median of the errors of those whose latencies are nearest."""
    x, se = np.log(ms), np.asarray(errors, float)
    nearest = np.argsort(np.abs(x[:, None] - x), axis=1)[:, :NEAREST]
    found: np.ndarray = np.median(se[nearest], axis=1)
    return found


def _posterior(
    x: np.ndarray, y: np.ndarray, se: np.ndarray, grid: np.ndarray, bend: float, noise: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Log evidence of the points, and mean and variance of the curve on the grid, for given scales."""
    covariance = _kernel(x, x, bend) + np.diag(noise**2 + se**2)
    root = np.linalg.cholesky(covariance)
    alpha = np.linalg.solve(root.T, np.linalg.solve(root, y))
    cross = _kernel(grid, x, bend)
    seen = np.linalg.solve(root, cross.T)
    variance = COMMON**2 + bend**2 - (seen**2).sum(0)
    evidence = -0.5 * y @ alpha - np.log(np.diag(root)).sum()
    return float(evidence), cross @ alpha, np.maximum(variance, 0.0)


def _kernel(a: np.ndarray, b: np.ndarray, bend: float) -> np.ndarray:
    return COMMON**2 + bend**2 * np.exp(-0.5 * ((a[:, None] - b[None]) / LENGTH) ** 2)
