"""What the project remembers, over SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select

from ofa_deploy.store.database import migrate, open_engine, reading, writing
from ofa_deploy.store.jobs import Jobs
from ofa_deploy.store.models import ArtefactRow, DeviceRow, EvaluationRow, MeasurementRow, utc_now
from ofa_deploy.store.overview import Overview
from ofa_deploy.store.rows import condition_hash, measurement_row

KEYS_PER_QUERY = 5000  # SQLite accepts 32 766 values in a statement


class Store:
    """Devices, measurements, evaluations and artefacts; the queue is ``jobs``, and what can be asked
    of the whole ``overview``. Safe to use from several threads.

    Raises (on opening):
        UsageError: the database is damaged, cannot be written, or is from a newer version.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        migrate(self._engine, self._engine.url.database or url)
        self.jobs = Jobs(self._engine)
        self.overview = Overview(self._engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def touch_device(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note that a device was heard of now, with what it says about itself."""
        with writing(self._engine) as session:
            row = session.get(DeviceRow, name)
            if row is None:
                session.add(DeviceRow(name=name, facts=dict(facts)))
            else:
                row.facts, row.seen_at = dict(facts) or row.facts, utc_now()

    def device(self, name: str) -> dict[str, Any] | None:
        """Name, facts, ``created_at`` and ``seen_at`` of a device; None where it was never heard of."""
        return next((device for device in self.devices() if device["name"] == name), None)

    def devices(self) -> list[dict[str, Any]]:
        """All devices, by name."""
        with reading(self._engine) as session:
            rows = session.scalars(select(DeviceRow).order_by(DeviceRow.name))
            return [{"name": r.name, "facts": r.facts, "created_at": r.created_at, "seen_at": r.seen_at} for r in rows]

    def add_measurements(self, records: list[dict[str, Any]]) -> None:
        """Append measurement records; one whose ``run`` and ``item`` are stored already is not stored again.

        Raises:
            ValueError: a record holds NaN or an infinity; nothing is stored.
        """
        with writing(self._engine) as session:
            runs = {record["run"] for record in records if record.get("run")}
            known = select(MeasurementRow.run, MeasurementRow.item).where(MeasurementRow.run.in_(runs))
            stored = {tuple(pair) for pair in session.execute(known)}
            new = [record for record in records if (record.get("run"), record.get("item")) not in stored]
            session.add_all([measurement_row(record) for record in new])

    def measurements(
        self, device: str, condition: Mapping[str, Any] | None = None, keys: Iterable[str] | None = None
    ) -> list[dict[str, Any]]:
        """Records of a device, oldest first, each with its ``id``; of one condition and some keys where given."""
        query = select(MeasurementRow.id, MeasurementRow.record).where(MeasurementRow.device == device)
        if condition is not None:
            query = query.where(MeasurementRow.condition_hash == condition_hash(condition))
        queries = [query]
        if keys is not None:
            wanted = sorted(set(keys))
            parts = [wanted[i : i + KEYS_PER_QUERY] for i in range(0, len(wanted), KEYS_PER_QUERY)]
            queries = [query.where(MeasurementRow.key.in_(part)) for part in parts]
        with reading(self._engine) as session:
            found = [{**record, "id": number} for query in queries for number, record in session.execute(query)]
        return sorted(found, key=lambda record: record["id"])

    def measured_devices(self) -> list[str]:
        """Names of all devices that have measurements."""
        with reading(self._engine) as session:
            return list(session.scalars(select(MeasurementRow.device).distinct().order_by(MeasurementRow.device)))

    def has_measurements(self, device: str) -> bool:
        """Whether a device has any."""
        query = select(MeasurementRow.id).where(MeasurementRow.device == device).limit(1)
        with reading(self._engine) as session:
            return session.scalar(query) is not None

    def add_evaluation(
        self, supernet: str, arch: Mapping[str, Any], key: str, accuracy: float, n: int, split: str, role: str
    ) -> None:
        """Remember a subnet's accuracy (a fraction, over ``n`` images); replaces that subnet's value on that split."""
        with writing(self._engine) as session:
            where = {"supernet": supernet, "key": key, "split": split}
            row = session.scalars(select(EvaluationRow).filter_by(**where)).one_or_none() or EvaluationRow(**where)
            row.arch, row.accuracy, row.n, row.role, row.created_at = dict(arch), float(accuracy), n, role, utc_now()
            session.add(row)

    def evaluations(self, supernet: str, split: str) -> list[dict[str, Any]]:
        """``supernet, key, split, role, arch, accuracy, n, created_at`` of every evaluated subnet, oldest first."""
        query = select(EvaluationRow).filter_by(supernet=supernet, split=split).order_by(EvaluationRow.id)
        fields = ("supernet", "key", "split", "role", "arch", "accuracy", "n", "created_at")
        with reading(self._engine) as session:
            return [{name: getattr(row, name) for name in fields} for row in session.scalars(query)]

    def add_artefact(self, kind: str, path: str, sha256: str, meta: Mapping[str, Any]) -> None:
        """Remember a file that was made."""
        with writing(self._engine) as session:
            session.add(ArtefactRow(kind=kind, path=path, sha256=sha256, meta=dict(meta)))

    def artefacts(self, kind: str) -> list[dict[str, Any]]:
        """``kind, path, sha256, meta, created_at`` of the files of a kind, newest last."""
        query = select(ArtefactRow).filter_by(kind=kind).order_by(ArtefactRow.id)
        fields = ("kind", "path", "sha256", "meta", "created_at")
        with reading(self._engine) as session:
            return [{name: getattr(row, name) for name in fields} for row in session.scalars(query)]
