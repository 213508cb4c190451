"""How far an accuracy predictor errs, as cards, fronts and reports tell it."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, Number, Whole, Words


class FittingRound(Document):
    """What a predictor's error was after a round of evaluations; see ``PredictorError``."""

    n_fit: Whole = 0
    kendall: Number | None = None
    kendall_low: Number | None = None
    kendall_high: Number | None = None
    rmse: Number = 0.0


class PredictorError(Document):
    """Errors of a predictor on held-out subnets; fractions.

    Attributes:
        n_fit, n_heldout: subnets that it was fitted on, and that show its error.
        rmse, bias: root mean square error, and mean error.
        kendall: Kendall's τ with its 95 % interval, None where all subnets are equal.
        within_1_std, within_2_std: shares whose error is within the stated deviation, and within 1.96 of it.
        rounds, stopped: of the evaluations, and why there were no more.
        repeat_kendall: how far two evaluations of the same subnets agree, with its interval.
        bias_before, bias_after: on other images, before and after the correction; each ``_std`` says how sure.
        bias_corrected: by how much its predictions were lowered.
        supernet: sha256 of the weights that it was found on.
        min_proxy: what a subnet's zero-cost scores had to reach to be evaluated.
        what, note: of a published predictor, what it is and how it errs, in words.
    """

    n_fit: Whole | None = None
    n_heldout: Whole | None = None
    rmse: Number | None = None
    bias: Number | None = None
    kendall: Number | None = None
    kendall_low: Number | None = None
    kendall_high: Number | None = None
    within_1_std: Number | None = None
    within_2_std: Number | None = None
    rounds: list[FittingRound] = []
    stopped: Words | None = None
    repeat_kendall: Number | None = None
    repeat_kendall_low: Number | None = None
    repeat_kendall_high: Number | None = None
    bias_before: Number | None = None
    bias_before_std: Number = 0.0
    bias_after: Number = 0.0
    bias_after_std: Number | None = None
    bias_corrected: Number = 0.0
    supernet: Words | None = None
    min_proxy: dict[str, Number] = {}
    what: Words | None = None
    note: Words | None = None
