"""``report.json``: everything that a bundle's report says. docs/reference/files.md describes it for users."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ofa_deploy.documents.audit_document import AuditFigures, DeviceLevel, TimedNetwork
from ofa_deploy.documents.baselines_document import ReportBaselines
from ofa_deploy.documents.json_document import Document, Flag, Free, FreeObject, Number, Whole, Words
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.preprocessing_document import Preprocessing
from ofa_deploy.documents.tuning_document import SplitAccuracies
from ofa_deploy.terms import Statistic

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Ms = Annotated[Number, Field(gt=1e-9, lt=1e9)]


class Target(Document):
    """The device and the condition under which the subnet was measured.

    Attributes:
        runtime: with its version.
        facts: what the device says of itself.
    """

    name: Words | None = None
    runtime: Words | None = None
    provider: Words | None = None
    precision: Precision | None = None
    batch: Annotated[Whole, Field(ge=1)] | None = None
    threads: Whole | None = None
    power_mode: Words | None = None
    simulated: Flag | None = None
    facts: FreeObject = {}


class Budget(Document):
    """What was asked for.

    Attributes:
        max_ms: bound of the statistic.
        confidence: probability with which a prediction had to meet it.
    """

    max_ms: Ms | None = None
    statistic: Statistic = "p50"
    confidence: Annotated[Number, Field(gt=0, lt=1)] | None = None


class SubnetFacts(Document):
    """The subnet.

    Attributes:
        key: sha256 of its arch.
        arch: as ``arch.json``.
        macs: multiply-accumulates for one image.
        memory_mb: weights and live activations, in 10⁶ bytes.
    """

    key: Words | None = None
    arch: FreeObject = {}
    macs: Number | None = None
    params: Number | None = None
    memory_mb: Number | None = None


class Believed(Document):
    """The accuracy that is expected after prediction and validation, with its 95 % interval; fractions."""

    posterior: Number | None = None
    low: Number | None = None
    high: Number | None = None


class Accuracy(Believed):
    """The accuracy; fractions.

    Attributes:
        predicted, predictor_error: by the accuracy predictor, and how that errs.
        valid, valid_n: on held-out images of the training split, and how many they are.
        before_tuning: of the weights before they were fine-tuned.
        measured: of the shipped file on ``n`` test images.
        torch: of the module that the file was written from; ``drop`` is what the file loses.
    """

    predicted: Number | None = None
    predictor_error: PredictorError | None = None
    valid: Number | None = None
    valid_n: Whole | None = None
    before_tuning: SplitAccuracies | None = None
    measured: Number | None = None
    torch: Number | None = None
    drop: Number | None = None
    dataset: Words | None = None
    split: Words | None = None
    n: Whole | None = None


class Measured(Document):
    """Statistics of a measurement: ms of one inference, and of ``n`` timings the relative standard deviation ``cov``;
    ``se`` is the relative standard error of ``p50``."""

    p50: Number | None = None
    p90: Number | None = None
    p99: Number | None = None
    n: Number | None = None
    cov: Number | None = None
    se: Number | None = None

    def ms(self, statistic: Statistic) -> float | None:
        """One of its latencies."""
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99}[statistic]


class Latency(Document):
    """The latency; ms.

    Attributes:
        predicted_ms, std_ms: before it was measured, with the standard deviation.
        upper_ms: the bound that the search trusted.
        table_ms: plain sum of the blocks.
        sessions_ms: of each measurement, the budget's statistic; ``session_std`` is by what fraction they differ.
        interval_ms: where 95 % of further measurements are expected.
        measured_ms: of the slowest measurement.
        error_pct: of the prediction.
        undisturbed_ms: without waiting; ``work_ms`` and ``waiting_ms`` are parts of the measured time.
        as_measured_ms, as_profiled_ms: predicted at the level of the rounds that measured it, and of the profile.
        fits: whether the budget holds.
    """

    predicted_ms: Ms | None = None
    std_ms: Number | None = None
    upper_ms: Number | None = None
    table_ms: Number | None = None
    sessions_ms: list[Number] = []
    session_std: Annotated[Number, Field(ge=0, lt=1e9)] | None = None
    interval_ms: list[Number] = []
    measured_ms: Measured | None = None
    error_pct: Number | None = None
    undisturbed_ms: Number | None = None
    work_ms: Number | None = None
    waiting_ms: Number | None = None
    as_measured_ms: Number | None = None
    as_profiled_ms: Number | None = None
    fits: Flag | None = None

    def measured(self, statistic: Statistic) -> float | None:
        """A statistic of the measurement; None where nothing was measured."""
        return None if self.measured_ms is None else self.measured_ms.ms(statistic)


class Parity(Document):
    """How far the exported file's logits are from torch's on ``n`` images.

    Attributes:
        max_abs: largest absolute difference.
        psnr_db: of the range of torch's logits to the root mean square of the difference.
        top1_agreement: share of images with the same class.
        runtime: the Python package that ran the file.
    """

    max_abs: Number | None = None
    psnr_db: Number | None = None
    top1_agreement: Number | None = None
    n: Number | None = None
    runtime: Literal["onnxruntime", "openvino"] | None = None


class ReportVerdict(Document):
    """``fits``, ``over`` or ``not measured``, and that in words."""

    status: Words | None = None
    text: Words | None = None


class FinalistRow(Believed):
    """A subnet that was measured before one was chosen: latencies in ms, accuracies as fractions.

    Attributes:
        measured_ms: the budget's statistic of its slowest measurement.
        valid_accuracy, valid_n: on held-out images of the training split, and how many they are.
        inherited_accuracy: the same before it was fine-tuned.
        accuracy: what earlier versions called ``valid_accuracy``.
    """

    key: Words | None = None
    arch: FreeObject = {}
    predicted_ms: Number | None = None
    std_ms: Number | None = None
    upper_ms: Number | None = None
    table_ms: Number | None = None
    measured_ms: Number | None = None
    predicted_accuracy: Number | None = None
    valid_accuracy: Number | None = None
    valid_n: Whole | None = None
    inherited_accuracy: Number | None = None
    tuned: Flag = False
    accuracy: Number | None = None


class FrontPoint(Document):
    """One of the most accurate subnets found, by prediction: ms, and a fraction."""

    key: Words | None = None
    latency_ms: Number | None = None
    upper_ms: Number | None = None
    accuracy: Number | None = None


class CoursePoint(Document):
    """How far a search by gradient was at a step: the mixture's loss on held-out images, how undecided it was (1 where
    all choices are equally likely), and the expected latency in ms."""

    step: Number | None = None
    loss: Number | None = None
    entropy: Number | None = None
    expected_ms: Number | None = None


class GuardActed(Document):
    """A guard that stopped or changed a search: when and why."""

    guard: Words | None = None
    step: Whole | None = None
    why: Words | None = None


class SearchTold(Document):
    """The strategy; of a search by gradient, its course and what guards did."""

    strategy: Words | None = None
    course: list[CoursePoint] = []
    acted: list[GuardActed] = []


class BlockRow(Document):
    """A block of the subnet; ms.

    Attributes:
        table_ms: measured alone.
        posterior_ms: what the latency model, which has seen whole networks, adds for it.
        residual_ms: by how much the subnet's own measurement changes that.
        share: of the predicted latency, a fraction.
        flags: of its row in the table.
    """

    name: Words | None = None
    op: Words | None = None
    table_ms: Number | None = None
    posterior_ms: Number | None = None
    residual_ms: Number | None = None
    share: Number | None = None
    flags: list[Words] = []


class PrecisionOffer(Document):
    """What a precision had to offer: its best subnet's latency in ms, and its file's accuracy on ``n`` held-out images
    with the ``drop`` from torch's; or why it was ``refused``."""

    precision: Words | None = None
    key: Words | None = None
    measured_ms: Number | None = None
    valid: Number | None = None
    n: Whole = 0
    drop: Number | None = None
    refused: Words | None = None


