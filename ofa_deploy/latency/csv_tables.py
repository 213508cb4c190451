"""Latency tables as CSV: one block a line, in columns that other tools know.

A line has no activation, squeeze-excitation or skip connection; they come back from the search space whose blocks have
the line's numbers. Nor has it the resolution of the network around the block, or how exact the latency is. The columns
are fixed, so that of a simulated device says so in its ``hardware_id``: ``SIMULATED-jetson_nano``. One more, ``spec``,
is there where a block is of a kind that the columns cannot tell, and holds all of its fields as JSON.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ofa_deploy.blocks import OpSpec
from ofa_deploy.blocks.kinds.kind import SpeltKind
from ofa_deploy.errors import UsageError
from ofa_deploy.latency.importers import published_condition
from ofa_deploy.latency.plausible import Claim, refuse_implausible
from ofa_deploy.latency.table import LatencyTable, Row, block_key
from ofa_deploy.space import PopulationCodec, SearchSpace, make_divisible

LARGEST_RATIO = 1000
INTEGERS = ("input_h", "input_w", "channels_in", "channels_out", "kernel", "stride")
SIMULATED = "SIMULATED-"  # before the name of a device that is none
COLUMNS = (
    *("hardware_id", "op_type", "input_h", "input_w", "channels_in", "channels_out", "kernel", "expand", "stride"),
    *("latency_micros", "energy_mj"),
)
SPEC = "spec"  # the column of blocks that the others cannot tell


def write_csv(table: LatencyTable, resolution: int | None = None) -> str:
    """A table's blocks as CSV; whole networks have no place in it.

    Args:
        resolution: which of the latencies, where the table has one for every resolution.

    Raises:
        UsageError: lines would contradict each other, or the table has nothing at that resolution.
    """
    if resolution and not table.per_resolution:
        raise UsageError(f"the table of {table.device} has one latency a block, whatever the resolution around it")
    rows = [row for key, row in table.rows.items() if not resolution or key.endswith(f"@{resolution}")]
    if not rows:
        raise UsageError(f"the table of {table.device} has no blocks" + (f" at {resolution}" if resolution else ""))
    if len({block_key(row.key) for row in rows}) < len(rows):
        known = sorted({int(row.key.split("@")[1]) for row in rows})
        raise UsageError(
            f"{table.device} has several latencies for one block, one for each resolution of the network, and CSV has "
            f"no column for that; choose one with --resolution ({', '.join(map(str, known))}), or export as .json"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    device = f"{SIMULATED}{table.device}" if table.simulated else table.device
    specs = [_spec(row.block) for row in rows]
    writer.writerow([*COLUMNS, SPEC] if any(specs) else COLUMNS)
    writer.writerows(_line(device, row, [spec] if any(specs) else []) for row, spec in zip(rows, specs, strict=True))
    return text.getvalue()


def _spec(op: OpSpec) -> str:
    """What only the fields of a block tell, as JSON; "" where the columns tell it."""
    return "" if isinstance(op.definition, SpeltKind) else json.dumps(op.to_json(), separators=(",", ":"))


def _line(device: str, row: Row, spec: Sequence[str]) -> list[object]:
    op = row.block
    energy = "" if row.energy_mj is None else row.energy_mj
    numbers = [op.h, op.w, op.cin, op.cout, op.kernel, f"{op.mid / op.cin:.12g}", op.stride]
    return [device, op_type(op), *numbers, f"{1000 * row.p50:.15g}", energy, *spec]


def op_type(op: OpSpec) -> str:
    """The block's kind; with the kernel of a uib's first depthwise, for which there is no column: ``uib-start3``."""
    return f"{op.kind}-start{op.start}" if op.start else op.kind


def read_csv(path: Path, name: str, space: SearchSpace, resolution: int | None = None) -> LatencyTable:
    """A CSV file as a device's table.

    Args:
        name: of the device.
        space: whose blocks the lines are.
        resolution: of the networks that the latencies hold for, where they hold for no others.

    Raises:
        UsageError: the file is damaged; a line is no block of the space, more than one, or one that an earlier line
            had; or it holds what cannot be a latency. Names the line.
    """
    blocks = Blocks(space.with_resolutions((resolution,)) if resolution else space)
    rows: dict[str, Row] = {}
    claims: list[Claim] = []
    places: dict[str, str] = {}
    lines = _lines(path)
    for where, line in lines:
        op = blocks.find(where, line)
        key = op.key_at(resolution)
        if key in places:
            raise UsageError(f"{where}: {key} has a latency already, from {places[key]}")
        rows[key], places[key] = _row(where, key, op, line), where
        claims.append(Claim.of(where, rows[key], [op]))
    if not rows:
        raise UsageError(f"{path} has no rows")
    refuse_implausible(claims)
    simulated = lines[0][1]["hardware_id"].startswith(SIMULATED)
    return LatencyTable(name, published_condition(resolution is not None, "unknown", simulated), rows)


def _lines(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Every line's file and number, and its values by column."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True)
        header, lines = reader.fieldnames or [], [(f"{path}:{reader.line_num}", line) for line in reader]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file: {error}") from error
    if sorted(set(header) - {SPEC}) != sorted(COLUMNS) or len(set(header)) < len(header):
        odd = sorted(set(header) - {SPEC} ^ set(COLUMNS)) or sorted(header)
        raise UsageError(f"{path}:1: the columns must be {','.join(COLUMNS)}; missing or unknown: {', '.join(odd)}")
    for where, line in lines:
        if None in line or None in line.values():
            raise UsageError(f"{where}: a line has {len(header)} values")
    devices = {line["hardware_id"]: where for where, line in reversed(lines)}
    if len(devices) > 1:
        other = max(devices.values(), key=lambda where: int(where.rsplit(":", 1)[1]))
        raise UsageError(f"{other}: rows of several devices do not mix: {', '.join(sorted(devices))}; split the file")
    return lines


def _row(where: str, key: str, op: OpSpec, line: Mapping[str, str]) -> Row:
    """A line's latency, which stands for all quantiles; how exact it is is not known, so ``n`` is 0."""
    ms = _float(where, line, "latency_micros") / 1000
    energy = _float(where, line, "energy_mj") if line["energy_mj"].strip() else None
    return Row(key, (key,), ms, ms, ms, 0, 0.0, 0.0, energy_mj=energy, specs=(op,))


