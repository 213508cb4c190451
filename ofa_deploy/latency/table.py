"""What was measured on one device under one condition: a row per block, and whole networks beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ofa_deploy.blocks import Network, OpSpec
from ofa_deploy.config import PUBLISHED
from ofa_deploy.errors import OpNotProfiled, UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.json_types import JSON
from ofa_deploy.latency.condition import Condition, differences, full_condition
from ofa_deploy.latency.measurement import Measurement

SCHEMA = 1


def block_key(key: str) -> str:
    """The key of the block behind a row's key, which may end in the resolution of the network around it."""
    return key.partition("@")[0]


def stored_block(key: str, spec: Mapping[str, JSON] | None = None) -> OpSpec:
    """A block that was measured: from its fields; from its key where an earlier version stored nothing else.

    Raises:
        UsageError: they are none of a block.
    """
    return OpSpec.from_json(spec) if spec else OpSpec.from_key(key)


@dataclass(frozen=True)
class Row:
    """One measured item; latencies in milliseconds, ``se`` and ``cov`` as fractions of them.

    Attributes:
        key: of the block, or of the whole network.
        ops: keys of the blocks it consists of (a block: itself).
        n: how many timings; 0 where a file of others did not say, and then ``cov`` and ``se`` are 0 too.
        se: relative standard error of the median.
        best: what it costs while nothing disturbs the device, with its relative standard error; as the median where
            only that is known.
        energy_mj: of one inference, where it was measured.
        specs: of the blocks, in the order of ``ops``; none in a row that an earlier version stored.
    """

    key: str
    ops: tuple[str, ...]
    p50: float
    p90: float
    p99: float
    n: int
    cov: float
    se: float
    flags: tuple[str, ...] = ()
    measured_at: str = ""
    best: float = 0.0
    best_se: float = 0.0
    energy_mj: float | None = None
    specs: tuple[OpSpec, ...] = field(default=(), compare=False, repr=False)  # the keys tell rows apart

    def __post_init__(self) -> None:
        if not self.best:
            object.__setattr__(self, "best", self.p50)
            object.__setattr__(self, "best_se", self.se)

    @classmethod
    def of(cls, measured: Measurement) -> Row:
        """The part of a measurement that a prediction needs.

        Raises:
            UsageError: it does not say of each of its blocks what that is.
        """
        specs = tuple(map(OpSpec.from_json, measured.specs))
        if specs and len(specs) != len(measured.ops):
            raise UsageError(f"{measured.key} has {len(measured.ops)} blocks and {len(specs)} specs")
        best, best_se = measured.best, measured.best_se
        if best is None or best_se is None:  # of an older protocol, whose best was another
            best = best_se = 0.0
        names = ("key", "p50", "p90", "p99", "n", "cov", "se", "measured_at", "energy_mj")
        fields = {name: getattr(measured, name) for name in names}
        ops, flags = tuple(measured.ops), tuple(measured.flags)
        return cls(ops=ops, flags=flags, specs=specs, best=best, best_se=best_se, **fields)

    @property
    def blocks(self) -> tuple[OpSpec, ...]:
        """The blocks it consists of.

        Raises:
            UsageError: see ``stored_block``.
        """
        return self.specs or tuple(map(stored_block, self.ops))

    @property
    def block(self) -> OpSpec:
        """The block that a row is of; of a network the first."""
        return self.blocks[0]

    def to_json(self) -> dict[str, JSON]:
        """What was measured, as a JSON object; a table says beside its rows what their blocks are."""
        return {name: value for name, value in vars(self).items() if name != "specs"}


