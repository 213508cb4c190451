import math

import numpy as np
import pytest

from device_agents.summary import median, percentile, relative_error, slow_rounds, summarise, undisturbed, used_rounds


@pytest.mark.parametrize("values", [[3.0], [2.0, 1.0], [5.0, 1.0, 9.0, 2.0, 2.0]])
def test_median_and_percentiles_agree_with_numpy(values):
    assert median(values) == np.median(values)
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share))


def test_relative_error_is_what_repeated_medians_scatter_by():
    rng = np.random.default_rng(0)
    samples = rng.normal(10.0, 0.5, (2000, 25))
    scatter = np.median(samples, axis=1).std() / 10.0
    assert np.mean([relative_error(list(sample)) for sample in samples]) == pytest.approx(scatter, rel=0.1)


def test_relative_error_of_too_few_rounds_is_infinite():
    assert math.isinf(relative_error([1.0, 1.0]))
    assert relative_error([1.0, 1.0, 1.0]) == 0


def test_slow_rounds_are_judged_by_the_best_stretch_not_by_one_lucky_round():
    levels = [1.0] * 6 + [1.3] * 3 + [1.0] * 3
    assert slow_rounds(levels, 0.12) == [6, 7, 8]
    assert slow_rounds([1.3] * 6 + [1.0] + [1.3] * 5, 0.12) == []
    assert slow_rounds([], 0.12) == []


def test_a_disturbance_that_comes_and_goes_marks_no_round():
    levels = [1.0, 1.4, 1.0, 1.0, 1.4, 1.0, 1.0, 1.4, 1.0, 1.0, 1.0, 1.4]
    assert slow_rounds(levels, 0.12) == []


def test_the_undisturbed_level_hardly_moves_while_a_neighbour_slows_half_of_all_visits():
    rng = np.random.default_rng(0)
    bests, medians, claimed = [], [], []
    for busy in np.tile([0.1, 0.5], 50):
        visits = rng.normal(1.0, 0.01, (60, 6)) * np.where(rng.random(60) < busy, 1.4, 1.0)[:, None]
        best, error = undisturbed(visits.tolist())
        bests.append(best)
        claimed.append(error)
        medians.append(np.median(np.median(visits, axis=1)))
    assert np.std(bests) < 0.005 < 0.05 < np.std(medians)
    assert np.mean(claimed) == pytest.approx(np.std(bests), rel=0.6)


def test_slow_rounds_count_where_there_are_not_enough_others():
    levels = [1.0] * 7 + [1.5] * 5
    assert used_rounds(levels, 0.12, 7) == (list(range(7)), False)
    assert used_rounds(levels, 0.12, 8) == (list(range(12)), True)


def test_slow_rounds_count_where_they_are_most_of_all_and_last():
    assert used_rounds([1.0] * 8 + [1.5] * 10, 0.12, 6) == (list(range(18)), True)
    assert used_rounds([1.5] * 10 + [1.0] * 8, 0.12, 6) == (list(range(10, 18)), False)


def test_summary_of_rounds():
    timings = [[1.0, 2.0, 9.0], [3.0, 2.0, 3.0], [100.0, 100.0, 100.0], [4.0, 4.0, 1.0]]
    found = summarise(timings, [0, 1, 3])
    used = [1.0, 2.0, 9.0, 3.0, 2.0, 3.0, 4.0, 4.0, 1.0]
    assert found["rounds"] == [2.0, 3.0, 4.0]
    assert (found["p50"], found["n"]) == (3.0, 9)
    assert found["best"] == pytest.approx(np.percentile([1.0, 2.0, 1.0], 10))
    assert found["p90"] == pytest.approx(np.percentile(used, 90))
    assert found["p99"] == pytest.approx(np.percentile(used, 99))
    assert found["cov"] == pytest.approx(np.std(used, ddof=1) / np.mean(used))
