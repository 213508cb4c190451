"""What ``search --compare --json`` prints: search strategies against each other, at equal effort."""

from __future__ import annotations

from typing import Literal

from ofa_deploy.documents.json_document import Document, Flag, Number, Whole, Words
from ofa_deploy.documents.predictor_error import PredictorError


class OverSeeds(Document):
    """A mean over seeds, with its 95 % interval."""

    mean: Number = 0.0
    low: Number = 0.0
    high: Number = 0.0


class StrategyFound(Document):
    """How one strategy did; see ``search.Compared``.

    Attributes:
        best: accuracy at the end.
        hypervolume: share of the box between the worst and the best of all searches that its front covers.
        gain: accuracy over random search at the end.
        evaluations, seconds: means of a search.
        at, curve: positions, and the best accuracy there; None before the first.
    """

    strategy: Words = ""
    best: OverSeeds = OverSeeds()
    hypervolume: OverSeeds | None = None
    gain: OverSeeds | None = None
    evaluations: Number = 0
    seconds: Number | None = None
    at: list[Number] = []
    curve: list[OverSeeds | None] = []


class StrategiesFound(Document):
    """The whole answer.

    Attributes:
        at: what was equal.
        predicted: whether accuracies are predicted; otherwise a score takes their place, which has no
            ``predictor_error``.
    """

    space: Words | None = None
    target: Words | None = None
    simulated: Flag = False
    seeds: Whole = 0
    at: Literal["evaluations", "seconds"] = "evaluations"
    predicted: Flag = True
    predictor_error: PredictorError | None = None
    strategies: list[StrategyFound] = []