@dataclass(frozen=True)
class LatencyTable:
    """The rows of one device and one condition (runtime and version, provider, precision, batch, threads, power mode).

    Attributes:
        rows: newest measurement of every block, by its key.
        networks: newest measurement of every whole network, by its key.
    """

    device: str
    condition: Condition
    rows: Mapping[str, Row]
    networks: Mapping[str, Row] = field(default_factory=dict)

    @classmethod
    def from_records(cls, device: str, records: Iterable[Measurement]) -> LatencyTable:
        """Build a table from measurements, oldest first.

        Networks that are older than every block were measured before all blocks were measured again, and do not count;
        nor do anchors, which say how fast the device was in another hour.

        Raises:
            UsageError: the records were measured under different conditions; names all that differs.
        """
        rows: dict[str, Row] = {}
        networks: dict[str, Row] = {}
        condition: Condition = {}
        for record in records:
            if record.kind == "anchor":
                continue
            condition = condition or full_condition(record.condition)
            if unlike := differences(condition, record.condition):
                what = "; ".join(f"{key} is {one!r} and {other!r}" for key, (one, other) in unlike.items())
                raise UsageError(f"rows of {device} from different conditions do not mix: {what}")
            row = Row.of(record)
            (rows if record.kind == "op" else networks)[row.key] = row
        oldest = min((row.measured_at for row in rows.values()), default="")
        networks = {key: row for key, row in networks.items() if row.measured_at >= oldest}
        return cls(device, condition, rows, networks)

    @property
    def per_resolution(self) -> bool:
        """Whether a block has a row for every resolution of the network around it, as some published tables have."""
        return bool(self.condition.get("per_resolution", False))

    def row_keys(self, network: Network) -> list[str]:
        """The keys of a network's rows, block by block; its resolution is the side of the first block's input."""
        at = f"@{network.ops[0].h}" if self.per_resolution else ""
        return [f"{key}{at}" for key in network.unit_keys]

    @property
    def simulated(self) -> bool:
        """Whether the numbers come from a simulation."""
        return bool(self.condition.get("simulated", False))

    def missing(self, ops: Iterable[str]) -> list[str]:
        """Those of the given block keys that were never measured."""
        return [key for key in dict.fromkeys(ops) if key not in self.rows]

    def require(self, ops: Iterable[str]) -> None:
        """Check that every block was measured.

        Raises:
            OpNotProfiled: names the first missing block and the command that measures it.
        """
        missing = self.missing(ops)
        if missing:
            published = self.condition.get("runtime") == PUBLISHED
            remedy = f"measure with: ofa-deploy profile --target {self.device}"
            remedy = "its table was imported: import one that has them" if published else remedy
            raise OpNotProfiled(
                f"{missing[0]} was never measured on {self.device} ({len(missing)} such blocks); {remedy}"
            )

    def total(self, network: Network | Sequence[str], statistic: str = "p50") -> float:
        """Sum of the blocks' latencies: the naive prediction."""
        ops = self.row_keys(network) if isinstance(network, Network) else network
        self.require(ops)
        return sum(getattr(self.rows[key], statistic) for key in ops)

    def known_total(self, network: Network | Sequence[str], statistic: str = "p50") -> float | None:
        """The same, or None where a block was never measured."""
        ops = self.row_keys(network) if isinstance(network, Network) else network
        return None if self.missing(ops) else self.total(ops, statistic)

    @property
    def sha256(self) -> str:
        """By which damage is detected, and a table recognised."""
        return _digest(self._body())

    def to_json(self) -> dict[str, object]:
        """The table as a JSON object with its digest."""
        body = self._body()
        return {**body, "sha256": _digest(body)}

    def _body(self) -> dict[str, object]:
        rows, networks = list(self.rows.values()), list(self.networks.values())
        body: dict[str, object] = {
            "schema": SCHEMA,
            "device": self.device,
            "condition": self.condition,
            "rows": [row.to_json() for row in rows],
            "networks": [row.to_json() for row in networks],
        }
        every = (pair for row in rows + networks if row.specs for pair in zip(row.ops, row.specs, strict=True))
        if specs := {block_key(key): spec for key, spec in every}:
            body["specs"] = {key: spec.to_json() for key, spec in specs.items()}
        return body

    def save(self, path: Path) -> None:
        """Write the table as a JSON file."""
        write_atomic(path, json.dumps(self.to_json(), indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Read what ``save`` wrote.

        Raises:
            UsageError: the file is missing, truncated or changed.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"cannot read the table {path}: {error.strerror}") from error
        except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a whole latency table (truncated or edited); export it again") from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Read what ``to_json`` wrote.

        Raises:
            UsageError: the digest does not match.
            KeyError, TypeError: the object is no table.
        """
        body = {key: value for key, value in data.items() if key != "sha256"}
        if data["sha256"] != _digest(body) or data["schema"] != SCHEMA:
            raise UsageError("the latency table does not match its digest: it was edited, or a newer version wrote it")
        specs = {key: OpSpec.from_json(spec) for key, spec in body.get("specs", {}).items()}
        rows, networks = ({row["key"]: _row(row, specs) for row in body[part]} for part in ("rows", "networks"))
        return cls(body["device"], body["condition"], rows, networks)


def _row(data: Mapping[str, Any], specs: Mapping[str, OpSpec]) -> Row:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return Row(**fields, specs=tuple(specs[block_key(key)] for key in data["ops"]) if specs else ())


def _digest(body: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
