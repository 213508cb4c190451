"""Bayesian additive regression: what a few whole networks say about the cost of every block.

A row ``x`` of a design matrix holds what a network is made of (counts of its blocks, or other features), and its
latency is ``y = x·β + noise``. A prior says how β varies from device to device

    β = mean + Σ_g s_g · basis_gᵀ z_g + Σ_d s_d · √variance_d ∘ z_d,     z ~ N(0, 1),

with basis rows that all blocks share (a common factor, other devices, similar ops) and remainders of every block's own.
The scales ``s`` and the noise are not known: a few hundred low-discrepancy draws from their ranges are weighted by
their evidence and averaged (Rasmussen & Williams, GPML, §5.2). Noise is Student-t, a scale mixture of normals fitted by
mean-field variational Bayes (Tipping & Lawrence, Neurocomputing 69, 2005), because measured latencies have outliers
that are slow, never fast. Given scales and noise everything is the textbook's closed form (Bishop, PRML, §3.3).

The average over draws is kept by its exact mean and covariance, as terms that add up over a network's blocks:

    mean(x) = x·mean,     var(x) = x²·variance + Σ_r sign_r (x·factor_r)² + (noise · mean(x))²

so one sparse product with ``[J, 2 + R]`` columns predicts any number of networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lgamma
from statistics import NormalDist

import numpy as np

NU = 4.0  # degrees of freedom of the noise
ROUNDS = 6  # of reweighting; more changed no prediction beyond its noise
LOG2_DRAWS = 8


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

    def of(self, columns: np.ndarray) -> Prior:
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

    def draws(self) -> tuple[np.ndarray, np.ndarray]:
        """Scales ``[G, terms]`` and noise ``[G]``, spread evenly over their ranges."""
        low, high = np.log([*((term.low, term.high) for term in self.terms), self.noise]).T
        drawn = np.exp(low + (high - low) * _spread(2**LOG2_DRAWS, len(low)))
        return drawn[:, :-1], drawn[:, -1]


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
class Posterior:
    """What is believed about β once networks were measured.

    Attributes:
        mean: ``[J]``, every column's contribution per unit.
        variance: ``[J]``, of every column's own remainder; enters with the square of the count.
        factor: ``[R, J]``, what columns share; ``sign`` says which rows add variance and which take it away.
        sign: ``[R]`` of ±1.
        noise: standard deviation of a measurement around the sum, as a fraction of it.
        left_out: ``[K]`` standardised error of every measured network as predicted from the others.
        calibration: factor on the standard deviation.
    """

    mean: np.ndarray
    variance: np.ndarray
    factor: np.ndarray
    sign: np.ndarray
    noise: float
    left_out: np.ndarray
    calibration: float = 1.0

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``[N]`` of what a measurement of the networks ``x [N, J]`` would show."""
        mean, squares = x @ self.mean, x**2
        variance = squares @ self.variance + (x @ self.factor.T) ** 2 @ self.sign + (self.noise * mean) ** 2
        return mean, self.calibration * np.sqrt(np.maximum(variance, 0.0))

    def of(self, columns: np.ndarray) -> Posterior:
        """The posterior of some of the columns."""
        factor = self.factor[:, columns]
        return replace(self, mean=self.mean[columns], variance=self.variance[columns], factor=factor)

    def at_level(self, factor: float, unsure: float, noise: float) -> Posterior:
        """The same networks on a device that is slower by a common factor.

        Args:
            factor: of all latencies.
            unsure: relative standard deviation of the factor.
            noise: relative standard deviation of a measurement on top of the one there is.
        """
        mean = factor * self.mean
        return replace(
            self,
            mean=mean,
            variance=factor**2 * self.variance,
            factor=np.vstack([factor * self.factor, unsure * mean[None]]),
            sign=np.append(self.sign, 1.0),
            noise=float(np.hypot(self.noise, noise)),
        )


def design(keys: Sequence[str], networks: Sequence[Sequence[str]]) -> np.ndarray:
    """How often each network, given as the keys of its blocks, has each of the blocks ``keys``: ``[N, J]``."""
    place, counts = {key: j for j, key in enumerate(keys)}, np.zeros((len(networks), len(keys)))
    for row, network in zip(counts, networks, strict=True):
        for key in network:
            row[place[key]] += 1
    return counts


