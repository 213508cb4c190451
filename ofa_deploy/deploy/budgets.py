"""Latency budgets that are derived from a device as it is now, and what is said of those that fail because of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

import numpy as np

from ofa_deploy.deploy.subject import Subject
from ofa_deploy.latency import LatencyModel
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.search import Constraints, Problem, fastest
from ofa_deploy.space import Arch, PopulationCodec

FEASIBLE = 0.99  # confidence with which the smallest of several budgets can be met
ROOM = 1.25  # and so much slower may the next minutes be: machines are shared
SPREAD = 1.2  # the largest of them is at least so many times as large
APART = 1.03  # each is at least so many times as large as the one before it
SLOWER = 1.05  # a level above this is worth telling
TRIES = 3  # at a derived budget, before one is taken that the measured finalists meet


@dataclass(frozen=True)
class Spread:
    """One of several budgets over the range that a target can meet, derived when it is needed.

    Attributes:
        place: which one, from 0.
        count: of how many.
        above: the budget before it, in ms; it is larger.
    """

    place: int
    count: int
    above: float = 0.0

    def budget(self, subject: Subject, model: LatencyModel, codec: PopulationCodec, confidence: float) -> float:
        """In ms: spread geometrically between the fastest and the largest subnet's upper bounds now."""
        low, high = _range(subject, model, codec, confidence)
        ratio = (self.place + 1) / (self.count + 1)
        return rounded_up(max(low * (high / low) ** ratio, APART * self.above))


def _range(subject: Subject, model: LatencyModel, codec: PopulationCodec, confidence: float) -> tuple[float, float]:
    low = holding(subject, model, codec, confidence)
    high = unbounded(subject, model, codec, confidence).upper(codec.encode([codec.space.largest]))
    return low, max(float(high[0]), SPREAD * low)


def holding(subject: Subject, model: LatencyModel, codec: PopulationCodec, confidence: float) -> float:
    """A budget in ms that the fastest subnet meets at a high confidence, with room for slower minutes."""
    return ROOM * fastest_of(subject, model, codec, max(confidence, FEASIBLE))[1]


def fastest_of(subject: Subject, model: LatencyModel, codec: PopulationCodec, confidence: float) -> tuple[Arch, float]:
    """The subnet with the lowest upper bound, and that bound in ms."""
    row, upper = fastest(unbounded(subject, model, codec, confidence))
    return codec.decode(row[None])[0], float(upper)


def unbounded(subject: Subject, model: LatencyModel, codec: PopulationCodec, confidence: float) -> Problem:
    """The search without a bound: what there is to choose from."""
    return Problem(codec, subject.accuracy(codec), model.bind(codec).predict, Constraints(confidence=confidence))


def rounded_up(ms: float) -> float:
    """To three digits, never down."""
    unit = 10.0 ** (floor(log10(ms)) - 2)
    return float(f"{np.ceil(ms / unit - 1e-9) * unit:.12g}")


def because_of_the_level(level: LevelNow, quiet_ms: float, usual_ms: float, budget: float, holds: float) -> str:
    """Why a budget failed, as far as the device's level now is the reason, and which one would hold.

    Args:
        quiet_ms: undisturbed latency of the network that came nearest.
        usual_ms: what it took, or would have taken, when the target was profiled.
        holds: a budget that holds now.
    """
    factor, low, high = level.factor(quiet_ms)
    said = []
    if factor > SLOWER:
        why = f" ({'; '.join(level.reasons)})" if level.reasons else ""
        said.append(
            f"the device is {factor:.2f} times as slow now as when it was profiled at {level.profiled_at} "
            f"({low:.2f} to {high:.2f}){why}"
        )
        met = "which met the budget" if usual_ms <= budget else "which was over the budget too"
        said.append(f"then this network took {usual_ms:.4g} ms, {met}; undisturbed it takes {quiet_ms:.4g} ms")
    if level.disturbed:
        said.append(
            f"the device is too disturbed to promise anything now: measurements differ by {100 * level.repeats:.0f} %"
        )
    return "; ".join([*said, f"a budget that holds now is {holds:g} ms"])
