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
from statistics import NormalDist

import numpy as np

from ofa_deploy.latency.mixture import NU, ROUNDS, Mixture, Prior, Term, weigh
from ofa_deploy.threads import one_thread


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
        mixture: of the draws of the scales, whose average it is.
        calibration: factor on the standard deviation.
    """

    mean: np.ndarray
    variance: np.ndarray
    factor: np.ndarray
    sign: np.ndarray
    noise: float
    left_out: np.ndarray
    mixture: Mixture
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


def fit(
    prior: Prior,
    x: np.ndarray,
    y: np.ndarray,
    se: np.ndarray | float = 0.0,
    columns: int | None = None,
    thorough: bool = False,
) -> Posterior:
    """Update a prior by networks ``x [K, J]`` with latencies ``y [K]`` and relative standard errors ``se``; K may be 0.

    A prior made from other devices should be brought to the device's units first (``Prior.scaled_to``).

    Args:
        columns: only the first ones are asked of the posterior.
        thorough: weigh every draw of the scales on all networks, however many there are.
    """
    with one_thread():
        mixture = weigh(prior, x, y, (se * y) ** 2 + np.zeros(len(y)), thorough)
        asked = slice(columns)
        return _average(prior.of(asked), x[:, asked], [term.rows @ x.T for term in prior.terms], mixture)


def _average(prior: Prior, x: np.ndarray, shared: Sequence[np.ndarray], mixture: Mixture) -> Posterior:
    """Mean and covariance of the mixture of the draws' posteriors.

    What the draws' posteriors do not share with the remainders' variance lies in the span of ``span``: the shared
    directions, and the remainders seen through the measured networks. ``scale [G, S]`` are a draw's prior variances of
    the former, and ``cross [S, K]`` are the covariances with the measured networks, per unit of scale.

    Args:
        shared: of every term, its rows' values for the measured networks; unused of remainders.
    """
    own, weight, networks = [term.rows.ndim == 1 for term in prior.terms], mixture.weight, len(x)
    span = np.vstack([x * term.rows if alone else term.rows for term, alone in zip(prior.terms, own, strict=True)])
    cross = np.vstack([np.eye(networks) if alone else rows for rows, alone in zip(shared, own, strict=True)])
    lengths = [networks if alone else len(term.rows) for term, alone in zip(prior.terms, own, strict=True)]
    scale, direct = np.repeat(mixture.scales**2, lengths, axis=1), ~np.repeat(own, lengths)
    # the basis of the span, and the span in it: whichever is the smaller, that of the columns or that of the span
    basis, within = (None, span.T) if len(span) >= span.shape[1] else np.linalg.qr(span.T)
    gain = (scale * (mixture.precision @ mixture.residual @ cross.T)) @ within.T
    mean = weight @ gain
    core = (within * ((weight @ scale) * direct)) @ within.T + ((gain - mean).T * weight) @ (gain - mean)
    for w, s, inverse in zip(weight, scale, mixture.precision, strict=True):
        seen = (within * s) @ cross
        core -= w * (seen @ inverse @ seen.T)
    variances = [term.rows for term, alone in zip(prior.terms, own, strict=True) if alone]
    factor, sign = _compact(core)
    squares = weight @ mixture.scales[:, own] ** 2
    return Posterior(
        mean=prior.mean + (mean if basis is None else basis @ mean),
        variance=squares @ np.array(variances) if variances else np.zeros(len(prior.mean)),
        factor=factor if basis is None else factor @ basis.T,
        sign=sign,
        noise=float(np.sqrt(weight @ mixture.sigma**2 * NU / (NU - 2))),
        left_out=mixture.standardised,
        mixture=mixture,
    )


def _compact(core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows ``factor`` and ``sign`` with ``core == factorᵀ diag(sign) factor``, as few as are needed."""
    value, vector = np.linalg.eigh(core)
    kept = np.abs(value) > 1e-9 * np.abs(value).max(initial=0.0)
    return (vector[:, kept] * np.sqrt(np.abs(value[kept]))).T, np.sign(value[kept])


def choose(prior: Prior, candidates: np.ndarray, count: int, measured: np.ndarray | None = None) -> list[int]:
    """Which of the networks ``candidates [N, J]`` to measure next, best first.

    Greedy: each choice takes most off the summed relative variance of all candidates, given the choices before it and
    the networks ``measured [K, J]``. Latencies are not needed; the scales are taken at the middle of their ranges.
    """
    x = candidates if measured is None else np.vstack([measured, candidates])
    x, known = x / (x @ prior.mean)[:, None], len(x) - len(candidates)
    covariance = prior.covariance(x, np.array([np.sqrt(term.low * term.high) for term in prior.terms]))
    noise, chosen = prior.noise[0] * prior.noise[1], list[int]()
    seen, of_seen = covariance[known:, :known], covariance[:known, :known] + noise * np.eye(known)
    covariance = covariance[known:, known:] - seen @ np.linalg.solve(of_seen, seen.T)
    for _ in range(count):
        gain = (covariance**2).sum(0) / (np.diag(covariance) + noise)
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        column = covariance[:, chosen[-1]]
        covariance = covariance - np.outer(column, column) / (column[chosen[-1]] + noise)
    return chosen


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
