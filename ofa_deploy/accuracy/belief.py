"""What is known of a network's accuracy on images that nobody has looked at yet.

Two things are known of it. A predictor says what networks of its kind reach, and its error on held-out networks says
how far to trust that. A validation counts the right answers among n images, with a binomial error. A network that is
chosen for its validation alone is chosen for its luck as well: on 500 images, the results of two networks that
are both right for 95 % of all images differ by 1.4 points (one standard deviation).

Both are combined as Beta-binomial conjugacy does it (Gelman et al., Bayesian Data Analysis, 3rd ed., §2.4): a belief
with the deviation σ counts like p(1 − p)/σ² images that have been seen before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.intervals import Z95, level_error, wilson

SMALLEST = 1e-6  # a predictor's error that was measured as 0 still is one
JEFFREYS = (0.5, 1)  # right answers and images of the weak prior, where there is no belief


class Validation(NamedTuple):
    """A share of right answers among ``n`` images."""

    accuracy: float
    n: int


class Posterior(NamedTuple):
    """An accuracy's mean and its 95 % interval, fractions."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Belief:
    """What a predictor says of a network before anybody has evaluated it.

    Attributes:
        mean: the predicted accuracy.
        error: RMSE of such predictions, of held-out networks on the images that the predictor was fitted on.
        level: standard deviation of the error that all its predictions share on other images.
    """

    mean: float
    error: float
    level: float = 0.0

    @property
    def std(self) -> float:
        """How far the mean may be off on new images."""
        return float(np.hypot(self.error, self.level))


def belief_in(mean: float, error: PredictorError, weights: str | None) -> Belief | None:
    """A prediction with its error; None where the error is unknown, or was found on other weights.

    Args:
        error: the predictor's.
        weights: sha256 of the supernet whose network this is.
    """
    if not knows(error, weights):
        return None
    level = level_error(float(error.bias_after_std or 0.0), bool(error.bias_corrected))
    return Belief(float(mean), float(error.rmse or 0.0), level)


def knows(error: PredictorError, weights: str | None) -> bool:
    """Whether a predictor's error was measured on these weights."""
    return error.rmse is not None and weights is not None and error.supernet == weights


def posterior(belief: Belief | None, validation: Validation | None) -> Posterior | None:
    """The accuracy that is believed after a validation; None where nothing is known.

    The mean weighs the belief by its error alone: what shifts all predictions alike does not make one network better
    than another. The interval is as narrow as the better of the two sources allows, and no narrower: predictor and
    validation may have seen the same images, and then know the same of all others.
    """
    if validation is None or validation.n == 0:
        return None if belief is None else predicted(belief)
    share, n = validation
    spread = _binomial(share, n)
    if belief is None:
        right, seen = JEFFREYS
        mean = (right + share * n) / (seen + n)
        return Posterior(mean, *wilson(mean, n))
    before = spread / max(belief.error, SMALLEST) ** 2
    mean = (before * belief.mean + n * share) / (before + n)
    return Posterior(mean, *wilson(mean, max(n, spread / max(belief.std, SMALLEST) ** 2)))


def predicted(belief: Belief) -> Posterior:
    """A belief with its own interval, without any validation."""
    half = Z95 * belief.std
    return Posterior(belief.mean, max(belief.mean - half, 0.0), min(belief.mean + half, 1.0))


def _binomial(share: float, n: int) -> float:
    """Variance of one answer. Laplace's rule of succession keeps it from 0 where all answers were alike."""
    rate = (share * n + 1) / (n + 2)
    return rate * (1 - rate)
