"""Tables that others measured, and our own from another machine, as tables of a device here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import yaml

from ofa_deploy.blocks import OpSpec, counts
from ofa_deploy.config import PUBLISHED
from ofa_deploy.errors import UsageError
from ofa_deploy.latency.condition import Condition
from ofa_deploy.latency.measurement import Measurement
from ofa_deploy.latency.plausible import Claim, moved_values, refuse_implausible
from ofa_deploy.latency.table import LatencyTable, Row
from ofa_deploy.space import PopulationCodec, SearchSpace


def published_condition(per_resolution: bool, statistic: str, simulated: bool = False) -> Condition:
    """The condition of a table that came without one.

    Args:
        statistic: what its single value a row is, which stands for all quantiles.
        simulated: whether it was simulated.
    """
    unknown = "unknown"
    condition = Condition(
        runtime=PUBLISHED,
        statistic=statistic,
        simulated=simulated,
        runtime_version=unknown,
        provider=unknown,
        precision=unknown,
        batch=unknown,
        threads=unknown,
        power_mode=unknown,
    )
    return Condition(**condition, per_resolution=True) if per_resolution else condition


def read_ofa_tables(folder: Path, name: str, space: SearchSpace) -> LatencyTable:
    """Once-for-all's published ``RESOLUTION_lookup_table.yaml`` files as one table.

    A block that networks of several resolutions share (the classifier, say) has another latency in each file, so the
    table tells resolutions apart, and its sums are those of the files.

    Args:
        folder: one file for each resolution; latencies in ms.
        name: of the device.
        space: the space they were measured for.

    Raises:
        UsageError: no file is there; one is damaged, lacks a block of the space, or holds what cannot be a latency.
    """
    files = {int(path.name.split("_")[0]): path for path in folder.glob("*_lookup_table.yaml") if _resolution(path)}
    if not files:
        raise UsageError(f"there is no RESOLUTION_lookup_table.yaml in {folder}")
    claims: list[Claim] = []
    rows: dict[str, Row] = {}
    for resolution, path in sorted(files.items()):
        entries = _read_entries(path)
        for op in PopulationCodec(space.with_resolutions((resolution,))).ops:
            parts = [_claim(path, entries, key, *work) for key, work in ofa_entries(op).items()]
            claims += parts
            key = op.key_at(resolution)
            rows[key] = _together(key, op, [part.row for part in parts])
    refuse_implausible(claims)
    return LatencyTable(name, published_condition(True, "mean"), rows)


def ofa_entries(op: OpSpec) -> dict[str, tuple[int, int]]:
    """The entries of once-for-all's tables that one block corresponds to, whose latencies add up.

    Returns:
        For each the multiply-accumulates and the moved values.
    """
    (oh, ow), source = op.out_hw, f"input:{op.h}x{op.w}x{op.cin}"
    whole = (counts.macs(op.block), moved_values(op))
    if op.kind == "stem":
        return {f"Conv-{source}-output:{oh}x{ow}x{op.cout}": whole}
    if op.kind == "head":
        pixels = op.h * op.w * op.cout
        pool = f"AvgPool2D-input:{op.h}x{op.w}x{op.cout}-output:1x1x{op.cout}"
        return {f"Conv_1-{source}-output:{op.h}x{op.w}x{op.cout}": whole, pool: (pixels, pixels)}
    if op.kind == "classifier":
        hidden, last = op.cin * op.mid, op.mid * op.cout  # as many weights as products
        logits = f"Logits-input:1x1x{op.mid}-output:{op.cout}"
        return {f"Conv_2-{source}-output:1x1x{op.mid}": (hidden, hidden), logits: (last, last)}
    flags = f"idskip:{int(op.skip)}-se:{int(op.se > 0)}-hs:{int(op.act == 'hswish')}"
    shape = f"output:{oh}x{ow}x{op.cout}-expand:{op.mid}-kernel:{op.kernel}-stride:{op.stride}"
    start = f"-start:{op.start}" if op.start else ""  # no published table has such a block
    return {f"expanded_conv-{source}-{shape}{start}-{flags}": whole}


def read_table(path: Path) -> LatencyTable:
    """A table that ``LatencyTable.save`` wrote, perhaps on another machine.

    Raises:
        UsageError: the file is damaged, or holds what cannot be a latency; names line and row.
    """
    table = LatencyTable.load(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    where = {line.strip(): f"{path}:{number}" for number, line in enumerate(lines, 1) if '"key": ' in line}
    rows = [*table.rows.values(), *table.networks.values()]
    if not rows:
        raise UsageError(f"{path} has no rows")
    if not isinstance(table.condition, dict) or not all(isinstance(v, (str, int)) for v in table.condition.values()):
        raise UsageError(f"{path}: its condition is not a mapping of names to texts and whole numbers")
    refuse_implausible(
        [Claim.of(where.get(f'"key": {json.dumps(row.key)},', str(path)), row, _ops(path, row)) for row in rows]
    )
    return table


def as_records(table: LatencyTable, device: str) -> list[Measurement]:
    """The measurements, of a device here, that make up the table again."""
    run = f"import-{uuid4().hex}"
    parts: tuple[tuple[Literal["op", "network"], Mapping[str, Row]], ...] = (
        ("op", table.rows),
        ("network", table.networks),
    )
    return [_record(row, kind, device, table.condition, run) for kind, rows in parts for row in rows.values()]


def _record(row: Row, kind: Literal["op", "network"], device: str, condition: Condition, run: str) -> Measurement:
    return Measurement.from_json(
        {
            **row.to_json(),
            "ops": list(row.ops),
            "flags": list(row.flags),
            "device": device,
            "kind": kind,
            "specs": [spec.to_json() for spec in row.blocks],
            "arch": None,
            "condition": {**condition},
            "facts": {},
            "settings": {},
            "rounds": [],
            "started_at": row.measured_at,
            "run": run,
            "item": f"{kind} {row.key}",
        }
    )


def _ops(path: Path, row: Row) -> Sequence[OpSpec]:
    try:
        return row.blocks
    except (UsageError, TypeError) as error:
        raise UsageError(f"{path}: row {row.key}: {error}") from error


def _resolution(path: Path) -> bool:
    return path.name.split("_")[0].isdecimal()


def _read_entries(path: Path) -> dict[str, tuple[str, Any]]:
    """A file's entries, each with its file and line."""
    try:
        text = path.read_text(encoding="utf-8")
        table = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(table, dict):
        raise UsageError(f"{path} is not a latency table: a mapping of blocks is expected")
    lines = {line.rstrip(": "): number for number, line in enumerate(text.splitlines(), 1)}
    return {str(key): (f"{path}:{lines.get(str(key), 1)}", entry) for key, entry in table.items()}


def _claim(path: Path, entries: Mapping[str, tuple[str, Any]], key: str, macs: int, moved: int) -> Claim:
    """An entry as a row: of a published table only means are known, so they stand for all quantiles."""
    if key not in entries:
        raise UsageError(f"{path} has no entry {key}; is it a table of another space?")
    where, entry = entries[key]
    try:
        mean, std, count = float(entry["mean"]), float(entry["std"]), int(entry["count"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{where}: {key}: mean, std and count, three numbers, are expected: {error}") from error
    cov = std / mean if mean else 0.0
    return Claim(where, Row(key, (key,), mean, mean, mean, count, cov, cov / sqrt(max(count, 1))), macs, moved)


def _together(key: str, op: OpSpec, parts: Sequence[Row]) -> Row:
    """One block from the parts it was measured in, one after another."""
    ms = sum(part.p50 for part in parts)
    cov, se = (sqrt(sum((getattr(p, name) * p.p50) ** 2 for p in parts)) / (ms or 1.0) for name in ("cov", "se"))
    return Row(key, (key,), ms, ms, ms, min(part.n for part in parts), cov, se, specs=(op,))
