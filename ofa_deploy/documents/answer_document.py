"""What a workspace remembers of a bundle for later extractions: its network, and each finalist beside it."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, FreeObject, Number, Words
from ofa_deploy.documents.tuning_document import TunedAs
from ofa_deploy.terms import Statistic


class Answered(Document):
    """A network that was measured.

    Attributes:
        supernet: sha256 of the supernet, or of what stands in for it.
        target: the report's, without the device's facts.
        statistic: which latency ``measured_ms`` is.
        tuned: how it was fine-tuned; None for inherited weights.
    """

    supernet: Words | None
    target: FreeObject
    statistic: Statistic
    arch: FreeObject
    measured_ms: Number
    tuned: TunedAs | None = None
