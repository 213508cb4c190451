"""What was measured on one device under one condition: a row per block, and whole networks beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ofa_deploy.errors import OpNotProfiled, UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.space import Network

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One measured item; latencies in milliseconds, ``se`` and ``cov`` as fractions of them.

    Attributes:
        key: of the block, or of the whole network.
        ops: keys of the blocks it consists of (a block: itself).
        se: relative standard error of the median.
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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Row:
        """The part of a measurement record that a prediction needs."""
        names = ("key", "p50", "p90", "p99", "n", "cov", "se", "measured_at")
        return cls(ops=tuple(record["ops"]), flags=tuple(record["flags"]), **{name: record[name] for name in names})

    def scaled(self, factor: float) -> Row:
        """The row as a device shows it that takes ``factor`` times as long."""
        return replace(self, p50=factor * self.p50, p90=factor * self.p90, p99=factor * self.p99)


@dataclass(frozen=True)
class LatencyTable:
    """The rows of one device and one condition (runtime and version, provider, precision, batch, threads).

    Attributes:
        rows: newest measurement of every block, by its key.
        networks: newest measurement of every whole network, by its key.
    """

    device: str
    condition: Mapping[str, Any]
    rows: Mapping[str, Row]
    networks: Mapping[str, Row] = field(default_factory=dict)

    @classmethod
    def from_records(cls, device: str, records: Iterable[Mapping[str, Any]]) -> LatencyTable:
        """Build a table from measurement records, oldest first.

        Raises:
            UsageError: the records were measured under different conditions; names the first difference.
        """
        rows: dict[str, Row] = {}
        networks: dict[str, Row] = {}
        condition: Mapping[str, Any] = {}
        for record in records:
            condition = condition or record["condition"]
            if record["condition"] != condition:
                other = record["condition"]
                key = next(k for k in {**condition, **other} if condition.get(k) != other.get(k))
                raise UsageError(
                    f"rows of {device} from different conditions do not mix: "
                    f"{key} is {condition.get(key)!r} and {other.get(key)!r}"
                )
            row = Row.from_record(record)
            (rows if record["kind"] == "op" else networks)[row.key] = row
        return cls(device, condition, rows, networks)

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
            raise OpNotProfiled(
                f"{missing[0]} was never measured on {self.device} ({len(missing)} such blocks); "
                f"measure with: ofa-deploy profile --target {self.device}"
            )

    def total(self, network: Network | Sequence[str], statistic: str = "p50") -> float:
        """Sum of the blocks' latencies: the naive prediction."""
        ops = [op.key for op in network.ops] if isinstance(network, Network) else network
        self.require(ops)
        return sum(getattr(self.rows[key], statistic) for key in ops)

    def to_json(self) -> dict[str, Any]:
        """The table as a JSON object with a digest that detects damage."""
        body = {
            "schema": SCHEMA,
            "device": self.device,
            "condition": dict(self.condition),
            "rows": [vars(row) for row in self.rows.values()],
            "networks": [vars(row) for row in self.networks.values()],
        }
        return {**body, "sha256": _digest(body)}

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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not a whole latency table (truncated or edited); export it again") from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LatencyTable:
        """Read what ``to_json`` wrote.

        Raises:
            ValueError, KeyError: the object is not a table, or its digest does not match.
        """
        body = {key: value for key, value in data.items() if key != "sha256"}
        if data["sha256"] != _digest(body) or data["schema"] != SCHEMA:
            raise ValueError("the table's digest does not match")
        rows, networks = ({row["key"]: _row(row) for row in body[part]} for part in ("rows", "networks"))
        return cls(body["device"], body["condition"], rows, networks)


def _row(data: Mapping[str, Any]) -> Row:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return Row(**fields)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
