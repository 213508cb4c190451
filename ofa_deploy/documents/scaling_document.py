"""A point of the grid search over compound scaling's coefficients."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, Number, Whole


class ScalingPoint(Document):
    """A network that was trained alone.

    Attributes:
        alpha, beta, gamma: factors of depth, width and resolution.
        macs: multiply-accumulates for one image.
        resolution: pixels.
        accuracy: on ``n`` held-out images, a fraction.
    """

    alpha: Number = 1.0
    beta: Number = 1.0
    gamma: Number = 1.0
    macs: Number = 0
    params: Number = 0
    resolution: Whole = 0
    accuracy: Number = 0.0
    n: Number | None = None
