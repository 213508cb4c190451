import numpy as np
import pytest
from scipy.stats import norm

from ofa_deploy.latency.inverses import Full, Thin
from ofa_deploy.latency.mixture import NU, Prior, Term
from ofa_deploy.latency.posterior import additive_fit, calibration, choose, device_prior, fit, similarity

POSITIONS, OPS = 8, 5
KINDS = np.arange(POSITIONS * OPS) % OPS
PLACES = np.arange(POSITIONS * OPS) // OPS
WORK = (1.0 + KINDS) * (1.0 + PLACES % 3)  # what a block has to compute
MOVED = 1.0 + PLACES  # and to move


def some_networks(count: int, seed: int) -> np.ndarray:
    """One op at every position."""
    picked = np.random.default_rng(seed).integers(0, OPS, (count, POSITIONS))
    return np.eye(OPS)[picked].reshape(count, -1)


def a_device(seed: int, odd: float = 0.05) -> np.ndarray:
    """Block costs: a device's own mix of computing, moving and launching, and every block's own oddity."""
    rng = np.random.default_rng(seed)
    mix = rng.dirichlet((1.0, 1.0, 1.0))
    cost = mix[0] * WORK / WORK.mean() + mix[1] * MOVED / MOVED.mean() + mix[2]
    return cost / POSITIONS * rng.lognormal(0, odd, len(cost))


def other_devices() -> Prior:
    return device_prior(np.stack([a_device(seed) for seed in range(1, 9)]))


def a_fixed_prior() -> Prior:
    """Every scale is known: the posterior is the textbook's."""
    mean = a_device(0)
    terms = (Term(mean[None], 0.3, 0.3), Term(np.stack([MOVED, WORK]) / 20, 0.5, 0.5), Term(mean**2, 0.1, 0.1))
    return Prior(mean, terms, (0.02, 0.02))


def test_without_networks_it_is_the_prior() -> None:
    prior, x = a_fixed_prior(), some_networks(20, 1)
    mean, std = fit(prior, np.empty((0, len(prior.mean))), np.empty(0)).predict(x)
    variance = np.diag(prior.covariance(x, np.array([0.3, 0.5, 0.1]))) + NU / (NU - 2) * (0.02 * mean) ** 2
    assert mean == pytest.approx(x @ prior.mean)
    assert std == pytest.approx(np.sqrt(variance))


def test_closed_form_equals_dense_regression() -> None:
    """With known scales and measured standard errors that dwarf the noise, weights do not matter."""
    prior, x, new = a_fixed_prior(), some_networks(12, 2), some_networks(30, 3)
    prior = Prior(prior.mean, prior.terms, (1e-6, 1e-6))
    y = x @ a_device(7)
    covariance = sum(
        s**2 * (np.diag(t.rows) if t.rows.ndim == 1 else t.rows.T @ t.rows)
        for s, t in zip((0.3, 0.5, 0.1), prior.terms, strict=True)
    )
    weight = np.ones(len(y))
    got = fit(prior, x, y, se=1e-9)
    for _ in range(50):  # the textbook's posterior and the noise's weights in turn
        noise = (1e-6 * (x @ prior.mean)) ** 2 + (1e-9 * y) ** 2
        gain = covariance @ x.T @ np.linalg.inv(x @ covariance @ x.T + np.diag(noise / weight))
        mean, left = prior.mean + gain @ (y - x @ prior.mean), covariance - gain @ x @ covariance
        weight = (NU + 1) / (NU + ((y - x @ mean) ** 2 + np.einsum("ij,jk,ik->i", x, left, x)) / noise)
    expected = new @ mean, np.sqrt(np.einsum("ij,jk,ik->i", new, left, new))
    got_mean, got_std = got.predict(new)
    assert got_mean == pytest.approx(expected[0], rel=1e-4)
    assert got_std == pytest.approx(expected[1], rel=1e-3)


