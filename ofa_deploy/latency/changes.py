"""Tables side by side, and what changed between two measurements beyond what noise explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import expm1, hypot, log
from statistics import NormalDist

import numpy as np

from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON
from ofa_deploy.latency.measurement import Measurement
from ofa_deploy.latency.table import LatencyTable, Row, block_key

FAMILY = 0.05  # chance that any row at all is called changed when nothing changed


@dataclass(frozen=True)
class RowChange:
    """A row that two tables have.

    Attributes:
        network: whether it is a whole network.
        change: a fraction.
        noise: both standard errors together; None where a table does not say how exact it is.
        beyond_noise: whether noise does not explain the change; None where that is not known.
    """

    key: str
    network: bool
    old_ms: float
    new_ms: float
    change: float
    noise: float | None
    beyond_noise: bool | None


@dataclass(frozen=True)
class ConditionChange:
    """The values that a field of the conditions had and has; None for a condition without it."""

    old: list[JSON]
    new: list[JSON]


@dataclass(frozen=True)
class TableChanges:
    """What changed from one table to another; changes are fractions.

    Attributes:
        threshold_sigmas: standard errors beyond which a change is no noise.
        median_change: the level shift of a device that is slower or faster as a whole.
        changed: share of rows beyond noise; None where no row says how exact it is.
        conditions: the fields in which the conditions differ.
        only_old, only_new: keys of rows that only one side has.
    """

    threshold_sigmas: float
    median_change: float
    changed: float | None
    rows: tuple[RowChange, ...]
    conditions: dict[str, ConditionChange]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    def to_json(self) -> dict[str, JSON]:
        """As a JSON object."""
        conditions = {name: vars(change) for name, change in self.conditions.items()}
        return {**vars(self), "rows": [vars(row) for row in self.rows], "conditions": conditions}


def aligned(tables: Sequence[LatencyTable]) -> dict[str, list[Row | None]]:
    """All rows of several tables, blocks before networks: for every key one row a table, or None.

    A table with one latency a block answers at every resolution that another table tells apart.
    """
    keys = list(dict.fromkeys(key for table in tables for key in table.rows))
    apart = {block_key(key) for key in keys if block_key(key) != key}
    blocks = {key: [_at(table, key) for table in tables] for key in keys if key not in apart}
    networks = dict.fromkeys(key for table in tables for key in table.networks)
    return {**blocks, **{key: [table.networks.get(key) for table in tables] for key in networks}}


def _at(table: LatencyTable, key: str) -> Row | None:
    return table.rows.get(key if table.per_resolution else block_key(key))


def difference(old: LatencyTable, new: LatencyTable) -> TableChanges:
    """What changed from one table to another, see ``compare``; their conditions may differ.

    Raises:
        UsageError: they have no row in common.
    """
    rows = aligned([old, new])
    pairs = {key: (a, b) for key, (a, b) in rows.items() if a and b}
    if not pairs:
        raise UsageError(f"the tables of {old.device} and {new.device} have no row in common")
    return compare(
        pairs,
        condition_changes([old.condition], [new.condition]),
        only_old=tuple(key for key, (_, b) in rows.items() if not b),
        only_new=tuple(key for key, (a, _) in rows.items() if not a),
    )


def difference_in_time(device: str, records: Iterable[Measurement]) -> TableChanges:
    """What changed from the last measurement but one of every row to its last; see ``compare``.

    Args:
        records: of one device, oldest first. Rows that were measured once are under ``only_new``.

    Raises:
        UsageError: no row was measured twice.
    """
    rows: dict[str, list[Measurement]] = {}
    for record in records:
        rows.setdefault(record.key, []).append(record)
    pairs = {key: (found[-2], found[-1]) for key, found in rows.items() if len(found) > 1}
    if not pairs:
        again = f"ofa-deploy profile --target {device} --refresh"
        raise UsageError(f"no row of {device} was measured twice; measure again with: {again}")
    sides = ([pair[i].condition for pair in pairs.values()] for i in (0, 1))
    return compare(
        {key: (Row.of(a), Row.of(b)) for key, (a, b) in pairs.items()},
        condition_changes(*sides),
        only_new=tuple(key for key in rows if key not in pairs),
    )


def compare(
    pairs: Mapping[str, tuple[Row, Row]],
    conditions: dict[str, ConditionChange],
    only_old: tuple[str, ...] = (),
    only_new: tuple[str, ...] = (),
) -> TableChanges:
    """What changed between an old and a new measurement of the same rows; changes are fractions.

    A change is beyond noise where ``|log(new / old)|`` exceeds both standard errors together by a factor that, were
    they exact, all rows would stay under with a chance of 95 % if nothing changed (two-sided normal quantile,
    Bonferroni). They are estimates from a dozen rounds: between tables of one unchanged machine, hours apart, 0 to 5 %
    of the rows exceeded it. A device that is slower today as a whole shows as a level shift, ``median_change``.
    """
    known = sum(old.n > 0 and new.n > 0 for old, new in pairs.values())
    sigmas = -NormalDist().inv_cdf(FAMILY / 2 / max(known, 1))
    rows = tuple(_change(key, old, new, sigmas) for key, (old, new) in pairs.items())
    judged = [row.beyond_noise for row in rows if row.beyond_noise is not None]
    changed = float(np.mean(judged)) if judged else None
    median = float(np.median([row.change for row in rows]))
    return TableChanges(sigmas, median, changed, rows, conditions, only_old, only_new)


def _change(key: str, old: Row, new: Row, sigmas: float) -> RowChange:
    step = log(new.p50 / old.p50)
    noise = hypot(old.se, new.se) if old.n and new.n else None
    beyond = None if noise is None else abs(step) > sigmas * noise
    return RowChange(key, len(new.ops) > 1, old.p50, new.p50, expm1(step), noise, beyond)


def condition_changes(
    old: Iterable[Mapping[str, object]], new: Iterable[Mapping[str, object]]
) -> dict[str, ConditionChange]:
    """The fields in which the conditions of two sets of rows differ."""
    before, after = list(old), list(new)
    fields = dict.fromkeys(field for condition in before + after for field in condition)
    sides = {field: [_values(part, field) for part in (before, after)] for field in fields}
    return {field: ConditionChange(a, b) for field, (a, b) in sides.items() if a != b}


def _values(conditions: Iterable[Mapping[str, object]], field: str) -> list[JSON]:
    found = {condition.get(field) for condition in conditions}
    return sorted((one if isinstance(one, (str, int, float)) else None for one in found), key=str)
