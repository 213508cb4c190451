"""A device's blocks laid out as a table: which row and which column each one's latency stands in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ofa_deploy.blocks import BLOCKS, OpSpec
from ofa_deploy.blocks.kinds import KINDS, stage_kind
from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.latency.table import stored_block
from ofa_deploy.store import NewestRow

REDUCTIONS = (1, 2, 4, 8, 16, 32, 64)  # by which networks shrink their input on the way to a block


class Line(NamedTuple):
    """What the blocks of one line share. Of a stage's block, kernels and inner channels are the column's matter: 0."""

    kind: str
    cin: int
    mid: int
    cout: int
    kernel: int
    stride: int
    act: str
    se: bool
    skip: bool
    at: int  # input pixels, where only they tell blocks apart; else 0


class Column(NamedTuple):
    """The network's resolution in pixels (None where it is not known), and the kernels and the expansion of a stage's
    block; ``start`` is a uib's alone."""

    resolution: int | None
    start: int | None
    kernel: int | None
    expand: float | None


@dataclass(frozen=True)
class Cell:
    """A row of a latency table, and the index of the line and of the column in which it stands."""

    row: NewestRow
    line: int
    column: int

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {**shown_row(self.row), "line": self.line, "column": self.column}


@dataclass(frozen=True)
class HeatTable:
    """Blocks of one kind, or all that stands before and after them; lines and columns are in their order."""

    lines: list[Line]
    columns: list[Column]
    cells: list[Cell]

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {
            "lines": [line._asdict() for line in self.lines],
            "columns": [column._asdict() for column in self.columns],
            "cells": [cell.to_json() for cell in self.cells],
        }


@dataclass(frozen=True)
class HeatMap:
    """A table of each kind of block that stages have, then one of the others; and rows of no block that is known."""

    tables: list[HeatTable]
    others: list[NewestRow]

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        return {"tables": [table.to_json() for table in self.tables], "others": [shown_row(row) for row in self.others]}


def shown_row(row: NewestRow) -> dict[str, JSON]:
    """A row as pages get it."""
    return {name: value for name, value in vars(row).items() if name != "spec"}


def heat_map(rows: Iterable[NewestRow]) -> HeatMap:
    """Lay out the blocks of a latency table."""
    blocks, others = list[tuple[OpSpec, NewestRow]](), list[NewestRow]()
    for row in rows:
        try:
            blocks.append((stored_block(row.key, row.spec), row))
        except UsageError:
            others.append(row)
    places = _places([op for op, _ in blocks])
    placed = [(*place, row) for place, (_, row) in zip(places, blocks, strict=True)]
    parts = [[place for place in placed if place[0].kind == kind] for kind in BLOCKS]
    parts.append([place for place in placed if place[0].kind not in BLOCKS])
    return HeatMap([_table(part) for part in parts if part], others)


def _table(placed: Sequence[tuple[Line, Column, NewestRow]]) -> HeatTable:
    kinds = list(KINDS)
    lines = sorted({line for line, _, _ in placed}, key=lambda line: (kinds.index(line.kind), *line[1:]))
    columns = sorted({column for _, column, _ in placed}, key=lambda column: [value or 0 for value in column])
    line_at, column_at = {line: i for i, line in enumerate(lines)}, {column: i for i, column in enumerate(columns)}
    return HeatTable(lines, columns, [Cell(row, line_at[line], column_at[column]) for line, column, row in placed])


def _places(ops: Sequence[OpSpec]) -> list[tuple[Line, Column]]:
    resolutions = {op.h for op in ops if op.kind == "stem"}
    sizes: dict[Line, set[int]] = {}
    for op in ops:
        sizes.setdefault(_line(op), set()).add(op.h)
    known = {line: _resolutions(found, resolutions) for line, found in sizes.items()}
    return [_place(op, known[_line(op)]) for op in ops]


def _place(op: OpSpec, known: Mapping[int, int]) -> tuple[Line, Column]:
    line, inner = _line(op), op.kind in BLOCKS
    if op.kind != "classifier" and op.h not in known:
        line = line._replace(at=op.h)
    expand = round(op.mid / stage_kind(op.kind).expanded(op.cin, op.cout), 2) if inner else None
    start = op.start if op.kind == "uib" else None
    return line, Column(known.get(op.h), start, op.kernel if inner else None, expand)


def _line(op: OpSpec) -> Line:
    mid, kernel = (0, 0) if op.kind in BLOCKS else (op.mid, op.kernel)
    return Line(op.kind, op.cin, mid, op.cout, kernel, op.stride, op.act, op.se > 0, op.skip, 0)


def _resolutions(sizes: set[int], resolutions: set[int]) -> dict[int, int]:
    """The network's resolution by a block's input size; nothing where it cannot be told.

    It can be where one reduction explains all sizes of a line; the stems in the table tell which resolutions there are.
    """
    for reduction in REDUCTIONS:
        known = {-(-resolution // reduction): resolution for resolution in sorted(resolutions)}
        if sizes <= set(known):
            return {size: known[size] for size in sizes}
    return {}
