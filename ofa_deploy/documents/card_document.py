"""``card.json``: what a supernet that is given away is worth."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, FreeObject, Number, Whole, Words
from ofa_deploy.documents.predictor_error import PredictorError


class TestedSubnet(Document):
    """The largest or the smallest subnet: accuracy, multiply-accumulates, parameters."""

    accuracy: Number
    macs: Number
    params: Number


class TestedSubnets(Document):
    """Random subnets: how many, drawn with which seed; the least, the mean and the largest of their accuracies; and how
    far the predictor errs on them."""

    n: Whole
    seed: Whole
    least: Number
    mean: Number
    most: Number
    predictor: PredictorError | None = None


class CardTest(Document):
    """Accuracies on the test split, as fractions, and the number of images."""

    images: Whole
    largest: TestedSubnet
    smallest: TestedSubnet
    random: TestedSubnets


class CardData(Document):
    """The images that it was trained on: what they are, how many there are, and a sha256 over them."""

    name: Words
    images: Whole
    test: Whole
    sha256: Words


class Card(Document):
    """The whole card.

    Attributes:
        recipe: what it was trained with, without the keys at their defaults.
        predictor: how its accuracy predictor errs; see ``PredictorError``.
        sample: images of each split that travel with it.
    """

    name: Words
    space: Words
    supernet_sha256: Words
    recipe: FreeObject | None
    data: CardData
    predictor: PredictorError | None
    versions: dict[str, Words]
    test: CardTest
    sample: dict[str, Whole]
