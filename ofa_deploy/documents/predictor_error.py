"""How far an accuracy predictor errs, as cards, fronts and reports tell it."""

from __future__ import annotations

from ofa_deploy.documents.document import Document, Number, Whole, Words


class PredictorError(Document):
    """Errors of a predictor on held-out subnets; fractions. A card keeps more than is read here.

    Attributes:
        rmse: root mean square error; ``n_heldout`` subnets show it.
        bias_after_std: how sure the level of its predictions on other images is.
        bias_corrected: by how much that level was lowered.
        supernet: sha256 of the weights that it was found on.
        what, note: of a published predictor, what it is and how it errs, in words.
    """

    rmse: Number | None = None
    n_heldout: Whole | None = None
    bias_after_std: Number | None = None
    bias_corrected: Number = 0.0
    supernet: Words | None = None
    what: Words | None = None
    note: Words | None = None
