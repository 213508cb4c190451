"""A prior with unknown scales, averaged over by what the measured networks say of them.

A few hundred draws of the scales and of the noise are weighted by their evidence. Many networks leave few draws any
weight, and each draw costs more the more networks there are. So the draws begin on some of the networks; then fewer
draws fill the smaller box in which these had their weight, on more networks, until the networks are all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lgamma

import numpy as np

from ofa_deploy.latency.inverses import Inverse, invert

NU = 4.0  # degrees of freedom of the noise
ROUNDS = 6  # of reweighting; more changed no prediction beyond its noise
DRAWS = 256
FIRST = 32  # networks on which that many draws begin; the number of draws falls with the square of the networks',
LEAST = 8  # but not below this
GROWTH = 4  # each fit uses at most this many times the networks of the one before
FEW_ROUNDS = 2  # of reweighting, from the weights that the middle of the draws ended with
BOX = 4.0  # its sides, in standard deviations of the draws' weights
NEGLIGIBLE = 1e-6  # weight below which a draw is dropped


@dataclass(frozen=True)
class Term:
    """One independent part of how β varies, with a range for its unknown scale (a fixed scale: ``low == high``).

    Attributes:
        rows: ``[R, J]`` directions that all columns share, or ``[J]`` variances of remainders of every column's own.
        low: smallest scale, a standard deviation in units of the rows.
        high: largest scale; between them it is uniform in its logarithm.
    """

    rows: np.ndarray
    low: float
    high: float


@dataclass(frozen=True)
class Prior:
    """What is believed about β before the device was measured.

    Attributes:
        mean: ``[J]``, in the units of the latencies.
        terms: how β varies around the mean.
        noise: smallest and largest scale of the noise, as a fraction of a network's prior latency.
    """

    mean: np.ndarray
    terms: tuple[Term, ...]
    noise: tuple[float, float] = (0.003, 0.2)

    def scaled_to(self, x: np.ndarray, y: np.ndarray) -> Prior:
        """The same prior in the units of a device whose networks ``x [K, J]`` took ``y [K]``; needs K > 0."""
        return self.scaled(float(np.median(y / (x @ self.mean))))

    def scaled(self, scale: float) -> Prior:
        """The same prior where everything takes ``scale`` times as long."""
        terms = (replace(term, rows=term.rows * (scale if term.rows.ndim == 2 else scale**2)) for term in self.terms)
        return replace(self, mean=self.mean * scale, terms=tuple(terms))

    def of(self, columns: np.ndarray | slice) -> Prior:
        """The prior of some of the columns."""
        terms = tuple(replace(term, rows=term.rows[..., columns]) for term in self.terms)
        return replace(self, mean=self.mean[columns], terms=terms)

    def widened(self, columns: int, low: float, high: float) -> Prior:
        """The prior with more columns at the end, of mean 0 and variance 1 at scale 1, independent of all others."""

        def padded(values: np.ndarray) -> np.ndarray:
            return np.concatenate([values, np.zeros((*values.shape[:-1], columns))], axis=-1)

        own = Term(np.append(np.zeros(len(self.mean)), np.ones(columns)), low, high)
        terms = (*(replace(term, rows=padded(term.rows)) for term in self.terms), own)
        return replace(self, mean=padded(self.mean), terms=terms)

    def covariance(self, x: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Covariance ``[N, N]`` of the networks ``x`` with one scale for every term."""
        return sum(s**2 * _gram(term, x) for s, term in zip(scales, self.terms, strict=True)) + np.zeros((len(x),) * 2)

    def roots(self, x: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """A square root ``[G, N, M]`` of the covariance of the networks ``x``, with scales ``[G, terms]``."""
        own = np.array([term.rows.ndim == 1 for term in self.terms])
        variances = [term.rows for term, alone in zip(self.terms, own, strict=True) if alone]
        parts = [x * np.sqrt(scales[:, own] ** 2 @ np.array(variances))[:, None, :]] if variances else []
        for scale, term in zip(scales.T, self.terms, strict=True):
            if term.rows.ndim == 2:
                parts.append(scale[:, None, None] * (x @ term.rows.T))
        return np.concatenate(parts, axis=2)

    def draws(self, low: np.ndarray | float = 0.0, high: np.ndarray | float = 1.0, count: int = DRAWS) -> Draws:
        """Scales and noise, spread evenly over their ranges, or over a part of them.

        Args:
            low: ``[terms + 1]``, where the part begins, as a fraction of every range's logarithm.
            high: where it ends.
        """
        first, last = np.log([*((term.low, term.high) for term in self.terms), self.noise]).T
        points = low + (high - low) * _spread(count, len(first))
        drawn = np.exp(first + (last - first) * points)
        return Draws(points, drawn[:, :-1], drawn[:, -1])


def _spread(count: int, dimensions: int) -> np.ndarray:
    """Points ``[count, dimensions]`` that fill the unit cube evenly: Roberts' R sequence, the additive recurrence
    whose steps are powers of the root of x^(d + 1) = x + 1. Sobol points are as good; scipy is long to import."""
    root = 1.5
    for _ in range(64):
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(count)[:, None] * steps) % 1.0


