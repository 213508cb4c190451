import numpy as np
import pytest

from ofa_deploy.accuracy import AccuracyPredictor
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
    assert predictor.error["n_fit"] == 45
    assert predictor.error["n_heldout"] == 15


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
