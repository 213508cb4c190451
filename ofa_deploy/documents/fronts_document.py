"""What ``pareto --json`` prints: the fronts of accuracy against latency, of one device or several."""

from __future__ import annotations

from ofa_deploy.documents.audit_document import DeviceLevel
from ofa_deploy.documents.baselines_document import HandPicked
from ofa_deploy.documents.json_document import Document, Flag, FreeObject, Number, Whole, Words
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.report_document import FrontPoint
from ofa_deploy.terms import Statistic


class FrontTarget(Document):
    """A device of a front; its level in the middle of the front where that was measured."""

    simulated: Flag = False
    level: DeviceLevel | None = None


class JointBudget(Document):
    """The best subnet that meets the budgets of all devices: ms by device, and a fraction."""

    budgets_ms: dict[str, Number] = {}
    key: Words | None = None
    arch: FreeObject = {}
    accuracy: Number | None = None
    latency_ms: dict[str, Number] = {}
    upper_ms: dict[str, Number] = {}
    macs: Number | None = None


class FrontsFound(Document):
    """The whole answer.

    Attributes:
        accuracy: name of the imported accuracy predictor that was asked for.
        predicted: whether accuracies are predicted; a score takes their place otherwise.
        confidence: of the upper bounds ``upper_ms``.
        targets, fronts: by device.
        baselines: by device, the hand-picked networks that were trained on the same images and measured there.
        evaluations, seconds: subnets that the search assessed, and how long it took.
    """

    kind: Words = "front"
    space: Words | None = None
    supernet_sha256: Words | None = None
    accuracy: Words | None = None
    predicted: Flag = True
    predictor_error: PredictorError | None = None
    statistic: Statistic = "p50"
    confidence: Number | None = None
    constraints: FreeObject = {}
    seed: Whole | None = None
    baselines: dict[str, list[HandPicked]] = {}
    targets: dict[str, FrontTarget] = {}
    fronts: dict[str, list[FrontPoint]] = {}
    joint: list[JointBudget] = []
    evaluations: Whole | None = None
    seconds: Number | None = None
