"""Which subnets to evaluate for an accuracy predictor, round by round, until more of them no longer help.

The first round spreads over the sizes of the space. Every later one asks the predictor: half of its subnets are those
that it is unsure of and that promise much for their size, as a search will ask about such ones; the others are random,
so that it does not only ever see what it likes. A held-out set, which no round touches, tells when to stop.

At the end the held-out subnets are evaluated again, on other images. That tells how far two evaluations agree, which
no predictor of one can be asked to exceed, and by how much the predictions are too high or too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ofa_deploy.accuracy.predictor import HELDOUT, MEMBERS, AccuracyPredictor, kendall_of
from ofa_deploy.accuracy.rank_agreement import rise
from ofa_deploy.config import AccuracyConfig
from ofa_deploy.documents.predictor_error import FittingRound
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import Progress
from ofa_deploy.space import GENE, Arch, Population, PopulationCodec

TOGETHER = 8  # subnets that share a pass over the images
POOL = 64  # random subnets for each that is chosen
BEYOND_NOISE = 1.96  # standard deviations
PATIENCE = 2  # rounds within which τ has to rise

Keep = Callable[[Sequence[Arch]], np.ndarray]


class Evaluator(Protocol):
    """What evaluates subnets: ``Campaign``."""

    def accuracies(self, archs: Sequence[Arch], roles: Sequence[str], split: str) -> list[float]: ...  # noqa: D102

    def images(self, split: str) -> int: ...  # noqa: D102


class Collection:
    """The pairs of one predictor. They depend on the seed and on what evaluations say, and on nothing else: one that
    was killed goes the same way again through the evaluations that are kept, and then on.

    Args:
        keep: which subnets are worth evaluating to fit on, ``bool[N]``; all, where it is None.
        progress: called after every few evaluations with ``done`` and ``total``, which may fall, and from the second
            round on with the ``kendall`` of the round before.
    """

    def __init__(
        self,
        codec: PopulationCodec,
        evaluator: Evaluator,
        config: AccuracyConfig,
        seed: int = 0,
        keep: Keep | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._codec, self._evaluator, self._config, self._seed = codec, evaluator, config, seed
        self._keep, self._progress = keep, progress or (lambda numbers: None)
        subnets = min(config.subnets, codec.space.size)
        share = max(config.heldout * subnets // config.subnets, HELDOUT)  # a small space is divided as a large one is
        heldout = max(min(share, subnets - MEMBERS), 0)
        self._limit = subnets - heldout
        self._done, self._total = 0, subnets + 2 * heldout
        self._heldout = codec.stratified(heldout + 2, self._rng(0))[2:]  # the ends are for fitting
        self._tested = np.empty(0)
        self._fitted: list[AccuracyPredictor] = []

    def predictor(self) -> AccuracyPredictor:
        """Evaluate and fit, round by round, and look a second time; its ``error`` tells of all that.

        Raises:
            UsageError: too few subnets pass ``keep``, or the space has too few.
        """
        self._tested = self._evaluate(self._heldout, "heldout")
        population, accuracy = self._heldout[:0], np.empty(0)
        while True:
            more = self._next(population)
            if self._keep and len(population) + len(more) < MEMBERS:
                raise UsageError("accuracy.min_proxy leaves too few subnets to fit on; lower it")
            population = np.concatenate([population, more])
            accuracy = np.concatenate([accuracy, self._evaluate(more, "fit")])
            self._fitted.append(
                AccuracyPredictor.fit(self._codec, population, accuracy, self._heldout, self._tested, self._seed)
            )
            if stopped := self._reason(len(population), len(more)):
                break
        self._total = self._done + 2 * len(self._heldout)
        return self._second_look(self._fitted[-1].corrected(0.0, {"rounds": self._rounds(), "stopped": stopped}))

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, number])

    def _evaluate(self, population: Population, role: str, split: str = "fit") -> np.ndarray:
        archs, accuracies = self._codec.decode(population), np.empty(len(population))
        for first in range(0, len(archs), TOGETHER):
            some = archs[first : first + TOGETHER]
            accuracies[first : first + TOGETHER] = self._evaluator.accuracies(some, [role] * len(some), split)
            self._done += len(some)
            self._progress({"done": self._done, "total": self._total, **self._last_kendall()})
        return accuracies

    def _last_kendall(self) -> dict[str, float]:
        kendall = self._fitted[-1].error.kendall if self._fitted else None
        return {} if kendall is None else {"kendall": kendall}

    def _next(self, known: Population) -> Population:
        """The next round's subnets; none where the limit is reached."""
        left = self._limit - len(known)
        rng, taken = self._rng(1 + len(self._fitted)), np.concatenate([known, self._heldout])
        if self._fitted:
            chosen = acquire(self._fitted[-1], taken, min(self._config.round, left), rng)
        else:
            whole = self._codec.space.size  # of a space that small, all subnets are worth an evaluation
            first = min(2 * self._config.round, left) if whole > self._config.subnets else whole
            chosen = unknown(self._codec.stratified(first, rng), taken)
            if (missing := MEMBERS - len(chosen)) > 0:  # most of those drawn are held out
                more = unknown(self._codec.sample(POOL * first, rng), np.concatenate([taken, chosen]))
                chosen = np.concatenate([chosen, rng.permutation(more)[:missing]])
        return chosen if self._keep is None else chosen[self._keep(self._codec.decode(chosen))]

    def _reason(self, used: int, new: int) -> str | None:
        """Why no further round is worth it; None where one is."""
        if used >= self._limit:
            return "the limit of subnets was reached"
        if not new:
            return "no further subnets were found"
        if len(self._fitted) > PATIENCE:
            before, after = (self._fitted[i].predict(self._heldout)[0] for i in (-1 - PATIENCE, -1))
            gain, error = rise(before, after, self._tested)
            if gain <= error:
                return f"Kendall τ rose by only {gain:.3f} ± {error:.3f} in the last {PATIENCE} rounds"
        return None

    def _rounds(self) -> list[FittingRound]:
        return [FittingRound(**one.error.model_dump(include=set(FittingRound.model_fields))) for one in self._fitted]

    def _second_look(self, fitted: AccuracyPredictor) -> AccuracyPredictor:
        """Correct a bias that is beyond its noise on one part of the other images, and see on another what is left."""
        images, calibration, check = (self._evaluator.images(split) for split in ("fit", "calibration", "check"))
        if not check:
            return fitted
        again = [self._evaluate(self._heldout, "again", split) for split in ("calibration", "check")]
        repeated = np.average(again, axis=0, weights=[calibration, check])
        before = float((fitted.predict(self._heldout)[0] - again[0]).mean())
        noise = [bias_error(float(repeated.mean()), images, count) for count in (calibration, check)]
        correction = before if abs(before) > BEYOND_NOISE * noise[0] else 0.0
        corrected = fitted.corrected(correction)
        return corrected.corrected(
            correction,
            {
                **kendall_of("repeat_kendall", repeated, self._tested),
                "bias_before": before,
                "bias_before_std": noise[0],
                "bias_corrected": correction,
                "bias_after": float((corrected.predict(self._heldout)[0] - again[1]).mean()),
                "bias_after_std": noise[1],
            },
        )


