"""How a measurement record becomes a row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ofa_deploy.store.models import MeasurementRow


def condition_hash(condition: Mapping[str, Any]) -> str:
    """sha256 of a condition's canonical JSON: rows are comparable where it is equal."""
    return hashlib.sha256(json.dumps(dict(condition), sort_keys=True).encode()).hexdigest()


def measurement_row(record: Mapping[str, Any]) -> MeasurementRow:
    """The row of a record.

    Raises:
        ValueError: the record holds NaN or an infinity.
        KeyError: one of the searched fields is missing.
    """
    body = {key: value for key, value in record.items() if key != "id"}
    json.dumps(body, allow_nan=False)
    fields = {name: record[name] for name in ("device", "kind", "key", "measured_at")}
    ids = {name: record.get(name) for name in ("run", "item")}
    return MeasurementRow(**fields, **ids, condition_hash=condition_hash(record["condition"]), record=body)
