"""Rows that cannot be what they claim, found before they enter a table.

A value can be impossible by itself: not a number, not positive, outside of what a block or a network takes anywhere,
more operations a second than any device has. A wrong unit can still look possible; it shows beside the file's other
rows. How latency grows with work differs from device to device, so it is fitted to the rows: ``log ms`` against the
logarithms of multiply-accumulates and of moved values, with slopes from 0 (only the call counts) to 1 (proportional),
chosen by the mean absolute residual around the median, which a minority of wrong rows does not move far. In tables
measured on a phone and on CPUs, from blocks of 5 µs to 9 ms, no row was more than 4 times off, and one that was made
1000 times wrong was at least 250 times off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import TypeGuard

import numpy as np

from ofa_deploy.blocks import OpSpec, counts
from ofa_deploy.blocks.kinds.kind import WHOLE
from ofa_deploy.errors import UsageError
from ofa_deploy.latency.table import Row

LIMITS_MS = (1e-4, 1e6)  # no runtime is called in less than 100 ns; nobody waits a quarter of an hour for one answer
FASTEST = 1e13  # multiply-accumulates a second for one image; its many small blocks keep large GPUs below
SPREAD = 30.0  # largest plausible standard deviation or error of a row, as a multiple of its latency
OFF = 30.0  # a row that is further off its peers, up or down, is refused
SLOPES = [pair for pair in product(np.linspace(0, 1, 5), repeat=2) if sum(pair) <= 1]


@dataclass(frozen=True)
class Claim:
    """A row as a file claims it, and the work that it stands for.

    Attributes:
        where: file and line, for the message.
        macs: multiply-accumulates.
        moved: values that are read and written: input, output, what lies between them, weights; 0 where the work is not
            known, as that of a cell of which a row says no blocks.
        blocks: how many blocks share the work: 1, or a whole network's number.
    """

    where: str
    row: Row
    macs: float
    moved: float
    blocks: int = 1

    @classmethod
    def of(cls, where: str, row: Row, ops: Sequence[OpSpec]) -> Claim:
        """What is claimed of a block, or of a network of blocks."""
        if any(op.definition.role == WHOLE for op in ops):
            return cls(where, row, 0, 0, len(ops))
        return cls(where, row, sum(counts.macs(op.block) for op in ops), sum(map(moved_values, ops)), len(ops))


def moved_values(op: OpSpec) -> int:
    """Values that a block reads and writes for one image, and its parameters."""
    return counts.values_moved(op.block) + counts.params(op.block)


def refuse_implausible(claims: Sequence[Claim]) -> None:
    """Check all rows of a file, each by itself and then beside the others.

    Raises:
        UsageError: names the first wrong row's line and block, says why, and how many more there are.
    """
    reasons = [_impossible(claim) for claim in claims]
    if not any(reasons):
        reasons = _off_their_peers(claims)
    wrong = [(claim, reason) for claim, reason in zip(claims, reasons, strict=True) if reason]
    if wrong:
        claim, reason = wrong[0]
        more = f" ({len(wrong) - 1} more rows are wrong)" if len(wrong) > 1 else ""
        raise UsageError(f"{claim.where}: {claim.row.key}: {reason}{more}; nothing of the file was stored")


def _impossible(claim: Claim) -> str | None:
    row, (low, high) = claim.row, LIMITS_MS
    for name in ("p50", "p90", "p99", "best"):
        value = getattr(row, name)
        if not _number(value):
            return f"latency {value!r} is not a number"
        if not low <= value <= high:
            return f"latency {value:g} ms is not from {low:g} to {high:g} ms"
    if not row.p50 <= row.p90 <= row.p99:
        return f"p50 {row.p50:g}, p90 {row.p90:g} and p99 {row.p99:g} ms are not in this order"
    for name in ("cov", "se", "best_se"):
        value = getattr(row, name)
        if not _number(value) or not 0 <= value <= SPREAD:
            return f"{name} {value!r} is not a fraction of {row.p50:g} ms from 0 to {SPREAD:g}: a wrong unit?"
    if not all(isinstance(text, str) for text in (row.key, row.measured_at, *row.flags)):
        return "its key, flags or time are not texts"
    if not isinstance(row.n, int) or row.n < 0:
        return f"n {row.n!r} is not a count"
    if row.energy_mj is not None and not (_number(row.energy_mj) and row.energy_mj >= 0):
        return f"energy {row.energy_mj!r} mJ is not a number from 0 on"
    speed = claim.macs / (row.p50 / 1000)
    if speed > FASTEST:
        return f"{row.p50:g} ms would be {speed:.2g} multiply-accumulates a second; no device has that: a wrong unit?"
    return None


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _off_their_peers(claims: Sequence[Claim]) -> list[str | None]:
    """For every row, what is wrong with it beside the others; a network counts as its average block."""
    judged = [i for i, claim in enumerate(claims) if claim.moved]
    off = np.ones(len(claims))
    if not judged:
        return [None] * len(claims)
    ms, macs, moved = (
        np.array([value(claims[i]) / claims[i].blocks for i in judged], dtype=float)
        for value in (lambda c: c.row.p50, lambda c: c.macs, lambda c: c.moved)
    )
    off[judged] = np.exp(_residuals(np.log(ms), np.log(macs), np.log(moved)))
    return [
        f"{claim.row.p50:g} ms is {max(ratio, 1 / ratio):.0f} times {'more' if ratio > 1 else 'less'} than the file's "
        f"other rows suggest, about {claim.row.p50 / ratio:.2g} ms: a wrong unit?"
        if max(ratio, 1 / ratio) > OFF
        else None
        for claim, ratio in zip(claims, off.tolist(), strict=True)
    ]


def _residuals(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    candidates = [y - slope_a * a - slope_b * b for slope_a, slope_b in SLOPES]
    return min((r - np.median(r) for r in candidates), key=lambda residual: float(np.abs(residual).mean()))
