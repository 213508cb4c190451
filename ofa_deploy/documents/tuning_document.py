"""How a subnet was fine-tuned, and what that changed: ``--json`` of ``finetune``, and a header of its file."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, Flag, FreeObject, Number, Whole, Words


class SplitAccuracies(Document):
    """Accuracies by split, fractions: on images held out of the training split, and on the test split."""

    valid: Number
    test: Number


class SplitImages(Document):
    """How many images each split has."""

    valid: Whole
    test: Whole


class TunedAs(Document):
    """What two trainings must have in common to be compared; see ``TuningFacts``."""

    state: Words
    epochs: Whole
    lr: Number
    seed: Whole
    teacher: Flag


class TuningFacts(Document):
    """The whole answer.

    Attributes:
        state: how it came to its weights: ``fine-tuned`` from the supernet's, or ``scratch``.
        key: sha256 of ``arch``.
        lr: peak learning rate.
        teacher: whether the supernet's largest subnet taught.
        before, after: accuracies with inherited weights, and with those that came out.
    """

    state: Words
    space: Words
    arch: FreeObject
    key: Words
    supernet_sha256: Words
    epochs: Whole
    lr: Number
    seed: Whole
    teacher: Flag
    before: SplitAccuracies
    after: SplitAccuracies
    images: SplitImages

    @property
    def how(self) -> TunedAs:
        """By what it is compared with other trainings."""
        return TunedAs(state=self.state, epochs=self.epochs, lr=self.lr, seed=self.seed, teacher=self.teacher)