def _gram(term: Term, x: np.ndarray) -> np.ndarray:
    if term.rows.ndim == 1:
        return (x * term.rows) @ x.T
    shared = x @ term.rows.T
    return shared @ shared.T


@dataclass(frozen=True)
class Draws:
    """Draws of a prior's scales and noise.

    Attributes:
        points: ``[G, terms + 1]``, where they lie in their ranges' logarithms.
        scales: ``[G, terms]``.
        sigma: ``[G]``, of the noise, as a fraction of a network's prior latency.
    """

    points: np.ndarray
    scales: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class Mixture:
    """Draws of the scales, and the measured networks under each of them.

    Attributes:
        scales: ``[G, terms]``.
        sigma: ``[G]``, of the noise, as a fraction of a network's prior latency.
        weight: ``[G]``, sums to 1.
        residual: ``[K]``, by how much networks took longer than the prior mean.
        precision: ``[G, K, K]``, inverse covariance of the networks' measurements.
        outlying: ``[G, K]``, what the weight of every network's noise adds to the log evidence.
    """

    scales: np.ndarray
    sigma: np.ndarray
    weight: np.ndarray
    residual: np.ndarray
    precision: np.ndarray
    outlying: np.ndarray

    @property
    def standardised(self) -> np.ndarray:
        """``[K]`` error of every network as predicted from the others, in standard deviations."""
        diagonal = np.einsum("gkk->gk", self.precision)
        return self.weight @ ((self.precision @ self.residual) / np.sqrt(diagonal))

    def left_out(self, target: np.ndarray) -> LeftOut:
        """What the other networks say of every network, in closed form: the inverse of a covariance without a row and
        a column follows from the whole inverse (Rasmussen & Williams, GPML, §5.4.2).

        The others' weights as outliers stay as they are; those of the draws lose the network's own part.

        Args:
            target: root ``[G, K, M]`` of the covariance of what is predicted.
        """
        diagonal, alpha = np.einsum("gkk->gk", self.precision), self.precision @ self.residual
        covariance = target @ target.transpose(0, 2, 1)
        seen = covariance @ self.precision
        own = np.einsum("gkk->gk", seen)
        mean = (covariance @ alpha[:, :, None])[:, :, 0] - own * alpha / diagonal
        variance = np.einsum("gkk->gk", covariance) - (seen * covariance).sum(2) + own**2 / diagonal
        said = 0.5 * (np.log(diagonal) - alpha**2 / diagonal) + self.outlying  # of the draws, by the network alone
        weight = _softmax(np.log(self.weight)[:, None] - said)
        average = (weight * mean).sum(0)
        return LeftOut(
            mean=average,
            variance=np.maximum((weight * (variance + mean**2)).sum(0) - average**2, 0.0),
            noise=np.sqrt(self.sigma**2 @ weight * NU / (NU - 2)),
            squared=(self.scales**2).T @ weight,
        )


@dataclass(frozen=True)
class LeftOut:
    """Every measured network as the others predict it.

    Attributes:
        mean: ``[K]``, by how much it takes longer than the prior mean.
        variance: ``[K]``, of that, without noise.
        noise: ``[K]``, standard deviation of a measurement as a fraction of it.
        squared: ``[terms, K]``, the mean square of every term's scale.
    """

    mean: np.ndarray
    variance: np.ndarray
    noise: np.ndarray
    squared: np.ndarray


