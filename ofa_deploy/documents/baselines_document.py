"""Hand-picked networks beside ours: what ``baseline --json`` prints, and the part of a report that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import Field

from ofa_deploy.documents.json_document import Document, FreeObject, Number, Whole, Words
from ofa_deploy.intervals import difference_error

BesideT = TypeVar("BesideT", bound="Beside")


class HandPicked(Document):
    """A hand-picked network that was trained alone, and measured.

    Attributes:
        key: sha256 of its arch.
        macs: multiply-accumulates for one image.
        recipe, epochs: of the better of its trainings; ``seconds`` is what all took.
        valid: by recipe, the accuracy on ``valid_n`` validation images.
        accuracy: of the exported file on ``n`` test images.
        measured_ms: p50, with its 95 % interval, ``low_ms`` to ``high_ms``, and its relative standard error ``se``.
        file: a supernet of this one network.
    """

    name: Words = ""
    key: Words | None = None
    macs: Number | None = None
    params: Number | None = None
    size_bytes: Whole | None = None
    recipe: Words = ""
    epochs: Whole | None = None
    seconds: Number | None = None
    valid: dict[str, Number] = {}
    valid_n: Whole | None = None
    accuracy: Number | None = None
    n: Whole | None = None
    measured_ms: Number | None = None
    low_ms: Number | None = None
    high_ms: Number | None = None
    se: Number | None = None
    file: Words | None = None


class Beside(Document):
    """The best hand-picked network within a budget, and ours beside it.

    Attributes:
        budget_ms: what both may take; None for no bound.
        best: the name of the network that fits and is best on the validation images; None where none fits.
        difference: by how much more accurate ours is on the test images; ``difference_error`` is half of the 95 %
            interval of that. Fractions; None where one of them is not known.
        text: the verdict.
    """

    budget_ms: Number | None = None
    best: Words | None = None
    difference: Number | None = None
    difference_error: Number | None = None
    text: Words = ""


class AnswerBeside(Beside):
    """An answer of ours, measured in the same rounds.

    Attributes:
        bundle: its folder.
        accuracy: on ``n`` test images.
        measured_ms: p50 in these rounds, with its 95 % interval and relative standard error.
        asked_ms, answered_ms: the budget and the measurement when it was chosen. Where the device is slower in these
            rounds than it was then, ``budget_ms`` is that much more than ``asked_ms``.
    """

    bundle: Words | None = None
    key: Words | None = None
    macs: Number | None = None
    params: Number | None = None
    accuracy: Number | None = None
    n: Whole | None = None
    measured_ms: Number | None = None
    low_ms: Number | None = None
    high_ms: Number | None = None
    se: Number | None = None
    asked_ms: Number | None = None
    answered_ms: Number | None = None


class ReportBaselines(AnswerBeside):
    """A report's subnet beside the hand-picked networks of the same images.

    Attributes:
        networks: those that were measured in the same rounds.
    """

    networks: list[HandPicked] = []


class Skipped(Document):
    """A network that fits no budget: it was not trained."""

    name: Words = ""
    measured_ms: Number | None = None


class BaselinesFound(Document):
    """The whole answer of ``baseline``.

    Attributes:
        target: the device, and the condition of the measurement.
        networks: smallest first, by their work.
        answers: ours, each beside the best network that fits its budget.
        budgets: for each budget that was asked for, the best network that fits.
    """

    version: Whole = Field(default=1, alias="schema")
    target: FreeObject = {}
    dataset: Words | None = None
    measured_at: Words | None = None
    networks: list[HandPicked] = []
    skipped: list[Skipped] = []
    answers: list[AnswerBeside] = []
    budgets: list[Beside] = []

    @property
    def simulated(self) -> bool:
        """Whether the latencies come from a simulation."""
        return bool(self.target.get("simulated"))


def best_within(networks: Sequence[HandPicked], limit_ms: float | None) -> HandPicked | None:
    """The hand-picked network that is most accurate on the validation images of those that fit; None where none does.

    Its test accuracy then chose nothing.
    """
    fitting = [one for one in networks if limit_ms is None or (one.measured_ms or 0.0) <= limit_ms]
    return max(fitting, key=lambda one: one.valid.get(one.recipe, 0.0), default=None)


def placed(networks: Sequence[HandPicked], answer: BesideT) -> BesideT:
    """An answer, or a budget alone, with the best hand-picked network that fits the same budget, and the difference of
    both on the test images."""
    best = best_within(networks, answer.budget_ms)
    found: dict[str, object] = {"best": best.name if best else None, "difference": None, "difference_error": None}
    ours = answer.accuracy if isinstance(answer, AnswerBeside) else None
    if best is not None and best.accuracy is not None and ours is not None and isinstance(answer, AnswerBeside):
        found["difference"] = ours - best.accuracy
        found["difference_error"] = difference_error((ours, best.accuracy), (answer.n or 0, best.n or 0))
    return answer.model_copy(update=found)
