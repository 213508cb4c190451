"""What goes over the wire, validated: a number that cannot be a latency never gets past this module."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from ofa_deploy.fleet.protocol import Protocol

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(min_length=1, max_length=300)]
Text = Annotated[str, Field(max_length=2000)]
Milliseconds = Annotated[float, Field(ge=1e-6, lt=1e6, strict=True)]  # a call's: a nanosecond to a quarter of an hour


def _in_the_calendar(moment: str) -> str:
    datetime.fromisoformat(moment)
    return moment


Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"), AfterValidator(_in_the_calendar)]
Bursts = Annotated[list[Milliseconds], Field(min_length=2, max_length=1000)]
Reason = Literal["worker-shutdown", "timeout", "malformed", "out-of-memory", "unsupported", "failed"]
RETRY_REASONS = frozenset({"worker-shutdown", "timeout", "failed"})


class Message(BaseModel):
    """Base of all messages: unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Runtime(Message):
    """How the device should run the models; the condition of a row says how it did."""

    runtime: Name
    provider: Name
    precision: Name
    batch: Annotated[int, Field(gt=0)]
    threads: Annotated[int, Field(gt=0)]
    simulation: dict[str, JsonValue] | None = None


class JobItem(Message):
    """One thing to measure; ``blob`` is the sha256 of its model."""

    kind: Literal["op", "network"]
    key: Key
    ops: Annotated[list[Key], Field(min_length=1, max_length=10000)]
    specs: list[dict[str, JsonValue]]
    counts: list[dict[str, Annotated[int, Field(ge=0)]]] = []
    arch: dict[str, JsonValue] | None
    blob: Sha256


class JobRequest(Message):
    """A job; the client chooses its ``id``, so that asking twice makes one job.

    The device takes the first of the ``sentinels`` that it can run.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    device: Name
    runtime: Runtime
    settings: Protocol
    sentinels: Annotated[list[Sha256], Field(min_length=1, max_length=20)]
    items: Annotated[list[JobItem], Field(min_length=1, max_length=100_000)]


class Claim(Message):
    """An agent asks for work, and waits for it up to ``wait_s`` seconds."""

    device: Name
    facts: dict[str, JsonValue]
    wait_s: Annotated[float, Field(ge=0, le=60)] = 0


class RunProgress(Message):
    """How far a run is."""

    phase: Literal["loading", "waiting", "warm-up", "rounds"]
    items: int | None = None
    done: int | None = None
    settled: int | None = None
    round: int | None = None
    rounds_min: int | None = None


class RunFailure(Message):
    """Why a chunk or an item could not be measured."""

    reason: Reason
    message: Text


class Condition(Message):
    """What the rows were really measured under. Rows of different conditions never mix."""

    runtime: Name
    runtime_version: Text
    provider: Name
    precision: Name
    batch: int
    threads: int
    simulated: bool
    power_mode: Text = "unknown"


class Sentinel(Message):
    """Every timing of the sentinel: ``visits[round][visit][burst]``."""

    blob: Sha256
    burst: Annotated[int, Field(gt=0)]
    visits: Annotated[list[Annotated[list[Bursts], Field(min_length=3, max_length=3)]], Field(min_length=3)]


class ItemResult(Message):
    """Every timing of an item, ``timings[round][burst]``, or the reason why there is none."""

    item: Key
    burst: Annotated[int, Field(gt=0)] | None = None
    timings: list[Bursts] | None = None
    error: RunFailure | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ItemResult:
        if (self.error is None) == (self.timings is None) or (self.timings is None) != (self.burst is None):
            raise ValueError(f"item {self.item} needs either burst and timings, or an error")
        return self


class RunResult(Message):
    """All that a run measured."""

    condition: Condition
    facts: dict[str, JsonValue]
    settings: Protocol
    started_at: Moment
    finished_at: Moment
    stopped: Literal["settled", "cap", "rounds"]
    sentinel: Sentinel
    items: list[ItemResult]

    @model_validator(mode="after")
    def _same_rounds(self) -> RunResult:
        rounds = len(self.sentinel.visits)
        for item in self.items:
            if item.timings is not None and len(item.timings) != rounds:
                raise ValueError(f"item {item.item} has {len(item.timings)} rounds, the sentinel {rounds}")
        return self


class JobStatus(Message):
    """How far a job is: counts of items, and what the running chunk says."""

    id: str
    device: str
    state: Literal["active", "done", "cancelled"]
    total: int
    done: int
    failed: int
    errors: list[dict[str, Any]]
    progress: dict[str, Any] | None
    running: int