def fit(prior: Prior, x: np.ndarray, y: np.ndarray, se: np.ndarray | float = 0.0) -> Posterior:
    """Update a prior by networks ``x [K, J]`` with latencies ``y [K]`` and relative standard errors ``se``; K may be 0.

    A prior made from other devices should be brought to the device's units first (``Prior.scaled_to``).
    """
    scales, sigma = prior.draws()
    size = x @ prior.mean
    covariance = np.einsum("gt,tij->gij", scales**2, np.stack([_gram(term, x) for term in prior.terms]))
    noise = (sigma[:, None] * size) ** 2 + (se * y) ** 2
    evidence, precision = _evidence(covariance, y - size, noise)
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    kept = weight > 1e-6
    return _average(prior, x, y - size, scales[kept], sigma[kept], precision[kept], weight[kept] / weight[kept].sum())


def _evidence(covariance: np.ndarray, residual: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bound on the log evidence ``[G]`` and precision ``[G, K, K]`` of the measured networks, for every draw.

    A network's noise has variance ``noise / w`` with ``w ~ Gamma(NU/2, NU/2)``; ``q(w) = Gamma(a, b)``.
    """
    a, b0 = (NU + 1) / 2, NU / 2
    b = np.full(noise.shape, a)
    for _ in range(ROUNDS):
        spread = noise * b / a
        precision = np.linalg.inv(covariance + _diagonal(spread))
        error = spread * (precision @ residual)
        unsure = spread - spread**2 * np.einsum("gkk->gk", precision)
        b = b0 + (error**2 + np.maximum(unsure, 0.0)) / (2 * noise)
    total = covariance + _diagonal(noise * b / a)
    _, logdet = np.linalg.slogdet(total)
    precision = np.linalg.inv(total)
    mismatch = np.einsum("i,gij,j->g", residual, precision, residual)
    # E[log w] = digamma(a) − log b, and a − b0 = 1/2 in the divergence of q(w) from its prior: digamma(a) cancels
    divergence = lgamma(b0) - lgamma(a) + b0 * np.log(b / b0) + a * (b0 - b) / b
    weights = -0.5 * np.log(a) - divergence
    return -0.5 * (mismatch + logdet) + weights.sum(1), precision


def _diagonal(values: np.ndarray) -> np.ndarray:
    return values[:, :, None] * np.eye(values.shape[1])


def _average(
    prior: Prior,
    x: np.ndarray,
    residual: np.ndarray,
    scales: np.ndarray,
    sigma: np.ndarray,
    precision: np.ndarray,
    weight: np.ndarray,
) -> Posterior:
    """Mean and covariance of the mixture of the draws' posteriors.

    What the draws' posteriors do not share with the remainders' variance lies in the span of ``span``: the shared
    directions, and the remainders seen through the measured networks. ``scale [G, S]`` are a draw's prior variances of
    the former, and ``cross [S, K]`` are the covariances with the measured networks, per unit of scale.
    """
    own = [term.rows.ndim == 1 for term in prior.terms]
    span = np.vstack([x * term.rows if alone else term.rows for term, alone in zip(prior.terms, own, strict=True)])
    cross = np.vstack(
        [np.eye(len(x)) if alone else term.rows @ x.T for term, alone in zip(prior.terms, own, strict=True)]
    )
    lengths = [len(x) if alone else len(term.rows) for term, alone in zip(prior.terms, own, strict=True)]
    scale, shared = np.repeat(scales**2, lengths, axis=1), ~np.repeat(own, lengths)
    gain = scale * (precision @ residual @ cross.T)
    mean = weight @ gain
    core = np.diag((weight @ scale) * shared) + np.einsum("g,gs,gt->st", weight, gain - mean, gain - mean)
    for w, s, inverse in zip(weight, scale, precision, strict=True):
        seen = s[:, None] * cross
        core -= w * (seen @ inverse @ seen.T)
    variances = [term.rows for term, alone in zip(prior.terms, own, strict=True) if alone]
    factor, sign = _compact(span, core)
    return Posterior(
        mean=prior.mean + mean @ span,
        variance=(weight @ scales[:, own] ** 2) @ np.array(variances) if variances else np.zeros(len(prior.mean)),
        factor=factor,
        sign=sign,
        noise=float(np.sqrt(weight @ sigma**2 * NU / (NU - 2))),
        left_out=weight @ ((precision @ residual) / np.sqrt(np.einsum("gkk->gk", precision))),
    )


def _compact(span: np.ndarray, core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``factor`` and ``sign`` with ``spanᵀ core span == factorᵀ diag(sign) factor``, as few as are needed."""
    basis, triangle = np.linalg.qr(span.T)
    value, vector = np.linalg.eigh(triangle @ core @ triangle.T)
    kept = np.abs(value) > 1e-9 * np.abs(value).max(initial=0.0)
    return (basis @ vector[:, kept] * np.sqrt(np.abs(value[kept]))).T, np.sign(value[kept])


def choose(prior: Prior, candidates: np.ndarray, count: int, measured: np.ndarray | None = None) -> list[int]:
    """Which of the networks ``candidates [N, J]`` to measure next, best first.

    Greedy: each choice takes most off the summed relative variance of all candidates, given the choices before it and
    the networks ``measured [K, J]``. Latencies are not needed; the scales are taken at the middle of their ranges.
    """
    x = candidates if measured is None else np.vstack([measured, candidates])
    x, known = x / (x @ prior.mean)[:, None], len(x) - len(candidates)
    covariance = prior.covariance(x, np.array([np.sqrt(term.low * term.high) for term in prior.terms]))
    noise, chosen = prior.noise[0] * prior.noise[1], list(range(known))
    for step in range(known + count):
        if step >= known:
            gain = (covariance[known:] ** 2).sum(0) / (np.diag(covariance) + noise)
            gain[chosen] = -np.inf
            chosen.append(int(np.argmax(gain)))
        column = covariance[:, chosen[step]]
        covariance = covariance - np.outer(column, column) / (column[chosen[step]] + noise)
    return [i - known for i in chosen[known:]]


def additive_fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients ``[J]`` of a device with many measured networks ``x [N, J]``, ``y [N]``: least squares, Student-t.

    A trace of ridge decides what the design leaves open.
    """
    weight, ridge = np.ones(len(y)), 1e-4 * np.eye(x.shape[1])
    level = float(np.median(y))
    for _ in range(ROUNDS):
        weighted = (x * weight[:, None]).T
        beta = np.linalg.solve(weighted @ x + ridge, weighted @ (y / level))
        error = (y / level - x @ beta) ** 2
        weight = (NU + 1) / (NU + error / max(float((weight * error).mean()), 1e-12))
    return beta * level


def similarity(features: np.ndarray, size: np.ndarray, length: float = 1.0) -> np.ndarray:
    """Directions ``[R, J]`` along which columns with near ``features [J, F]`` vary together, in proportion to ``size``.

    They span a squared-exponential covariance of the given length scale, up to a thousandth of its variance.
    """
    distance = ((features[:, None] - features) ** 2).sum(-1)
    value, vector = np.linalg.eigh(np.exp(-distance / (2 * length**2)) * np.outer(size, size))
    order = np.argsort(value)[::-1]
    kept = order[np.cumsum(value[order]) < (1 - 1e-3) * value.sum()]
    return (vector[:, kept] * np.sqrt(value[kept])).T


def device_prior(
    devices: np.ndarray,
    weights: np.ndarray | None = None,
    analytic: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> Prior:
    """The prior for a new device from the coefficients of others.

    Args:
        devices: ``[D, J]``, every device in units in which a typical network takes 1.
        weights: ``[D]`` of the devices; a chip that was measured in several ways should not count more than another.
        analytic: ``[A, J]`` made-up devices (only MACs count, only memory traffic, …) in the same units.
        features: ``[J, F]`` where near columns are similar blocks; a column with NaN is similar to none.

    Returns:
        a prior in those units; bring it to the device's by ``Prior.scaled_to``.
    """
    share = np.full(len(devices), 1 / len(devices)) if weights is None else weights / weights.sum()
    mean, size = share @ devices, share @ np.abs(devices)
    terms = [
        Term(mean[None], 0.3, 0.3),
        Term((devices - mean) * np.sqrt(share)[:, None], 0.1, 2.0),
        Term(size**2, 0.01, 0.3),
    ]
    if analytic is not None:
        terms.append(Term(analytic, 0.01, 0.5))
    if features is not None:
        alike = ~np.isnan(features).any(1)
        rows = similarity(np.where(alike[:, None], features, 0.0), size * alike)
        terms.append(Term(rows, 0.01, 1.0))
    return Prior(mean, tuple(terms))


def calibration(errors: Sequence[np.ndarray], coverage: float = 0.95) -> float:
    """The factor on the standard deviation with which the one-sided bound covers what it claims; at least 1.

    Args:
        errors: for every left-out device, or experiment, (measured − mean) / std of networks that were not fitted.
        coverage: the share that must lie under the bound, averaged over the devices with equal weight.
    """
    pooled = np.concatenate([np.empty(0), *errors])
    if not len(pooled):
        return 1.0
    share = np.concatenate([np.full(len(error), 1 / len(error)) for error in errors])
    order = np.argsort(pooled)
    covered = np.cumsum(share[order]) / share.sum()
    return max(1.0, float(pooled[order][np.searchsorted(covered, coverage)] / NormalDist().inv_cdf(coverage)))
