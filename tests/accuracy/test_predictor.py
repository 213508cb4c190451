from dataclasses import replace

import numpy as np
import pytest

from ofa_deploy.accuracy import AccuracyPredictor, keep_predictor, load_predictor
from ofa_deploy.errors import UsageError
from ofa_deploy.space import PopulationCodec, load_space

CODEC = PopulationCodec(load_space("small_28"))


def made_up(population: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Saturating in MACs, as accuracies are, with the noise of an evaluation."""
    return 0.93 - 0.04 * np.exp(-CODEC.macs(population) / 2e6) + rng.normal(0, 0.001, len(population))


def a_predictor() -> AccuracyPredictor:
    rng = np.random.default_rng(0)
    population = CODEC.stratified(60, rng)
    accuracy = made_up(population, rng)
    return AccuracyPredictor.fit(CODEC, population[:45], accuracy[:45], population[45:], accuracy[45:])


def test_it_ranks_subnets_it_never_saw() -> None:
    predictor, rng = a_predictor(), np.random.default_rng(1)
    fresh = CODEC.sample(300, rng)
    truth = 0.93 - 0.04 * np.exp(-CODEC.macs(fresh) / 2e6)
    mean, std = predictor.predict(fresh)
    assert np.corrcoef(mean, truth)[0, 1] > 0.9
    assert np.abs(mean - truth).mean() < 0.005
    assert (std >= 0).all()
    assert predictor.error.n_fit == 45
    assert predictor.error.n_heldout == 15


def test_bytes_round_trip_and_damage() -> None:
    predictor = a_predictor()
    content = predictor.to_bytes()
    assert content == a_predictor().to_bytes()
    again = AccuracyPredictor.from_bytes(CODEC, content)
    population = CODEC.sample(50, np.random.default_rng(2))
    assert np.array_equal(again.predict(population)[0], predictor.predict(population)[0])
    assert again.error == predictor.error
    for broken in (content[: len(content) // 2], b"", b"nonsense" * 9):
        with pytest.raises(UsageError, match="truncated"):
            AccuracyPredictor.from_bytes(CODEC, broken)
    with pytest.raises(UsageError, match="small_28"):
        AccuracyPredictor.from_bytes(PopulationCodec(load_space("tiny_16")), content)


def test_the_stated_deviation_holds_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    population, fresh = CODEC.sample(120, rng), CODEC.sample(400, rng)
    predictor = AccuracyPredictor.fit(CODEC, population, made_up(population, rng), fresh, made_up(fresh, rng))
    assert predictor.error.within_1_std == pytest.approx(0.68, abs=0.1)
    assert predictor.error.within_2_std == pytest.approx(0.95, abs=0.05)
    assert (predictor.predict(fresh)[1] > 0.0005).all()  # the noise of an evaluation is in it


def test_kendall_has_an_interval_and_is_unknown_where_all_are_equal() -> None:
    error = a_predictor().error
    assert error.kendall_low < error.kendall <= error.kendall_high <= 1
    rng = np.random.default_rng(4)
    population = CODEC.sample(20, rng)
    flat = AccuracyPredictor.fit(CODEC, population, made_up(population, rng), population[:5], np.full(5, 0.9))
    assert flat.error.kendall is None
    assert "Kendall τ unknown" in flat.summary()


def test_scores_beside_the_genes_are_learned_from_and_then_needed() -> None:
    rng = np.random.default_rng(5)
    population, fresh = CODEC.sample(100, rng), CODEC.sample(100, rng)
    hidden = [rng.normal(size=(100, 1)) for _ in range(2)]
    accuracies = [0.9 + 0.01 * score[:, 0] for score in hidden]
    blind = AccuracyPredictor.fit(CODEC, population, accuracies[0], fresh, accuracies[1])
    told = AccuracyPredictor.fit(CODEC, population, accuracies[0], fresh, accuracies[1], 0, *hidden)
    assert told.error.kendall > 0.8 > 0.3 > blind.error.kendall
    with pytest.raises(UsageError, match="fitted with other zero-cost scores"):
        told.predict(fresh)
    with pytest.raises(UsageError, match="fitted with other zero-cost scores"):
        blind.predict(fresh, hidden[1])


def test_a_file_of_the_first_version_is_read() -> None:
    predictor = a_predictor()
    old = {name: array for name, array in predictor.arrays.items() if name not in ("noise", "bias")}
    content = replace(predictor, arrays=old).to_bytes()
    again = AccuracyPredictor.from_bytes(CODEC, content)
    population = CODEC.sample(50, np.random.default_rng(2))
    assert np.allclose(again.predict(population)[0], predictor.predict(population)[0])
    assert (again.predict(population)[1] >= 0).all()


def test_one_of_ours_is_kept_by_name_and_brings_its_space(workspace) -> None:
    space = load_space({"name": "mine", "base": "small_28", "resolutions": (24, 28)})
    codec = PopulationCodec(space)
    population = codec.sample(30, np.random.default_rng(6))
    accuracy = codec.macs(population) / 1e9
    fitted = AccuracyPredictor.fit(codec, population[:20], accuracy[:20], population[20:], accuracy[20:])
    keep_predictor(workspace, "mine", fitted)
    again = load_predictor(workspace, "mine")
    assert again.codec.space == space
    assert np.array_equal(again.predict(population)[0], fitted.predict(population)[0])
