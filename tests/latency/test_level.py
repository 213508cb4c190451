"""How fast a device is now: the curve through an anchor's ratios, and what is said of it."""

import json

import numpy as np
import pytest

from ofa_deploy.fleet.device_facts import DeviceFacts
from ofa_deploy.latency.level import BEYOND, Curve, LevelNow, curve_through, without_each

RNG = np.random.default_rng(0)
MS = np.geomspace(0.03, 15, 7)


def waits(ms):
    """Beside busy neighbours: who outlives a slice waits for a core, and who does not hardly notices."""
    return 1.05 + 2.5 / (1 + np.exp(-(np.log(ms) - np.log(1.0)) / 0.35))


@pytest.mark.parametrize("of", [lambda ms: 1.0 + 0 * ms, lambda ms: 1.4 + 0 * ms, lambda ms: 0.6 + 0 * ms, waits])
@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_the_curve_is_found_with_its_uncertainty(of, noise):
    inside = []
    for _ in range(20):
        curve = curve_through(MS, of(MS) * np.exp(noise * RNG.standard_normal(7)), [noise] * 7)
        factor, unsure = curve.at(MS)
        assert factor == pytest.approx(of(MS), rel=5 * noise)
        inside.append(np.abs(np.log(factor / of(MS))) < 1.96 * unsure)
    assert np.mean(inside) > 0.8


def test_beyond_its_networks_it_is_level_and_less_sure():
    curve = curve_through(MS, waits(MS), [0.005] * 7)
    (near, far), (sure, unsure) = curve.at([MS[-1], 1000 * MS[-1]])
    assert far == pytest.approx(near, rel=0.1)
    assert unsure >= sure
    assert curve.ms[-1] == pytest.approx(MS[-1] * np.exp(BEYOND))


def test_noise_around_the_curve_is_told():
    many = np.geomspace(0.03, 15, 40)
    curve = curve_through(many, 1.2 * np.exp(0.1 * RNG.standard_normal(40)), [0.002] * 40)
    assert curve.noise == pytest.approx(0.1, rel=0.35)
    assert curve.at([1.0])[0] == pytest.approx(1.2, rel=0.06)


def test_a_measurement_is_expected_to_be_off_by_its_own_error_too():
    many, inside = np.geomspace(1, 5, 30), []
    for _ in range(20):
        ratios = 2.0 * np.exp(0.08 * RNG.standard_normal(30))
        curve = curve_through(many, ratios, np.full(30, 0.08))
        factor, unsure = curve.at(many)
        another = 2.0 * np.exp(0.08 * RNG.standard_normal(30))
        inside.append(another <= factor * (1 + 1.645 * np.hypot(unsure, curve.noise)))
    assert 0.9 < np.mean(inside) < 0.99


def test_items_that_were_lucky_do_not_draw_the_curve_down():
    """Of skewed rounds, an item whose sample has no slow round has a low ratio and a small error of its own."""
    many, found = np.geomspace(1, 5, 42), []
    for _ in range(20):
        rounds = np.where(RNG.random((42, 9)) < 0.3, 2.0, 1.0) * np.exp(0.02 * RNG.standard_normal((42, 9)))
        ratios, errors = rounds.mean(1), rounds.std(1) / rounds.mean(1) / 3
        found.append(np.log(curve_through(many, ratios, errors).at(many)[0] / np.exp(np.log(ratios).mean())).mean())
    assert abs(np.mean(found)) < 0.005


def test_a_network_takes_no_part_in_the_level_that_it_is_judged_at():
    ratios = np.full(7, 1.1)
    ratios[3] = 3.0
    curves = without_each(MS, ratios, [0.01] * 7)
    assert curves[3].at([MS[3]])[0] == pytest.approx(1.1, rel=0.02)
    assert len(curves) == 7


def test_a_curve_survives_json():
    curve = curve_through(MS, waits(MS), [0.005] * 7)
    read = Curve.from_json(json.loads(json.dumps(curve.to_json())))
    assert read.at(MS)[0].tolist() == curve.at(MS)[0].tolist()


def level(repeats=0.01):
    now, then = curve_through(MS, waits(MS), [0.005] * 7), curve_through(MS, 1.05 + 0 * MS, [0.005] * 7)
    return LevelNow(now, then, tuple(MS), repeats, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", ("load 4.2",))


def test_a_report_tells_how_much_slower_at_the_latency_in_question():
    told = level().told(float(MS[0]))
    assert told.factor == pytest.approx(1.0, rel=0.03)
    assert level().told(float(MS[-1])).factor == pytest.approx(3.55 / 1.05, rel=0.03)
    assert told.low < told.factor < told.high
    assert [ms for ms, _ in told.curve] == pytest.approx(MS.tolist(), rel=1e-4)
    assert told.reasons == ["load 4.2"]
    assert not told.disturbed
    assert json.loads(json.dumps(told.to_json()))["curve"] == told.curve
    assert level(repeats=0.2).told(1.0).disturbed


def test_a_forecast_carries_how_much_the_level_moves():
    wide = level().widened(0.2)
    assert wide.factor(1.0)[0] == level().factor(1.0)[0]
    assert wide.factor(1.0)[2] > level().factor(1.0)[2] * 1.3


def test_what_a_device_says_of_itself_in_words():
    said = DeviceFacts.read(
        {
            "load": [1.0, 4.25],
            "cores": 2,
            "cores_busy_pct": 97.6,
            "steal_pct": 12.0,
            "cpu_mhz": [2400.0, 1200.0],
            "cpu_mhz_max": 2400.0,
            "temperature_c": [60.0, 91.0],
        }
    ).reasons
    assert said == [
        "load 4.2 on 2 cores",
        "cores 98 % busy",
        "12 % of the cores' time went to other guests of the host",
        "clock 1200 of 2400 MHz",
        "91 °C",
    ]
    assert DeviceFacts.read({}).reasons == []
    assert DeviceFacts.read({"load": None, "temperature_c": "hot", "cores_busy_pct": 10.0}).reasons == []