def test_the_average_over_draws_is_the_mixture() -> None:
    """Mean and variance of many priors' posteriors, against fits with each draw's scales alone."""
    mean = a_device(0)
    open_prior = Prior(mean, (Term(mean[None], 0.1, 0.5), Term(mean**2, 0.01, 0.2)), (0.01, 0.05))
    x = np.empty((0, len(mean)))
    draws = open_prior.draws()
    new = some_networks(5, 4)
    variance = [
        np.diag(open_prior.covariance(new, s)) + NU / (NU - 2) * (n * (new @ mean)) ** 2
        for s, n in zip(draws.scales, draws.sigma, strict=True)
    ]
    assert fit(open_prior, x, np.empty(0)).predict(new)[1] == pytest.approx(np.sqrt(np.mean(variance, axis=0)))


def test_few_networks_of_a_new_device_and_a_bound_that_covers() -> None:
    before, after, covered = [], [], []
    for seed in range(20, 26):
        device, pool, tested = a_device(seed), some_networks(300, seed), some_networks(400, seed + 100)
        rng = np.random.default_rng(seed)
        prior = other_devices()
        x = pool[choose(prior, pool, 15)]
        y = x @ device * 3.0 * rng.lognormal(0, 0.01, 15)
        prior = prior.scaled_to(x, y)
        mean, std = fit(prior, x, y).predict(tested)
        measured = tested @ device * 3.0 * rng.lognormal(0, 0.01, 400)
        covered.append((measured <= mean + norm.ppf(0.95) * std).mean())
        before.append(np.abs(tested @ prior.mean / measured - 1).mean())
        after.append(np.abs(mean / measured - 1).mean())
    assert np.mean(after) < 0.6 * np.mean(before)
    assert np.mean(after) < 0.02
    assert 0.9 < np.mean(covered) < 0.999


def test_slow_outliers_do_not_move_it() -> None:
    device, prior, x, new = a_device(30), other_devices(), some_networks(20, 5), some_networks(200, 6)
    y = x @ device * np.random.default_rng(0).lognormal(0, 0.005, 20)
    spoiled = y.copy()
    spoiled[[3, 11]] *= 1.6
    clean, hit = (np.abs(fit(prior, x, some).predict(new)[0] / (new @ device) - 1).mean() for some in (y, spoiled))
    assert hit < clean + 0.01


def test_chosen_networks_say_more_than_random_ones() -> None:
    prior, pool = other_devices(), some_networks(300, 7)
    active, random = [], []
    for seed in range(20, 28):
        y = pool @ a_device(seed, odd=0.02)
        for rows, errors in ((choose(prior, pool, 4), active), (list(range(4 * seed, 4 * seed + 4)), random)):
            posterior = fit(prior.scaled_to(pool[rows], y[rows]), pool[rows], y[rows])
            errors.append(np.abs(posterior.predict(pool)[0] / y - 1).mean())
    assert np.mean(active) < np.mean(random)


def test_choice_goes_on_from_what_was_measured() -> None:
    prior, pool = other_devices(), some_networks(100, 8)
    first = choose(prior, pool, 6)
    assert len(set(first)) == 6
    rest = np.delete(np.arange(100), first[:3])
    assert [int(rest[i]) for i in choose(prior, pool[rest], 1, measured=pool[first[:3]])] != first[:1]
    assert choose(prior, pool, 3) == first[:3]


def test_no_more_directions_than_evidence() -> None:
    prior, x = a_fixed_prior(), some_networks(10, 9)
    posterior = fit(prior, x, x @ a_device(3))
    assert len(posterior.factor) <= 10 + 3, "of measurements and shared terms"


def test_left_out_errors_see_a_bad_network() -> None:
    prior, x = a_fixed_prior(), some_networks(10, 12)
    y = x @ a_device(0)
    y[4] *= 1.5
    assert np.argmax(np.abs(fit(prior, x, y).left_out)) == 4


