"""What goes over the wire, validated: a number that cannot be a latency, or cannot be stored, never gets past here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from ofa_deploy.fleet.protocol import Protocol
from ofa_deploy.json_types import JSON
from ofa_deploy.store import ItemFailure

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Queue = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$")]
Key = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00]*$")]
Text = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]  # PostgreSQL stores no NUL
# a call's: no runtime is called in less than 100 ns, and nobody waits a quarter of an hour for one answer
Milliseconds = Annotated[float, Field(ge=1e-4, lt=1e6, strict=True)]

DEPTH = 32  # of objects and lists inside each other
TEXT = 2**16  # characters of one text; TensorRT names a layer after all that it fused into it
INTEGER = 2**63  # what databases hold, and other programs read
FACTS_BYTES = 64 * 2**10  # that a device may say about itself
DETAILS_BYTES = 2**20  # that a runtime may tell of one model; the agent keeps 256 kB of TensorRT's inspector


def _storable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse what cannot be stored or shown: NaN, text that is not Unicode, NUL, and what is too large or too deep."""
    try:
        _check_json(value, DEPTH)
    except ValueError as error:
        raise ValueError(f"cannot be stored: {error}") from None
    return value


def _check_json(value: object, depth: int) -> None:
    if isinstance(value, str):
        if len(value) > TEXT:
            raise ValueError(f"a text has {len(value)} characters, {TEXT} are allowed")
        if "\x00" in value:
            raise ValueError("it holds a NUL character")
        value.encode()
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is not finite")
    elif isinstance(value, int):
        if not -INTEGER <= value < INTEGER:
            raise ValueError("an integer needs more than 64 bits")
    elif isinstance(value, (dict, list)):
        if not depth:
            raise ValueError(f"its lists and objects lie inside each other more than {DEPTH} deep")
        for part in value:
            _check_json(part, depth - 1)
        for part in value.values() if isinstance(value, dict) else ():
            _check_json(part, depth - 1)


def _at_most(size: int) -> Callable[[dict[str, JsonValue]], dict[str, JsonValue]]:
    def check(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if (length := len(json.dumps(value, ensure_ascii=False).encode())) > size:
            raise ValueError(f"it has {length} bytes as JSON, {size} are allowed")
        return value

    return check


if TYPE_CHECKING:
    Json: TypeAlias = Mapping[str, JSON]
    Facts: TypeAlias = Json
    Details: TypeAlias = Json
else:
    Json = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
    Facts = Annotated[Json, AfterValidator(_at_most(FACTS_BYTES))]
    Details = Annotated[Json, AfterValidator(_at_most(DETAILS_BYTES))]


def _in_the_calendar(moment: str) -> str:
    datetime.fromisoformat(moment)
    return moment


Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"), AfterValidator(_in_the_calendar)]
Bursts = Annotated[list[Milliseconds], Field(min_length=2, max_length=1000)]
Spent = Annotated[
    list[Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]], Field(min_length=2, max_length=1000)
]
Switches = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=2, max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
DAY_S = 24 * 3600.0
Reason = Literal["worker-shutdown", "timeout", "malformed", "out-of-memory", "unsupported-op", "failed"]
RETRY_REASONS = frozenset({"worker-shutdown", "timeout", "failed"})


