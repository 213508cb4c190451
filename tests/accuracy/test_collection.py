"""Collecting pairs in rounds, with a made-up evaluator whose truth is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import kendalltau

from ofa_deploy.accuracy.collection import POOL, Collection, acquire, unknown
from ofa_deploy.accuracy.predictor import AccuracyPredictor
from ofa_deploy.config import AccuracyConfig
from ofa_deploy.errors import UsageError
from ofa_deploy.space import PopulationCodec, SearchSpace, StageSpec, load_space

CODEC = PopulationCodec(load_space("small_28"))


def truth(population):
    return 0.93 - 0.06 * np.exp(-CODEC.macs(population) / 2e6) - 0.01 * (population[:, 0] == 0)


class MadeUp:
    """Accuracies by a formula, with noise that depends on the subnet and the images; knows what it was asked."""

    def __init__(self, noise=0.001, shift=0.0, images=100_000, known=None):
        self.noise, self.shift, self.count = noise, shift, images
        self.asked, self.known, self.archs = Counter(), {} if known is None else known, []

    def images(self, split):
        return self.count // {"fit": 1, "calibration": 2, "check": 2}[split]

    def accuracies(self, archs, roles, split):
        for arch, value in zip(archs, truth(CODEC.encode(archs)), strict=True):
            if (arch.key, split) not in self.known:
                self.asked[split] += 1
                self.archs.append(arch)
                rng = np.random.default_rng([int(arch.key[:8], 16), len(split)])
                shift = 0.0 if split == "fit" else self.shift
                self.known[arch.key, split] = value - shift + rng.normal(0, self.noise)
        return [self.known[arch.key, split] for arch in archs]


def config(**fields):
    return AccuracyConfig(**{"subnets": 80, "heldout": 20, "round": 16, **fields})


def test_rounds_until_the_limit_and_no_subnet_twice():
    evaluator, told = MadeUp(), []
    error = Collection(CODEC, evaluator, config(subnets=60), progress=told.append).predictor().error
    assert [one.n_fit for one in error.rounds] == [32, 40]
    assert error.stopped == "the limit of subnets was reached"
    assert evaluator.asked == {"fit": 60, "calibration": 20, "check": 20}
    assert told[-1] == {"done": 100, "total": 100, "kendall": error.kendall}
    assert "kendall" not in told[0]
    assert error.n_heldout == 20


def test_it_stops_when_the_ranking_no_longer_gains():
    evaluator = MadeUp(noise=0.0)
    error = Collection(CODEC, evaluator, config(subnets=400)).predictor().error
    assert error.stopped.startswith("Kendall τ rose by only ")
    assert evaluator.asked["fit"] == error.n_fit + 20 < 200


def test_a_killed_collection_goes_the_same_way_again():
    whole = Collection(CODEC, MadeUp(), config(subnets=70)).predictor()

    class Killed(MadeUp):
        def accuracies(self, archs, roles, split):
            if sum(self.asked.values()) > 40:
                raise KeyboardInterrupt
            return super().accuracies(archs, roles, split)

    killed = Killed()
    with pytest.raises(KeyboardInterrupt):
        Collection(CODEC, killed, config(subnets=70)).predictor()
    again = MadeUp(known=dict(killed.known))
    assert Collection(CODEC, again, config(subnets=70)).predictor().to_bytes() == whole.to_bytes()
    assert sum(again.asked.values()) == 110 - sum(killed.asked.values())


def test_a_bias_beyond_its_noise_is_corrected_and_said():
    optimistic = Collection(CODEC, MadeUp(shift=0.048), config()).predictor()
    assert optimistic.error.bias_before == pytest.approx(0.048, abs=0.003)
    assert optimistic.error.bias_corrected == optimistic.error.bias_before
    assert abs(optimistic.error.bias_after) < 0.002
    fresh = CODEC.sample(200, np.random.default_rng(8))
    assert (optimistic.predict(fresh)[0] - truth(fresh)).mean() == pytest.approx(-0.048, abs=0.004)
    assert "bias on new images +4." in optimistic.summary()
    assert "now corrected" in optimistic.summary()
    few = Collection(CODEC, MadeUp(shift=0.02, images=200), config()).predictor()
    assert few.error.bias_corrected == 0
    assert few.error.bias_after == pytest.approx(0.02, abs=0.005)
    assert "too small against its noise to correct" in few.summary()


def test_the_repeat_is_what_two_evaluations_agree():
    noisy = MadeUp(noise=0.01)
    error = Collection(CODEC, noisy, config(heldout=40, subnets=80)).predictor().error
    heldout = {key for key, split in noisy.known if split == "check"}
    fit = [noisy.known[key, "fit"] for key in sorted(heldout)]
    other = [(noisy.known[key, "calibration"] + noisy.known[key, "check"]) / 2 for key in sorted(heldout)]
    assert error.repeat_kendall == pytest.approx(kendalltau(fit, other).statistic)
    assert error.repeat_kendall_low < error.repeat_kendall < error.repeat_kendall_high


def test_without_images_for_a_second_look_there_is_none():
    error = Collection(CODEC, MadeUp(images=1), config()).predictor().error
    assert "bias_before" not in error.to_json()


def test_half_of_a_round_is_promising_for_its_size_and_of_all_sizes():
    rng = np.random.default_rng(0)
    known = CODEC.stratified(40, rng)
    predictor = AccuracyPredictor.fit(CODEC, known, truth(known), known[:5], truth(known[:5]))
    chosen = acquire(predictor, known, 64, rng)
    assert len(unknown(chosen, known)) == 64
    random, guided = chosen[:32], chosen[32:]
    macs = CODEC.macs(guided)
    assert (np.diff(macs) > 0).mean() > 0.9  # from the smallest to the largest

    def uncertainty(population):
        return predictor.outputs(population).std(0).mean()

    assert uncertainty(guided) > 1.2 * uncertainty(random)
    trend = np.polynomial.Polynomial.fit(np.log(CODEC.macs(chosen)), predictor.predict(chosen)[0], 3)
    above = predictor.predict(chosen)[0] - trend(np.log(CODEC.macs(chosen)))
    assert above[32:].mean() > above[:32].mean()


def test_what_is_left_is_taken_where_there_is_little():
    drawn = unknown(CODEC.sample(POOL * 16, np.random.default_rng(1)), CODEC.sample(0, np.random.default_rng(0)))
    few = drawn[:30]
    predictor = AccuracyPredictor.fit(CODEC, few, truth(few), few[:5], truth(few[:5]))
    for left in (0, 3, 12):
        rest = acquire(predictor, drawn[: len(drawn) - left], 16, np.random.default_rng(1))
        assert len(unknown(rest, few)) == len(rest) == left


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_small_round_asks_for_that_many(count):
    few = CODEC.stratified(30, np.random.default_rng(1))
    predictor = AccuracyPredictor.fit(CODEC, few, truth(few), few[:5], truth(few[:5]))
    assert len(acquire(predictor, few, count, np.random.default_rng(2))) == count


def test_what_the_gate_does_not_pass_is_not_evaluated():
    evaluator, smallest = MadeUp(), CODEC.macs(CODEC.encode([CODEC.space.smallest]))[0]

    def keep(archs):
        return CODEC.macs(CODEC.encode(archs)) > 3 * smallest

    Collection(CODEC, evaluator, config(subnets=60), keep=keep).predictor()
    assert evaluator.asked["fit"] == 60
    heldout = {key for key, split in evaluator.known if split == "check"}
    fitted = [arch for arch in evaluator.archs if arch.key not in heldout]
    assert keep(fitted).all()
    assert not keep([arch for arch in evaluator.archs if arch.key in heldout]).all()
    with pytest.raises(UsageError, match="min_proxy leaves too few"):
        Collection(CODEC, evaluator, config(), keep=lambda archs: np.zeros(len(archs), dtype=bool)).predictor()


class Sizes(MadeUp):
    """Of another space: the accuracy is a made-up function of the resolution and the width."""

    def accuracies(self, archs, roles, split):
        self.asked[split] += len(archs)
        self.archs += archs if split == "fit" else []
        return [0.5 + arch.resolution / 1000 + arch.width / 10 for arch in archs]


def space_of(resolutions, widths):
    stages = (StageSpec(16, 1, depths=(1,), kernels=(3,), expands=(3,)),)
    return PopulationCodec(
        SearchSpace(
            "few", stages, tuple(16 + 4 * i for i in range(resolutions)), tuple(1 / (1 + i) for i in range(widths))
        )
    )


@pytest.mark.parametrize(
    ("resolutions", "widths", "heldout"), [(4, 2, 3), (3, 3, 3), (5, 5, 6), (6, 9, 13), (10, 6, 15)]
)
@pytest.mark.filterwarnings("error")
def test_a_small_space_is_evaluated_whole_and_no_subnet_twice(resolutions, widths, heldout):
    codec, evaluator = space_of(resolutions, widths), Sizes()
    assert codec.space.size == resolutions * widths
    error = Collection(codec, evaluator, AccuracyConfig()).predictor().error
    assert len({arch.key for arch in evaluator.archs}) == len(evaluator.archs) == codec.space.size
    assert (error.n_heldout, error.n_fit) == (heldout, codec.space.size - heldout)
    assert error.rmse < 0.1


@pytest.mark.filterwarnings("error")
def test_a_held_out_set_as_large_as_the_space_leaves_enough_to_fit_on():
    error = Collection(space_of(5, 4), Sizes(), AccuracyConfig(subnets=60, heldout=50)).predictor().error
    assert (error.n_heldout, error.n_fit) == (15, 5)


@pytest.mark.parametrize("seed", range(10))
def test_the_fewest_subnets_are_as_many_as_are_needed(seed):
    error = Collection(space_of(10, 12), Sizes(), AccuracyConfig(subnets=8, heldout=3), seed).predictor().error
    assert (error.n_heldout, error.n_fit) == (3, 5)


@pytest.mark.parametrize(("resolutions", "widths"), [(1, 1), (2, 1), (7, 1)])
@pytest.mark.filterwarnings("error")
def test_a_space_of_too_few_subnets_has_no_predictor_and_the_error_counts_them(resolutions, widths):
    with pytest.raises(UsageError, match=f"of few, which has {resolutions * widths}$"):
        Collection(space_of(resolutions, widths), Sizes(), AccuracyConfig()).predictor()
