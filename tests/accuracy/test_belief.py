"""What is believed of an accuracy: known intervals, and the two sources in all combinations."""

import numpy as np
import pytest

from ofa_deploy.accuracy.belief import Belief, Validation, belief_in, posterior
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.intervals import difference_error, level_error, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, "Two-sided confidence intervals for the single proportion", 1998
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_intervals_are_the_published_ones(right, n, low, high):
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_intervals_cover():
    rng, repeats = np.random.default_rng(0), 20000
    for n, rate in ((500, 0.96), (60, 0.9)):
        counts = rng.binomial(n, rate, repeats)
        covered = np.mean([low <= rate <= high for low, high in (wilson(count / n, n) for count in counts)])
        assert 0.93 < covered < 0.975


def test_the_interval_of_a_difference_is_the_published_one():
    low, high = 0.0524, 0.3339  # 56 of 70 less 48 of 80: Newcombe 1998, method 10
    assert difference_error((56 / 70, 48 / 80), (70, 80)) == pytest.approx(max(0.2 - low, high - 0.2), abs=1e-4)


def test_the_level_of_predictions_is_as_sure_as_the_images_behind_it():
    half, quarter, spread = 2000, 1000, 0.9 * 0.1
    bias = (spread / half + spread / quarter) ** 0.5
    assert level_error(bias, corrected=False) == pytest.approx((spread / half) ** 0.5)
    assert level_error(bias, corrected=True) == pytest.approx((spread / quarter) ** 0.5)


def test_without_images_everything_is_possible():
    assert wilson(0.5, 0) == (0.0, 1.0)


def test_nothing_is_believed_of_nothing():
    assert posterior(None, None) is None
    assert posterior(None, Validation(0.9, 0)) is None


def test_a_belief_alone_is_its_mean_and_error():
    assert posterior(Belief(0.9, 0.03, 0.04), None) == pytest.approx((0.9, 0.802, 0.998), abs=1e-4)
    assert posterior(Belief(0.99, 0.03), None).high == 1.0


def test_a_validation_alone_meets_a_weak_prior():
    assert posterior(None, Validation(0.9, 9)).mean == pytest.approx(8.6 / 10)
    assert posterior(None, Validation(0.0, 500)).mean == pytest.approx(0.5 / 501)
    assert posterior(None, Validation(1.0, 500)).low > 0.99


def test_both_are_weighed_by_their_errors():
    share = 0.9
    rate = (share * 500 + 1) / 502
    error = (rate * (1 - rate) / 500) ** 0.5  # that of 500 images: the belief counts as much
    equal = posterior(Belief(0.92, error), Validation(share, 500))
    assert equal.mean == pytest.approx(0.91)
    assert posterior(Belief(0.92, 1e-9), Validation(share, 500)).mean == pytest.approx(0.92)
    assert posterior(Belief(0.92, 10.0), Validation(share, 500)).mean == pytest.approx(share, abs=1e-6)
    assert posterior(Belief(1.0, 0.0), Validation(1.0, 500)).mean == 1.0


def test_the_interval_is_that_of_the_better_source_since_both_may_have_seen_the_same_images():
    share, n = 0.9, 500
    sure = posterior(Belief(share, 0.001, level=0.02), Validation(share, n))
    assert (sure.low, sure.high) == pytest.approx(wilson(share, n)), "its level is less sure than 500 images"
    other = posterior(Belief(share, 0.001, level=0.005), Validation(share, n))
    assert other.high - other.low == pytest.approx(2 * 1.96 * 0.0051, rel=0.01)


def test_the_mean_chooses_better_than_the_validation():
    """Nine networks within a point, 500 images each, a predictor that errs by 0.3 points."""
    rng, repeats = np.random.default_rng(1), 4000
    true = 0.95 + rng.normal(0, 0.004, (repeats, 9))
    predicted = true + rng.normal(0, 0.003, true.shape)
    seen = rng.binomial(500, true) / 500
    means = np.array(
        [
            [posterior(Belief(p, 0.003), Validation(s, 500)).mean for p, s in zip(*row, strict=True)]
            for row in zip(predicted, seen, strict=True)
        ]
    )
    rows = np.arange(repeats)
    regret = {
        name: float((true.max(1) - true[rows, score.argmax(1)]).mean())
        for name, score in (("belief", means), ("validation", seen))
    }
    assert regret["belief"] < 0.5 * regret["validation"]


def test_an_error_on_other_weights_is_no_error_on_these():
    error = PredictorError(rmse=0.01, bias_after_std=0.02, supernet="a")
    assert belief_in(0.9, error, "a") == Belief(0.9, 0.01, pytest.approx(0.02 / 3**0.5))
    corrected = error.model_copy(update={"bias_corrected": 0.03})
    assert belief_in(0.9, corrected, "a").level == pytest.approx(0.02 * (2 / 3) ** 0.5)
    assert belief_in(0.9, error, "b") is None
    assert belief_in(0.9, error, None) is None
    assert belief_in(0.9, PredictorError(what="a published predictor"), "a") is None
    assert belief_in(0.9, PredictorError(rmse=0.01, supernet="a"), "a") == Belief(0.9, 0.01, 0.0)
