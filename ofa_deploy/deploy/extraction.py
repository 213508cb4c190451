"""What an extraction finds: the finalists that were built and measured, and which of them is the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ofa_deploy.accuracy.belief import Belief, Posterior, Validation, posterior
from ofa_deploy.blocks import Network
from ofa_deploy.config import Constraints, TargetProfile
from ofa_deploy.deploy.finetuning import Tuned
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.report_document import PrecisionOffer
from ofa_deploy.latency import LatencyModel, Measurement, confidence_interval
from ofa_deploy.latency.level import LevelNow
from ofa_deploy.search import Point, SearchResult
from ofa_deploy.supernet import Subnet

if TYPE_CHECKING:
    from ofa_deploy.deploy.baselines import Together


@dataclass(frozen=True)
class Finalist:
    """A subnet that was built and measured.

    Attributes:
        point: its predictions when it was chosen, before it was measured.
        predictor: the latency model that made them.
        predicted_ms, std_ms: the prediction and its standard deviation.
        table_ms: the sum of its blocks; None where some were not measured.
        onnx: the exported file's content.
        records: its measurements, one of each session.
        levels: how fast the device was in each of them; None where that is not known.
        belief: what the accuracy predictor says; None where its error on these weights is not known.
        valid: its accuracy on held-out images of the training split; None without data.
        tuned: its training after the search, if there was one: subnet, file and accuracy are what came out.
        earlier_ms: what it took when an earlier question was answered; None where it took no part in that.
    """

    point: Point
    predictor: LatencyModel
    predicted_ms: float
    std_ms: float
    table_ms: float | None
    subnet: Subnet
    onnx: bytes
    records: tuple[Measurement, ...]
    levels: tuple[LevelNow | None, ...]
    valid: Validation | None
    belief: Belief | None = None
    tuned: Tuned | None = None
    earlier_ms: float | None = None

    @property
    def posterior(self) -> Posterior | None:
        """The accuracy that is believed of it. What is predicted of inherited weights says nothing of tuned ones."""
        return posterior(None if self.tuned else self.belief, self.valid)

    @property
    def worth(self) -> float:
        """By what finalists are compared: the mean of the posterior; what the search maximised where there is none."""
        return self.point.accuracy if (known := self.posterior) is None else known.mean

    @property
    def record(self) -> Measurement:
        """The slowest of its measurements: what is promised held in all of them."""
        return max(self.records, key=lambda record: record.ms(self.predictor.statistic))

    @property
    def level(self) -> LevelNow | None:
        """How fast the device was in the rounds of ``record``."""
        return self.levels[self.records.index(self.record)]

    @property
    def measured_ms(self) -> float:
        """The budget's statistic of the slowest measurement."""
        return self.record.ms(self.predictor.statistic)

    def at(self, network: Network, level: LevelNow | None) -> float:
        """The prediction at a level, in ms; for None, at the level when the target was profiled."""
        (mean,), _ = self.predictor.at(level).predict([network])
        return float(mean)


@dataclass
class Extraction:
    """Everything that a report tells.

    Attributes:
        result: the last search.
        finalists: all that were measured, in the order of measurement.
        chosen: the answer.
        session_std: by how much one session's measurements differ from another's, a fraction.
        fp32: where another precision was asked for, a measurement of the answer in fp32 on the same device.
        precisions: where several were asked for, what each had to offer; see ``precisions.extract_best``.
        recalled: keys of the finalists that the search did not find: they were answers before.
        beside: hand-picked networks and the answer, measured in the same rounds, where that was asked for.
    """

    subject: Subject
    target: TargetProfile
    constraints: Constraints
    seed: int
    result: SearchResult
    finalists: list[Finalist]
    chosen: Finalist
    session_std: float
    fp32: Measurement | None = None
    precisions: list[PrecisionOffer] = field(default_factory=list)
    recalled: frozenset[str] = frozenset()
    beside: Together | None = None

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Between which latencies 95 % of further sessions are expected to measure the answer."""
        return confidence_interval(self.chosen.record.timings, self.constraints.statistic, self.session_std)