def _float(where: str, line: Mapping[str, str], column: str) -> float:
    try:
        return float(line[column])
    except ValueError:
        raise UsageError(f"{where}: {column} is {line[column]!r}, not a number") from None


class Blocks:
    """A space's blocks by the numbers that a line of CSV has."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._found: dict[tuple[str, ...], list[OpSpec]] = {}
        self._known = {op.key: op for op in PopulationCodec(space).ops}
        for op in self._known.values():
            numbers = (op.h, op.w, op.cin, op.cout, op.kernel, op.stride)
            self._found.setdefault((op_type(op), *map(str, numbers)), []).append(op)

    def find(self, where: str, line: Mapping[str, str]) -> OpSpec:
        """The block of a line.

        Raises:
            UsageError: there is none, or more than one.
        """
        if line.get(SPEC):
            return self._specified(where, line[SPEC])
        expand = _float(where, line, "expand")
        if not 0 <= expand <= LARGEST_RATIO:
            raise UsageError(f"{where}: expand is {line['expand']!r}, not a ratio of channels")
        same = self._found.get((line["op_type"].strip(), *(_integer(where, line, column) for column in INTEGERS)), [])
        fitting = [op for op in same if op.mid == round(op.cin * expand)]
        fitting = fitting or [op for op in same if op.mid == make_divisible(op.cin * expand)]  # as spaces round a ratio
        if len(fitting) == 1:
            return fitting[0]
        numbers = " ".join(f"{column} {line[column]}" for column in COLUMNS[1:9])
        if not fitting:
            raise UsageError(f"{where}: {self._space.name} has no such block: {numbers}")
        known = ", ".join(op.key for op in fitting)
        raise UsageError(f"{where}: {self._space.name} has {len(fitting)} blocks with {numbers}: {known}")

    def _specified(self, where: str, spec: str) -> OpSpec:
        """The block whose fields a line holds."""
        try:
            key = OpSpec.from_json(json.loads(spec)).key
        except (UsageError, ValueError, TypeError) as error:
            raise UsageError(f"{where}: {SPEC} is not a block's fields as JSON: {error}") from error
        if key not in self._known:
            raise UsageError(f"{where}: {self._space.name} has no such block: {key}")
        return self._known[key]


def _integer(where: str, line: Mapping[str, str], column: str) -> str:
    text = line[column].strip()
    if not text.isdecimal():
        raise UsageError(f"{where}: {column} is {line[column]!r}, not a whole number")
    return str(int(text))
