"""How a measurement record becomes a row, and how rows become records again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from ofa_deploy.json_types import JSON
from ofa_deploy.store.database import Encoded
from ofa_deploy.store.schema import MeasurementRow, RunFactsRow

OF_RUN = "facts"  # the field of a record that is equal for all records of a run
VALUES_PER_QUERY = 5000  # SQLite accepts 32 766 values in a statement
Record: TypeAlias = dict[str, JSON]  # of a measurement, which the store does not understand
Stored: TypeAlias = tuple[int, str | None, Record]  # its ``id``, ``run`` and ``record``


def condition_hash(condition: JSON) -> str:
    """sha256 of a condition's canonical JSON: rows are comparable where it is equal."""
    return hashlib.sha256(json.dumps(condition, sort_keys=True, default=dict).encode()).hexdigest()


class NewRecords:
    """Measurement records on their way into the database, encoded before the transaction that stores them.

    Raises:
        ValueError: a record holds NaN or an infinity.
        KeyError: one of the searched fields is missing.
    """

    def __init__(self, records: Iterable[Mapping[str, JSON]]) -> None:
        self._rows, self._facts = list[dict[str, object]](), dict[str, Encoded]()
        for record in records:
            run = record.get("run")
            if isinstance(run, str) and OF_RUN in record and run not in self._facts:
                self._facts[run] = Encoded(record[OF_RUN])
            self._rows.append(_row(record))

    def store(self, session: Session) -> None:
        """Store those that are not there yet, and what their runs have in common once for each run."""
        runs = {row["run"] for row in self._rows if row["run"]}
        known = select(MeasurementRow.run, MeasurementRow.item).where(MeasurementRow.run.in_(runs))
        stored = {tuple(pair) for pair in session.execute(known)}
        new = [row for row in self._rows if (row["run"], row["item"]) not in stored]
        told = self._facts.keys() - {run for run, _ in _facts_of(session, self._facts)}
        if told:
            session.execute(insert(RunFactsRow), [{"run": run, "facts": self._facts[run]} for run in sorted(told)])
        if new:
            session.execute(insert(MeasurementRow), new)


def _row(record: Mapping[str, JSON]) -> dict[str, object]:
    shared = {OF_RUN} if record.get("run") else set()
    body = Encoded({key: value for key, value in record.items() if key not in {"id", *shared}})
    fields = {name: record[name] for name in ("device", "kind", "key", "measured_at")}
    ids = {name: record.get(name) for name in ("run", "item")}
    return {**fields, **ids, "condition_hash": condition_hash(record["condition"]), "record": body}


def as_stored(session: Session, rows: Iterable[Stored]) -> list[Record]:
    """Records from the ``id``, the ``run`` and the ``record`` of rows, each with its ``id``.

    The records of a run share one object of facts.
    """
    found = list(rows)
    facts = dict(_facts_of(session, {run for _, run, record in found if run and OF_RUN not in record}))
    return [{**({OF_RUN: facts[run]} if run in facts else {}), **record, "id": number} for number, run, record in found]


def _facts_of(session: Session, runs: Iterable[str]) -> list[tuple[str, dict[str, JSON]]]:
    names, found = sorted(runs), list[tuple[str, dict[str, JSON]]]()
    for start in range(0, len(names), VALUES_PER_QUERY):
        some = RunFactsRow.run.in_(names[start : start + VALUES_PER_QUERY])
        found += [
            (row.run, row.facts) for row in session.execute(select(RunFactsRow.run, RunFactsRow.facts).where(some))
        ]
    return found