class Message(BaseModel):
    """Base of all messages: unknown keys, other types, NaN and infinities are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Runtime(Message):
    """How the device should run the models; the condition of a row says how it did."""

    runtime: Name
    provider: Name
    precision: Name
    batch: Annotated[int, Field(gt=0)]
    threads: Annotated[int, Field(gt=0)]
    simulation: Json | None = None


class JobItem(Message):
    """One thing to measure; ``blob`` is the sha256 of its model, ``counts`` what each of its ops amounts to."""

    kind: Literal["op", "network", "anchor"]
    key: Key
    ops: Annotated[list[Key], Field(min_length=1, max_length=10000)]
    specs: list[Json]
    counts: list[Json] = []
    arch: Json | None
    blob: Sha256


class JobRequest(Message):
    """A job; the client chooses its ``id``, so that asking twice makes one job.

    The device takes the first of the ``sentinels`` that it can run; they are the blobs of some of the items.
    ``queue`` is "" for a registered device, or that of the command which started the agent. The job fails when no agent
    takes anything of it within ``queue_s``, and a run that takes longer than ``run_s`` is over.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    device: Name
    queue: Queue = ""
    queue_s: Annotated[float, Field(gt=0, le=30 * DAY_S)] = DAY_S
    run_s: Annotated[float, Field(gt=0, le=DAY_S)] = 3600.0
    runtime: Runtime
    settings: Protocol
    sentinels: Annotated[list[Sha256], Field(min_length=1, max_length=20)]
    items: Annotated[list[JobItem], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _sentinels_are_items(self) -> JobRequest:
        if unknown := set(self.sentinels) - {item.blob for item in self.items}:
            raise ValueError(f"sentinel {min(unknown)} is no item's blob")
        return self


class Registration(Message):
    """A device is to be let in: as what, and, where a command starts its agent, for which queue only."""

    name: Name
    profile: Json
    queue: Queue = ""


class Admission(Message):
    """With which code a device's agent may come in, and until when."""

    name: str
    code: str
    expires_at: str


class Enrolment(Message):
    """An agent trades a code for a token, whose secret part it makes itself, so that an answer may get lost."""

    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{10,100}$")]
    secret: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43,100}$")]
    facts: Facts


class Claim(Message):
    """An agent asks for work, and waits for it up to ``wait_s`` seconds; ``run`` is one that it could go on with."""

    facts: Facts
    wait_s: Annotated[float, Field(ge=0, le=60)] = 0
    queue: Queue = ""
    run: Name | None = None


class RunProgress(Message):
    """How far a run is."""

    phase: Annotated[str, Field(pattern=r"^[a-z][a-z -]{0,29}$")]
    items: Count | None = None
    done: Count | None = None
    settled: Count | None = None
    round: Count | None = None
    rounds_min: Count | None = None


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
    """Every timing of an item, ``timings[round][burst]``, or the reason why there is none; and what its runtime tells
    of the model, such as the profile of an engine's layers.

    Attributes:
        cpu, switches: milliseconds of processor time of a call, and how often the burst lost its core; like
            ``timings``, where the device knows.
    """

    item: Key
    burst: Annotated[int, Field(gt=0)] | None = None
    timings: list[Bursts] | None = None
    cpu: list[Spent] | None = None
    switches: list[Switches] | None = None
    details: Details | None = None
    error: RunFailure | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ItemResult:
        if (self.error is None) == (self.timings is None) or (self.timings is None) != (self.burst is None):
            raise ValueError(f"item {self.item} needs either burst and timings, or an error")
        sizes = [None if part is None else [len(bursts) for bursts in part] for part in (self.cpu, self.switches)]
        if sizes != [None, None] and sizes != 2 * [[len(bursts) for bursts in self.timings or []]]:
            raise ValueError(f"item {self.item}: cpu and switches must have one value for each of its timings")
        return self


class RunResult(Message):
    """All that a run measured."""

    condition: Condition
    facts: Facts
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
    """How far a job is: counts of items, and what the running chunk says.

    ``lost`` says why nobody will go on with it for now: the device is not there. The job waits for it.
    """

    id: str
    device: str
    state: Literal["active", "done", "cancelled"]
    total: int
    done: int
    failed: int
    errors: tuple[ItemFailure, ...]
    progress: dict[str, JsonValue] | None
    running: int
    lost: str | None

    @property
    def running_chunk(self) -> RunProgress:
        """How far the running chunk is; ``starting`` where nothing is known of it."""
        told = {"phase": "starting", **(self.progress or {})}
        return RunProgress.model_validate({name: told[name] for name in RunProgress.model_fields if name in told})


class Problem(BaseModel):
    """Why a request was refused; ``code`` where a program should know."""

    detail: str
    code: str | None = None
