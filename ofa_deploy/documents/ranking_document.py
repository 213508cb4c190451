"""``ranking.json``: how far accuracies with a supernet's weights rank networks as training each alone does."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, FreeObject, Number, Whole, Words
from ofa_deploy.documents.predictor_error import PredictorError


class Agreement(Document):
    """Kendall's τ of a score with the accuracies of training alone, with its 95 % interval; None where all are equal.

    Attributes:
        ms: what the score of one network takes; None where that is not told.
    """

    tau: Number | None = None
    low: Number | None = None
    high: Number | None = None
    ms: Number | None = None


class Gap(Document):
    """Inherited accuracy minus that of training alone, over the networks; fractions."""

    mean: Number | None = None
    least: Number | None = None
    most: Number | None = None


class RankedScores(Document):
    """A network's scores by name; the accuracies among them are fractions. Names of proxies are keys too."""

    inherited: Number | None = None
    macs: Number | None = None
    params: Number | None = None
    predictor: Number | None = None


class RankedNetwork(Document):
    """A network that was trained alone.

    Attributes:
        alone, alone_seconds: accuracies of its trainings, one of each seed, and how long they took.
    """

    key: Words | None = None
    arch: FreeObject = {}
    alone: list[Number] = []
    alone_seconds: list[Number] = []
    scores: RankedScores = RankedScores()


class Ranking(Document):
    """The whole audit.

    Attributes:
        name: the supernet's.
        predictor: how its accuracy predictor errs, see ``PredictorError``; None where there is none.
        images: held-out images, of ``split``, that an accuracy is of.
        epochs: of every training, by ``recipe``.
        seconds: that all trainings took.
        networks, seeds, repeated: how many networks, trainings of each, and networks with more than one.
        ceiling: of one seed with another, which no score can be asked to beat; None with one seed.
        scores: by name.
    """

    kind: Words = "ranking"
    name: Words | None = None
    space: Words | None = None
    supernet_sha256: Words | None = None
    predictor: PredictorError | None = None
    split: Words | None = None
    images: Whole | None = None
    epochs: Whole | None = None
    recipe: FreeObject = {}
    seconds: Number | None = None
    networks: Whole | None = None
    seeds: Whole | None = None
    repeated: Whole | None = None
    ceiling: Agreement | None = None
    scores: dict[str, Agreement] = {}
    gap: Gap = Gap()
    rows: list[RankedNetwork] = []
    versions: dict[str, Words] = {}
    command: Words | None = None
