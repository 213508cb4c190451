"""``summary.json``: what a pipeline's run came to."""

from __future__ import annotations

from pydantic import Field

from ofa_deploy.documents.json_document import Document, Flag, Number, Whole, Words


class UnitTold(Document):
    """A unit of work; ``status`` is ``done``, ``skipped``, ``failed``, ``not run`` or ``would run``."""

    name: Words
    target: Words | None
    status: Words
    why: Words
    seconds: Number


class GateTold(Document):
    """What became of a gate on a bundle; ``passed`` is None where there is nothing to compare with."""

    gate: Words
    bundle: Words
    value: Number | None
    passed: Flag | None
    why: Words


class Change(Document):
    """What changed since an earlier run's bundle.

    Attributes:
        latency, size: ratios, now over then.
        slower: whether it is slower beyond chance.
        accuracy: now less then, a fraction, with the standard error ``accuracy_error``; None where it is unknown.
        p50_ms, key: of the earlier bundle.
    """

    latency: Number
    slower: Flag
    accuracy: Number | None
    accuracy_error: Number | None = None
    size: Number
    p50_ms: Number
    key: Words | None


class BundleTold(Document):
    """A bundle in figures: ms; accuracies are fractions, on ``n`` images."""

    folder: Words
    target: Words | None
    simulated: Flag
    max_ms: Number | None
    predicted_ms: Number | None
    p50_ms: Number | None
    accuracy: Number | None
    n: Number | None = None
    expected: Number | None = None
    drop: Number | None = None
    params: Number | None = None
    size_bytes: Whole | None
    key: Words | None
    baseline: Change | None


class Summary(Document):
    """The whole run.

    Attributes:
        error: why it failed.
        page: file name of the page that compares the bundles.
    """

    version: Whole = Field(default=1, alias="schema")
    pipeline: Words
    passed: Flag
    error: Words | None
    units: list[UnitTold]
    gates: list[GateTold]
    bundles: list[BundleTold]
    page: Words | None = None
