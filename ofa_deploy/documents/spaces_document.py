"""What ``space compare --json`` prints: search spaces compared on a device, at one budget or several."""

from __future__ import annotations

from typing import Literal

from ofa_deploy.documents.json_document import Document, Flag, FreeObject, Number, Whole, Words
from ofa_deploy.terms import Statistic


class Percentiles(Document):
    """The median and the 90th percentile of some numbers; None for what is not finite."""

    p50: Number | None = None
    p90: Number | None = None


class Sizes(Percentiles):
    """Multiply-accumulates: ``quantiles`` at equal distances from the least to the most, too."""

    quantiles: list[Number] = []


class TrainedAlone(Document):
    """A network of a space that was trained alone for a few epochs.

    Attributes:
        accuracy: on ``n`` held-out images, a fraction.
        upper_ms: the bound that its latency keeps.
    """

    key: Words | None = None
    arch: FreeObject = {}
    macs: Number | None = None
    params: Number | None = None
    accuracy: Number = 0.0
    n: Whole = 0
    upper_ms: Number = 0.0


class SpaceEntry(Document):
    """A space at a budget.

    Attributes:
        n_sampled, n_fit: random networks, and how many of them meet the budget by the latency model.
        n_near: networks that use the budget, of which all other figures are.
        binds: whether the budget excludes any network.
        upper_ms: bounds that latencies keep, in ms.
        proxy: zero-cost scores by name; empty where no network fits.
        fastest_ms, why: of the fastest network where none fits, and that in words.
    """

    name: Words = ""
    budget_ms: Number = 0.0
    resolutions: list[Whole] = []
    n_sampled: Whole = 0
    n_fit: Whole = 0
    n_near: Whole = 0
    binds: Flag = True
    macs: Sizes | None = None
    params: Percentiles | None = None
    upper_ms: Percentiles | None = None
    proxy: dict[str, Percentiles] | None = None
    trained: list[TrainedAlone] = []
    fastest_ms: Number | None = None
    why: Words | None = None


class SpaceVerdict(Document):
    """Which space promises more at a budget.

    Attributes:
        order: names of spaces with networks that fit, the best first.
        by: what decided; None where no network fits.
        clear: whether the first two differ by more than chance.
        text: all of it in words.
    """

    budget_ms: Number = 0.0
    order: list[Words] = []
    by: Literal["trained", "macs", "fits"] | None = None
    clear: Flag = False
    text: Words = ""


class SpacesCompared(Document):
    """The whole answer.

    Attributes:
        confidence: of the bounds on latencies.
        data, epochs: the images, and epochs of the short trainings; None without any.
        spaces: an entry for each space and budget.
        verdicts: one for each budget.
    """

    target: Words | None = None
    precision: Words | None = None
    statistic: Statistic = "p50"
    confidence: Number | None = None
    simulated: Flag = False
    data: Words | None = None
    epochs: Whole | None = None
    spaces: list[SpaceEntry] = []
    verdicts: list[SpaceVerdict] = []