def weigh(prior: Prior, x: np.ndarray, y: np.ndarray, known: np.ndarray, thorough: bool = False) -> Mixture:
    """Weigh draws of the scales by their evidence: networks ``x [K, J]`` took ``y [K]``.

    Args:
        known: ``[K]``, variances of the measurements, as far as they are known.
        thorough: weigh draws from the whole ranges on all networks, however many there are.
    """
    used = np.flatnonzero(x.any(0))
    networks = _Networks(prior.of(used), x[:, used], y - x @ prior.mean, x @ prior.mean, known)
    draws, some, start = prior.draws(), len(x) if thorough else min(FIRST, len(x)), None
    while True:
        part = networks.part(some)
        found = part.evidence(draws, start)
        if some == len(x):
            break
        low, high = _box(draws.points, _softmax(found.total))
        some = min(GROWTH * some, len(x))
        draws = prior.draws(low, high, max(LEAST, int(DRAWS * (FIRST / some) ** 2)))
        start = networks.part(some).evidence(prior.draws(low, high, 1)).errors
    weight = _softmax(found.total)
    heavy = weight > NEGLIGIBLE
    return Mixture(
        scales=draws.scales[heavy],
        sigma=draws.sigma[heavy],
        weight=weight[heavy] / weight[heavy].sum(),
        residual=networks.residual,
        precision=found.inverse.matrix[heavy],
        outlying=found.outlying[heavy],
    )


def _softmax(logarithms: np.ndarray) -> np.ndarray:
    weight = np.exp(logarithms - logarithms.max(0))
    return np.asarray(weight / weight.sum(0))


def _box(points: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where draws had their weight; at least half as wide as they lay, because few draws show little of a width."""
    middle = weight @ points
    wide = np.maximum(BOX * np.sqrt(weight @ (points - middle) ** 2), np.ptp(points, axis=0) / 2)
    return np.maximum(middle - wide / 2, 0.0), np.minimum(middle + wide / 2, 1.0)


@dataclass(frozen=True)
class _Evidence:
    """Of every draw; see ``Mixture``.

    Attributes:
        total: ``[G]``, a bound on the log evidence.
        errors: ``[G, K]``, expected squares of the networks' noise.
        inverse: of the covariances of the networks' measurements.
        outlying: ``[G, K]``.
    """

    total: np.ndarray
    errors: np.ndarray
    inverse: Inverse
    outlying: np.ndarray


@dataclass(frozen=True)
class _Networks:
    """Measured networks ``x [K, J]``; ``residual``, ``size`` and ``known``, each ``[K]``, are what they took beyond
    their prior latencies, these, and the variances of the measurements."""

    prior: Prior
    x: np.ndarray
    residual: np.ndarray
    size: np.ndarray
    known: np.ndarray

    def part(self, count: int) -> _Networks:
        """Some of them, spread over all."""
        some = np.linspace(0, len(self.x) - 1, count).astype(int)
        return _Networks(self.prior, self.x[some], self.residual[some], self.size[some], self.known[some])

    def evidence(self, draws: Draws, errors: np.ndarray | None = None) -> _Evidence:
        """What they say of draws.

        A network's noise has variance ``noise / w`` with ``w ~ Gamma(NU/2, NU/2)``; ``q(w) = Gamma(a, b)``.

        Args:
            errors: about the squares of their noise, where similar draws told them.
        """
        a, b0 = (NU + 1) / 2, NU / 2
        noise = (draws.sigma[:, None] * self.size) ** 2 + self.known
        b = np.full(noise.shape, a) if errors is None else b0 + errors / (2 * noise)
        inverse = invert(self.prior.roots(self.x, draws.scales), noise * b / a)
        for _ in range(ROUNDS if errors is None else FEW_ROUNDS):
            spread = noise * b / a
            error = spread * inverse.times(self.residual)
            unsure = spread - spread**2 * inverse.diagonal
            squares = error**2 + np.maximum(unsure, 0.0)
            b = b0 + squares / (2 * noise)
            inverse = inverse.again(noise * b / a)
        mismatch = inverse.times(self.residual) @ self.residual
        # E[log w] = digamma(a) − log b, and a − b0 = 1/2 in the divergence of q(w) from its prior: digamma(a) cancels
        divergence = lgamma(b0) - lgamma(a) + b0 * np.log(b / b0) + a * (b0 - b) / b
        outlying = -0.5 * np.log(a) - divergence
        return _Evidence(-0.5 * (mismatch + inverse.logdet) + outlying.sum(1), squares, inverse, outlying)
