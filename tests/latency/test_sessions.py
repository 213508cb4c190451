"""A device's speed is not the same every hour: what that does to predictions."""

from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.latency import LatencyModel, LatencyTable, Row, confidence_interval
from ofa_deploy.latency.model import Level
from tests.latency.test_latency import CODEC, a_device


def at_level(row: Row, busy: float, speed: float = 1.0, when: str = "") -> Row:
    """A row from an hour in which the device was slower by ``speed``, and its medians by ``busy`` more."""
    return replace(
        row, p50=row.p50 * busy * speed, p90=row.p90 * busy * speed * 1.1, best=row.p50 * speed, measured_at=when
    )


def a_table(busy: tuple[float, ...], speed: tuple[float, ...] = (1.0, 1.0, 1.0), seed: int = 0) -> LatencyTable:
    """A table whose networks were measured in as many sessions."""
    rows, networks = a_device(seed, 24)
    keys = list(networks)
    parts = np.array_split(keys, len(busy))
    found = {
        key: at_level(networks[key], busy[i], speed[i], f"2026-01-0{i + 1}")
        for i, part in enumerate(parts)
        for key in part
    }
    return LatencyTable("d", {}, rows, found)


def networks() -> list:
    return [CODEC.space.network(arch) for arch in CODEC.decode(CODEC.sample(40, np.random.default_rng(8)))]


def test_the_statistic_lies_above_the_undisturbed_latency_by_the_sessions_mean_level() -> None:
    quiet = LatencyModel(a_table((1.0, 1.0))).predict(networks())[0]
    busy = LatencyModel(a_table((1.1, 1.3))).predict(networks())[0]
    assert busy / quiet == pytest.approx(np.sqrt(1.1 * 1.3), rel=0.01)
    tail = LatencyModel(a_table((1.1, 1.3)), statistic="p90").predict(networks())[0]
    assert tail / busy == pytest.approx(1.1, rel=0.01)


def test_a_prediction_is_as_unsure_as_sessions_differ() -> None:
    def spread(busy: tuple[float, ...]) -> float:
        mean, std = LatencyModel(a_table(busy)).predict(networks())
        return float((std / mean).mean())

    assert spread((1.0, 1.0, 1.0)) < spread((1.05, 1.05, 1.05)) < spread((1.0, 1.05, 1.2)) < spread((1.0, 1.2, 1.6))


def test_one_session_in_which_the_device_was_slower_does_not_bend_the_blocks() -> None:
    steady, slower = LatencyModel(a_table((1.0,) * 3)), LatencyModel(a_table((1.0,) * 3, speed=(1.0, 1.0, 1.06)))
    ratio = slower.predict(networks())[0] / steady.predict(networks())[0]
    assert np.std(ratio) < 0.01
    assert 1.0 < ratio.mean() < 1.05
    assert slower.session_std > steady.session_std


def test_bounds_hold_over_sessions_that_were_not_seen() -> None:
    rng, covered = np.random.default_rng(3), []
    for seed in range(40):
        levels = tuple(rng.normal(1.1, 0.05, 4))
        table = a_table(levels[:3], seed=seed)
        model = LatencyModel(table)
        mean, std = model.predict_ops([row.ops for row in table.networks.values()])
        truth = np.array([row.best for row in table.networks.values()]) * levels[3]
        covered.append((truth <= mean + 1.645 * std).mean())
    assert 0.88 <= np.mean(covered) <= 1.0


def test_a_level_without_networks_is_that_of_the_rows_or_one() -> None:
    assert Level.of([], "p50") == Level(1.0, 0.0, 0.0)
    row = Row("a", ("a",), 1.1, 1.2, 1.3, 10, 0.1, 0.01, best=1.0, best_se=0.01)
    assert Level.of([row], "p50").factor == pytest.approx(1.1)


@pytest.mark.parametrize("statistic", ["p50", "p90", "p99"])
def test_the_interval_holds_another_measurement(statistic: str) -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(60):
        first, second = rng.lognormal(0, 0.05, (2, 40, 6)) * rng.lognormal(0, 0.1, (2, 40, 1))
        low, high = confidence_interval(first.tolist(), statistic, 0.0)
        shown = {
            "p50": np.median(np.median(second, 1)),
            "p90": np.quantile(second, 0.9),
            "p99": np.quantile(second, 0.99),
        }
        held.append(low <= shown[statistic] <= high)
    assert 0.7 <= np.mean(held) <= 1.0  # both measurements scatter, the interval knows of one
    wider = confidence_interval(first.tolist(), statistic, 0.1)
    assert wider[0] < low < high < wider[1]