def acquire(predictor: AccuracyPredictor, known: Population, count: int, rng: np.random.Generator) -> Population:
    """Subnets to learn from: half of them random, half of much uncertainty times promise, alike over all sizes.

    Uncertainty is the spread of the ensemble; promise, the share of random subnets of alike MACs that a subnet is
    predicted to beat. (Ensemble spread as what to sample by: White et al., "BANANAS", AAAI 2021, §3.)

    Args:
        known: subnets that are not wanted again.

    Returns:
        At most ``count`` rows; fewer where the space has no more.
    """
    codec = predictor.codec
    pool = unknown(codec.sample(POOL * count, rng), known)
    rng.shuffle(pool)
    random, rest = pool[: count - count // 2], pool[count - count // 2 :]
    outputs = predictor.outputs(rest)
    mean, spread = outputs.mean(0), outputs.std(0)
    by_size = np.argsort(codec.macs(rest), kind="stable")
    best = []
    for alike in np.array_split(by_size, count // 2) if count > 1 else ():
        if len(alike):
            promise = mean[alike].argsort().argsort() / len(alike)
            best.append(alike[np.argmax(spread[alike] * promise)])
    return np.concatenate([random, rest[np.array(best, dtype=int)]])


def unknown(population: Population, known: Population) -> Population:
    """The different subnets of a population that are not among the known ones, in order of their genes."""
    taken = {row.tobytes() for row in known}
    rows = [row for row in np.unique(population, axis=0) if row.tobytes() not in taken]
    return np.array(rows, dtype=GENE).reshape(-1, population.shape[1])


def bias_error(accuracy: float, *images: int) -> float:
    """Standard deviation of the difference of two mean accuracies, as the draw of their images makes it: a binomial's.

    All subnets see the same images, so that more subnets do not lower it.
    """
    return math.sqrt(accuracy * (1 - accuracy) * sum(1 / count for count in images))
