"""A device's blocks laid out as a table: which row and which column each one's latency stands in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ofa_deploy.blocks import BLOCKS, OpSpec
from ofa_deploy.blocks.kinds import KINDS, stage_kind
from ofa_deploy.errors import UsageError
from ofa_deploy.latency.table import stored_block

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


def heat_map(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Lay out the blocks of a latency table.

    Args:
        rows: with the ``key`` of a block, its ``spec`` where that is stored, and whatever else a cell should hold.

    Returns:
        ``tables``: one of each kind of block that stages have, then one of what stands before and after them, each
        with its ``lines`` and ``columns`` in their order, and ``cells``: the rows, each with the index of its ``line``
        and ``column``.
        ``others``: rows of what is no block that is known here.
    """
    blocks, others = list[tuple[OpSpec, Mapping[str, Any]]](), list[Mapping[str, Any]]()
    for row in rows:
        shown = {name: value for name, value in row.items() if name != "spec"}
        try:
            blocks.append((stored_block(row["key"], row.get("spec")), shown))
        except UsageError:
            others.append(shown)
    places = _places([op for op, _ in blocks])
    placed = [(*place, row) for place, (_, row) in zip(places, blocks, strict=True)]
    parts = [[place for place in placed if place[0].kind == kind] for kind in BLOCKS]
    parts.append([place for place in placed if place[0].kind not in BLOCKS])
    return {"tables": [_table(part) for part in parts if part], "others": others}


def _table(placed: Sequence[tuple[Line, Column, Mapping[str, Any]]]) -> dict[str, Any]:
    kinds = list(KINDS)
    lines = sorted({line for line, _, _ in placed}, key=lambda line: (kinds.index(line.kind), *line[1:]))
    columns = sorted({column for _, column, _ in placed}, key=lambda column: [value or 0 for value in column])
    line_at, column_at = {line: i for i, line in enumerate(lines)}, {column: i for i, column in enumerate(columns)}
    return {
        "lines": [line._asdict() for line in lines],
        "columns": [column._asdict() for column in columns],
        "cells": [{**row, "line": line_at[line], "column": column_at[column]} for line, column, row in placed],
    }


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