class Provenance(Document):
    """Where everything came from.

    Attributes:
        name: the supernet's, or of what stands in for it.
        recipe, source: what it was trained with, or imported from.
        predictor: how the accuracy predictor errs.
        weights: how the subnet was fine-tuned.
        target: the target's profile.
        latencies: ``measured``, or that they are simulated.
        evaluations: subnets that the search assessed.
    """

    name: Words | None = None
    supernet_sha256: Words | None = None
    random_weights: Flag | None = None
    space: FreeObject | None = None
    recipe: FreeObject | None = None
    source: FreeObject | None = None
    predictor: PredictorError | None = None
    torch: Words | None = None
    weights: FreeObject | None = None
    seed: Whole | None = None
    git_commit: Words | None = None
    target: FreeObject | None = None
    simulated: Flag | None = None
    latencies: Words | None = None
    latency_table_sha256: Words | None = None
    measured_at: Words | None = None
    evaluations: Whole | None = None
    versions: dict[str, Words] = {}


class Report(Document):
    """The whole report.

    Attributes:
        constraints: the other bounds by name; None where there is none.
        level: how much slower the device was than when it was profiled; None where that is not known.
        audit: the newest one of the same target and conditions; ``audit_command`` makes one.
        networks: whole networks, predicted and measured.
        front: empty where accuracies are not predicted.
        precisions: where several were asked for.
        cells: the search that found the cells, of networks of cells.
        notes: warnings in words.
        command: repeats the extraction.
        size_bytes: of ``model.onnx``.
        baselines: hand-picked networks beside the subnet, where they were asked for.
    """

    version: Whole = Field(default=1, alias="schema")
    target: Target = Target()
    budget: Budget = Budget()
    constraints: dict[str, Number | None] = {}
    subnet: SubnetFacts = SubnetFacts()
    accuracy: Accuracy = Accuracy()
    latency: Latency = Latency()
    level: DeviceLevel | None = None
    parity: Parity = Parity()
    verdict: ReportVerdict = ReportVerdict()
    audit: AuditFigures | None = None
    audit_command: Words | None = None
    networks: list[TimedNetwork] = []
    finalists: list[FinalistRow] = []
    front: list[FrontPoint] = []
    search: SearchTold = SearchTold()
    blocks: list[BlockRow] = []
    precisions: list[PrecisionOffer] = []
    cells: Free = None
    notes: list[Words] = []
    command: Words | None = None
    provenance: Provenance = Provenance()
    size_bytes: Whole | None = None
    preprocessing: Preprocessing | None = None
    baselines: ReportBaselines | None = None
