"""The page that compares search strategies."""

from xml.dom import minidom

import numpy as np

from ofa_deploy.documents.strategies_document import StrategiesFound
from ofa_deploy.report.strategies import render_strategies, strategies_svg
from ofa_deploy.search import Constraints, Problem, compare
from ofa_deploy.space import PopulationCodec, load_space


def compared(seeds=3):
    codec = PopulationCodec(load_space("tiny_16"))

    def latency(population):
        return codec.macs(population) / 1e6, np.zeros(len(population))

    problem = Problem(codec, lambda p: codec.params(p) / 1e6, latency, Constraints(max_ms=1.0))
    found = compare(problem, ["random", "evolution"], range(seeds), evaluations=200)
    return {
        "space": codec.space.name,
        "target": "<local>",
        "simulated": False,
        "seeds": seeds,
        "at": "evaluations",
        "predicted": True,
        "predictor_error": {"rmse": 0.01},
        "strategies": [one.to_json() for one in found],
    }


def test_the_page_says_who_beats_random():
    found = compared()
    page = render_strategies(StrategiesFound.read(found))
    assert "&lt;local&gt;" in page
    assert "<local>" not in page
    gain = found["strategies"][1]["gain"]
    assert f">{'yes' if gain['low'] > 0 else 'no'}<" in page
    assert page.count("<svg") >= 2


def test_the_picture_alone_has_a_curve_and_a_band_for_each():
    picture = minidom.parseString(strategies_svg(StrategiesFound.read(compared())))
    assert len(picture.getElementsByTagName("polyline")) == 2
    assert len(picture.getElementsByTagName("polygon")) == 2


def test_one_seed_and_no_latencies_are_drawn_too():
    found = compared(seeds=1)
    for one in found["strategies"]:
        one["hypervolume"] = None
    assert "Hypervolume of the front" not in render_strategies(StrategiesFound.read(found))


def test_every_accuracy_has_the_predictors_error_and_the_spread_over_seeds():
    found = compared()
    best = found["strategies"][0]["best"]
    page = render_strategies(StrategiesFound.read(found))
    assert f"{100 * best['mean']:.1f} % ±2.0" in page
    assert f"{100 * best['mean']:.2f} % ({100 * best['low']:.2f} to {100 * best['high']:.2f})" in page


def test_a_score_is_not_called_an_accuracy():
    page = render_strategies(StrategiesFound.read(compared() | {"predicted": False, "predictor_error": None}))
    assert "No accuracy is known" in page
    assert "predicted accuracy" not in page
