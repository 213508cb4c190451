"""A measurement as it is stored, sent over HTTP and kept as evidence: here alone its JSON is read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from ofa_deploy.documents.json_document import FreeObject
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.latency.condition import StoredCondition


class Measurement(BaseModel):
    """One block, one cell or one whole network, as a device ran it. Fields that earlier versions did not write, and
    those that an import cannot know, are optional; what later versions add is kept.

    Attributes:
        device: its name.
        kind: ``op`` for a block or a cell; ``anchor`` for a network that shows how fast the device was.
        key, ops, specs: of what was measured; the keys and the fields of the blocks it consists of.
        counts: what each block amounts to, see ``space.unit_counts``.
        arch: where a network comes from a space, its genotype.
        blob: sha256 of the model's file.
        condition: what it was measured under; rows of different conditions never mix.
        facts: what the device said about itself.
        settings: of the protocol; ``stopped`` says why the rounds ended.
        p50, p90, p99: milliseconds of one inference; ``n`` timings, whose standard deviation is ``cov`` of their mean.
        se: relative standard error of ``p50``; infinite for few rounds.
        best, best_se: milliseconds while nothing disturbs the device, with their relative standard error.
        work_ms, waiting_ms: of ``p50``, computing and waiting for a core, where the device tells them apart.
        energy_mj: of one inference.
        flags: ``noisy``, ``throttled``, ``short``.
        rounds, timings, cpu, switches: medians of the rounds that count; milliseconds, processor time and lost cores
            of their bursts ``[round][burst]``; ``excluded`` timings of the others. A burst is ``burst`` calls.
        sentinel_ms, scale, best_scale: level of the chunk's sentinel, and by what latencies were multiplied to put
            chunks on one level.
        details: what the runtime tells of the model.
        started_at, measured_at: UTC, ISO 8601.
        run, item, id: of the run, of the item in its job, and of the record in a database.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    device: str
    kind: Literal["op", "network", "anchor"]
    key: str
    ops: list[str]
    specs: list[FreeObject] = []
    counts: list[FreeObject] = []
    arch: FreeObject | None = None
    blob: str | None = None
    condition: StoredCondition
    facts: FreeObject = {}
    settings: FreeObject = {}
    stopped: str | None = None
    p50: float
    p90: float
    p99: float
    n: int
    cov: float
    se: float
    best: float | None = None
    best_se: float | None = None
    work_ms: float | None = None
    waiting_ms: float | None = None
    energy_mj: float | None = None
    flags: list[str]
    rounds: list[float] = []
    timings: list[list[float]] = []
    cpu: list[list[float]] | None = None
    switches: list[list[int]] | None = None
    excluded: list[list[float]] = []
    burst: int | None = None
    sentinel_ms: float | None = None
    scale: float = 1.0
    best_scale: float = 1.0
    details: FreeObject | None = None
    started_at: str = ""
    measured_at: str
    run: str | None = None
    item: str | None = None
    id: int | None = None

    @property
    def simulated(self) -> bool:
        """Whether the numbers come from a simulation."""
        return bool(self.condition.get("simulated", False))

    def ms(self, statistic: str) -> float:
        """Its ``p50``, ``p90`` or ``p99``."""
        return float(getattr(self, statistic))

    def without(self, *names: str) -> Self:
        """The same without some fields."""
        return self.from_json({name: value for name, value in self.to_json().items() if name not in names})

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        """Read what ``to_json`` wrote, or an earlier version.

        Raises:
            UsageError: it is no measurement; names the first wrong field.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UsageError(f"the measurement of {data.get('key')!r} is damaged: {where}: {first['msg']}") from error

    def to_json(self) -> dict[str, JSON]:
        """The fields that it was made with, as a JSON object."""
        return self.model_dump(exclude_unset=True)
