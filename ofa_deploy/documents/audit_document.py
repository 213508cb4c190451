"""``audit.json``: how far a target's predictions can be trusted. A report carries its figures."""

from __future__ import annotations

from pydantic import Field

from ofa_deploy.documents.json_document import Document, Flag, Free, FreeObject, Number, Whole, Words
from ofa_deploy.terms import Statistic


class DeviceLevel(Document):
    """How much slower a device was than when it was profiled, at the latency in question.

    Attributes:
        factor, low, high: how many times as slow, with the 95 % interval.
        profiled_at, measured_at: UTC, ISO 8601.
        curve: pairs of a latency in ms and the factor there.
        repeatability: by what fraction measurements of the networks that tell it differ.
        disturbed: whether they differ too much for a promise.
        reasons: what the device says of itself.
    """

    factor: Number | None = None
    low: Number | None = None
    high: Number | None = None
    profiled_at: Words | None = None
    measured_at: Words | None = None
    curve: list[list[Number]] = []
    repeatability: Number | None = None
    disturbed: Flag = False
    reasons: list[Words] = []

    @property
    def known(self) -> tuple[float, float, float] | None:
        """Factor, low and high; None where one of them is not known."""
        if self.factor is None or self.low is None or self.high is None:
            return None
        return self.factor, self.low, self.high


class TimedNetwork(Document):
    """A whole network that was predicted and measured; ms.

    Attributes:
        role: ``evidence`` of the latency model, ``audit``, ``finalist`` or ``chosen``.
        std_ms: standard deviation of the prediction.
        table_ms: sum of its blocks; None where some were not measured.
    """

    key: Words | None = None
    role: Words | None = None
    predicted_ms: Number | None = None
    std_ms: Number | None = None
    table_ms: Number | None = None
    measured_ms: Number | None = None


class AuditedNetwork(TimedNetwork):
    """A network of an audit; ms.

    Attributes:
        table_std_ms: standard deviation of the sum of its blocks as a prediction.
        halves_ms: the measurement by its odd and by its even rounds.
        as_profiled_ms: predicted at the level of the profile.
    """

    table_std_ms: Number | None = None
    halves_ms: list[Number] = []
    flags: list[Words] = []
    as_profiled_ms: Number | None = None


class ErrorFigures(Document):
    """Errors of predictions on networks that took no part in fitting; fractions.

    Attributes:
        n_fit, n_heldout: networks that the model was fitted on, and networks that it was tried on.
        repeatability: mean difference between two halves of the same measurements.
        mape, bias: mean absolute and mean signed relative error.
        spearman, kendall: rank correlations; None where nothing can be ranked.
        within_5, within_10: shares of predictions within ±5 % and ±10 %.
        coverage_95: share of measurements under the 95 % bound.
    """

    n_fit: Whole | None = None
    n_heldout: Whole | None = None
    repeatability: Number | None = None
    mape: Number | None = None
    bias: Number | None = None
    spearman: Number | None = None
    kendall: Number | None = None
    within_5: Number | None = None
    within_10: Number | None = None
    coverage_95: Number | None = None


class LevelErrors(Document):
    """Mean absolute and mean signed relative error of predictions at the level of the profile."""

    mape: Number | None = None
    bias: Number | None = None


class AuditFigures(ErrorFigures):
    """An audit, but for its networks and the device's facts.

    Attributes:
        condition: under which it measured; see ``Measurement``.
        status: ``trusted``, ``usable`` or ``not trusted``; ``verdict`` says it in words.
        table_only: the same errors of the sum of blocks; None without a table.
        level: how slow the device was during the audit.
        as_profiled: errors where that is not corrected.
        genotype: of networks of cells, their cells.
        command: repeats the audit.
    """

    version: Whole = Field(default=1, alias="schema")
    target: Words | None = None
    simulated: Flag = False
    condition: FreeObject = {}
    space: Words | None = None
    resolutions: list[Whole] = []
    statistic: Statistic = "p50"
    measured_at: Words | None = None
    status: Words | None = None
    table_only: ErrorFigures | None = None
    verdict: Words | None = None
    level: DeviceLevel | None = None
    as_profiled: LevelErrors | None = None
    genotype: Free = None
    command: Words | None = None


class Audit(AuditFigures):
    """The whole audit."""

    facts: FreeObject = {}
    networks: list[AuditedNetwork] = []

    @property
    def figures(self) -> AuditFigures:
        """What a report shows of it."""
        return AuditFigures.model_validate({k: v for k, v in self.to_json().items() if k not in ("networks", "facts")})