def test_leaving_a_network_out_equals_a_fit_without_it() -> None:
    """Exactly, where the scales are known and standard errors dwarf what the weights as outliers do."""
    prior, x = a_fixed_prior(), some_networks(12, 2)
    prior = Prior(prior.mean, prior.terms, (1e-6, 1e-6))
    y = x @ a_device(7)
    mixture = fit(prior, x, y, se=0.02).mixture
    got = mixture.left_out(prior.roots(x, mixture.scales))
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        mean, std = fit(prior, x[rest], y[rest], se=0.02).predict(x[[i]])
        assert x[i] @ prior.mean + got.mean[i] == pytest.approx(mean[0], rel=0.005)
        assert np.hypot(np.sqrt(got.variance[i]), got.noise[i] * mean[0]) == pytest.approx(std[0], rel=0.05)


@pytest.mark.parametrize("networks", [20, 150])
def test_many_networks_are_weighed_like_few(networks: int) -> None:
    """On some of the networks first: what that saves must not show in predictions."""
    prior, x, new = other_devices(), some_networks(networks, 5), some_networks(200, 6)
    y = x @ a_device(30) * np.random.default_rng(0).lognormal(0, 0.01, networks)
    (mean, std), (expected_mean, expected_std) = (
        fit(prior, x, y, thorough=thorough).predict(new) for thorough in (False, True)
    )
    assert (np.abs(mean - expected_mean) < 0.3 * expected_std).all()
    assert std == pytest.approx(expected_std, rel=0.15)
    if networks == 20:
        assert (mean == expected_mean).all()


def test_only_the_asked_columns() -> None:
    prior, x, new = other_devices(), some_networks(20, 5), some_networks(30, 6)
    y = x @ a_device(30)
    whole, part = fit(prior, x, y), fit(prior, x, y, columns=15)
    new[:, 15:] = 0
    assert len(part.mean) == 15
    for got, expected in zip(part.predict(new[:, :15]), whole.predict(new), strict=True):
        assert got == pytest.approx(expected)


def test_both_inverses_are_the_inverse() -> None:
    rng = np.random.default_rng(0)
    root, added, vector = rng.normal(size=(3, 20, 4)), rng.uniform(0.1, 1, (3, 20)), rng.normal(size=20)
    covariance = root @ root.transpose(0, 2, 1) + added[:, :, None] * np.eye(20)
    for made in (Full(root, added), Thin(root, added), Full(root, 2 * added).again(added)):
        assert made.matrix == pytest.approx(np.linalg.inv(covariance))
        assert made.diagonal == pytest.approx(np.einsum("gkk->gk", np.linalg.inv(covariance)))
        assert made.times(vector) == pytest.approx(np.linalg.inv(covariance) @ vector)
        assert made.logdet == pytest.approx(np.linalg.slogdet(covariance)[1])


def test_similar_blocks_learn_from_each_other() -> None:
    features = np.array([[0.0], [0.1], [3.0]])
    rows = similarity(features, np.ones(3))
    covariance = rows.T @ rows
    assert covariance[0, 1] == pytest.approx(np.exp(-0.005), abs=0.01)
    assert abs(covariance[0, 2]) < 0.05
    prior = Prior(np.ones(3), (Term(rows, 0.3, 0.3),), (0.01, 0.01))
    mean = fit(prior, np.array([[1.0, 0.0, 0.0]]), np.array([1.4])).mean
    assert mean[1] > 1.3
    assert mean[2] == pytest.approx(1.0, abs=0.05)


def test_additive_fit_finds_a_device_through_outliers() -> None:
    device, x = a_device(2), some_networks(800, 13)
    y = 7.0 * (x @ device)
    y[::20] *= 1.5
    assert x @ additive_fit(x, y) == pytest.approx(7.0 * (x @ device), rel=0.01)


def test_calibration_by_hand() -> None:
    normal = norm.ppf((np.arange(2000) + 0.5) / 2000)
    assert calibration([normal]) == pytest.approx(1.0, abs=0.01)
    assert calibration([3 * normal]) == pytest.approx(3.0, abs=0.02)
    assert calibration([0.1 * normal]) == 1.0, "never narrower than the posterior"
    assert calibration([]) == 1.0
    mixed = calibration([normal, 3 * normal[::10]])
    covered = np.mean([norm.cdf(norm.ppf(0.95) * mixed / spread) for spread in (1, 3)])
    assert covered == pytest.approx(0.95, abs=0.005), "devices count alike, however many networks were tested"
