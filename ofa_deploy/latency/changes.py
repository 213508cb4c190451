"""Tables side by side, and what changed between two measurements beyond what noise explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import expm1, hypot, log
from statistics import NormalDist
from typing import Any

import numpy as np

from ofa_deploy.errors import UsageError
from ofa_deploy.latency.measurement import Measurement
from ofa_deploy.latency.table import LatencyTable, Row, block_key

FAMILY = 0.05  # chance that any row at all is called changed when nothing changed


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


def difference(old: LatencyTable, new: LatencyTable) -> dict[str, Any]:
    """What changed from one table to another, see ``compare``; their conditions may differ.

    Raises:
        UsageError: they have no row in common.
    """
    rows = aligned([old, new])
    pairs = {key: (a, b) for key, (a, b) in rows.items() if a and b}
    if not pairs:
        raise UsageError(f"the tables of {old.device} and {new.device} have no row in common")
    return {
        **compare(pairs),
        "conditions": condition_changes([old.condition], [new.condition]),
        "only_old": [key for key, (_, b) in rows.items() if not b],
        "only_new": [key for key, (a, _) in rows.items() if not a],
    }


def difference_in_time(device: str, records: Iterable[Measurement]) -> dict[str, Any]:
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
    return {
        **compare({key: (Row.of(a), Row.of(b)) for key, (a, b) in pairs.items()}),
        "conditions": condition_changes(*sides),
        "only_old": [],
        "only_new": [key for key in rows if key not in pairs],
    }


def compare(pairs: Mapping[str, tuple[Row, Row]]) -> dict[str, Any]:
    """What changed between an old and a new measurement of the same rows; changes are fractions.

    A change is beyond noise where ``|log(new / old)|`` exceeds both standard errors together by a factor that, were
    they exact, all rows would stay under with a chance of 95 % if nothing changed (two-sided normal quantile,
    Bonferroni). They are estimates from a dozen rounds: between tables of one unchanged machine, hours apart, 0 to 5 %
    of the rows exceeded it. A device that is slower today as a whole shows as a level shift, ``median_change``.

    Returns:
        ``rows`` (``key, old_ms, new_ms, change, noise, beyond_noise``; the last two None where a table does not say
        how exact it is), ``threshold_sigmas``, ``median_change``, ``changed``: the share beyond noise.
    """
    known = sum(old.n > 0 and new.n > 0 for old, new in pairs.values())
    sigmas = -NormalDist().inv_cdf(FAMILY / 2 / max(known, 1))
    rows = [_change(key, old, new, sigmas) for key, (old, new) in pairs.items()]
    judged = [row["beyond_noise"] for row in rows if row["beyond_noise"] is not None]
    return {
        "threshold_sigmas": sigmas,
        "median_change": float(np.median([row["change"] for row in rows])) if rows else None,
        "changed": float(np.mean(judged)) if judged else None,
        "rows": rows,
    }


def _change(key: str, old: Row, new: Row, sigmas: float) -> dict[str, Any]:
    step = log(new.p50 / old.p50)
    noise = hypot(old.se, new.se) if old.n and new.n else None
    return {
        "key": key,
        "network": len(new.ops) > 1,
        "old_ms": old.p50,
        "new_ms": new.p50,
        "change": expm1(step),
        "noise": noise,
        "beyond_noise": None if noise is None else abs(step) > sigmas * noise,
    }


def condition_changes(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fields in which the conditions of two sets of rows differ: ``{field: {"old": [...], "new": [...]}}``."""
    before, after = list(old), list(new)
    fields = dict.fromkeys(field for condition in before + after for field in condition)
    sides = {field: [_values(part, field) for part in (before, after)] for field in fields}
    return {field: {"old": a, "new": b} for field, (a, b) in sides.items() if a != b}


def _values(conditions: Iterable[Mapping[str, Any]], field: str) -> list[Any]:
    return sorted({condition.get(field) for condition in conditions}, key=str)
