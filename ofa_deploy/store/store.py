"""What the project remembers, over SQLAlchemy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from sqlalchemy import ColumnElement, and_, func, select, update

from ofa_deploy.arch_record import ArchFacts
from ofa_deploy.json_types import JSON
from ofa_deploy.store.access import Access, add_device
from ofa_deploy.store.architectures import Architectures, as_artefact, as_evaluation, remember, upsert
from ofa_deploy.store.database import migrate, open_engine, reading, writing
from ofa_deploy.store.jobs import Jobs
from ofa_deploy.store.overview import Overview
from ofa_deploy.store.rows import VALUES_PER_QUERY, NewRecords, Record, as_stored, condition_hash
from ofa_deploy.store.runs import Runs
from ofa_deploy.store.schema import ArtefactRow, CursorRow, DeviceRow, EvaluationRow, MeasurementRow, utc_now
from ofa_deploy.store.views import Artefact, Device, Evaluation

STORED = (MeasurementRow.id, MeasurementRow.run, MeasurementRow.record)  # what ``as_stored`` reads
ONE_SHOT = "one-shot"  # weights as the supernet has them


class Store:
    """Devices, measurements, evaluations and artefacts; beside them ``access``, ``jobs`` and their ``runs``, the
    ``architectures``, and what can be asked of the whole: ``overview``. Safe to use from several threads.

    Raises (on opening):
        UsageError: the database is damaged, cannot be reached or written, or is from a newer version.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        where = self._engine.url
        migrate(self._engine, (where.get_backend_name() == "sqlite" and where.database) or where.render_as_string())
        self.access, self.jobs, self.runs = Access(self._engine), Jobs(self._engine), Runs(self._engine)
        self.overview, self.architectures = Overview(self._engine), Architectures(self._engine)
        self._until: dict[str, int] = {}

    def as_of(self, device: str, until: int) -> Self:
        """The same store, in which the measurements of a device end with the one of that ``id``.

        What else it tells is of now: ``overview``, ``architectures``, ``jobs``, evaluations and artefacts.
        """
        view = copy.copy(self)
        view._until = {**self._until, device: until}
        return view

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def touch_device(self, name: str, facts: Mapping[str, JSON] | None = None, pause_s: float = 0.0) -> None:
        """Note that a device was heard of now, with what it says about itself.

        Args:
            facts: None, or empty, leaves those that it told before.
            pause_s: nothing is written where it was heard of within so many seconds, and tells nothing new.
        """
        with reading(self._engine) as session:
            row = session.get(DeviceRow, name)
            news = row is None or bool(facts and dict(facts) != row.facts)
            if not news and row is not None and (row.seen_at or "") > utc_now(-pause_s):
                return
        with writing(self._engine) as session:
            add_device(session, name)
            new = {"facts": dict(facts)} if facts else {}
            session.execute(update(DeviceRow).where(DeviceRow.name == name).values(seen_at=utc_now(), **new))

    def device(self, name: str) -> Device | None:
        """A device; None where there is none."""
        with reading(self._engine) as session:
            row = session.get(DeviceRow, name)
            return None if row is None else as_device(row)

    def devices(self) -> list[Device]:
        """All devices, by name."""
        with reading(self._engine) as session:
            rows = session.scalars(select(DeviceRow).order_by(DeviceRow.name))
            return [as_device(row) for row in rows]

    def add_measurements(self, records: Iterable[Mapping[str, JSON]]) -> None:
        """Append measurement records; one whose ``run`` and ``item`` are stored already is not stored again.

        Raises:
            ValueError: a record holds NaN or an infinity; nothing is stored.
        """
        new = NewRecords(records)
        with writing(self._engine) as session:
            new.store(session)

    def measurements(
        self, device: str, condition: Mapping[str, JSON] | None = None, keys: Iterable[str] | None = None
    ) -> list[Record]:
        """Records of a device, oldest first, each with its ``id``; of one condition and some keys where given."""
        query = select(*STORED).where(self._of(device))
        if condition is not None:
            query = query.where(MeasurementRow.condition_hash == condition_hash(condition))
        queries = [query]
        if keys is not None:
            wanted = sorted(set(keys))
            parts = [wanted[i : i + VALUES_PER_QUERY] for i in range(0, len(wanted), VALUES_PER_QUERY)]
            queries = [query.where(MeasurementRow.key.in_(part)) for part in parts]
        with reading(self._engine) as session:
            rows = [row for query in queries for row in session.execute(query)]
            return as_stored(session, sorted(rows, key=lambda row: row[0]))

    def newest_session(self, device: str) -> list[Record]:
        """The records of the run that measured something on a device last."""
        last = select(MeasurementRow.run).where(self._of(device)).order_by(MeasurementRow.id.desc()).limit(1)
        query = select(*STORED).where(self._of(device), MeasurementRow.run == last.scalar_subquery())
        with reading(self._engine) as session:
            return as_stored(session, session.execute(query.order_by(MeasurementRow.id)))

    def _of(self, device: str) -> ColumnElement[bool]:
        """Which measurements of a device this store knows."""
        known = MeasurementRow.device == device
        return and_(known, MeasurementRow.id <= self._until[device]) if device in self._until else known

    def measurements_after(self, device: str, after: int, limit: int | None = None) -> list[Record]:
        """Records of a device whose ``id`` is larger than ``after``, oldest first, ``limit`` at most or all."""
        query = select(*STORED).where(self._of(device))
        page = query.where(MeasurementRow.id > after).order_by(MeasurementRow.id).limit(limit)
        with reading(self._engine) as session:
            return as_stored(session, session.execute(page))

    def conditions(self, device: str) -> list[tuple[str, dict[str, JSON]]]:
        """Hash and condition of every condition that a device was measured under, the newest first."""
        newest = select(func.max(MeasurementRow.id)).where(self._of(device)).group_by(MeasurementRow.condition_hash)
        columns = (MeasurementRow.condition_hash, MeasurementRow.record["condition"])
        query = select(*columns).where(MeasurementRow.id.in_(newest)).order_by(MeasurementRow.id.desc())
        with reading(self._engine) as session:
            return [(name, condition) for name, condition in session.execute(query)]

    def newest_records(self, device: str, conditions: Sequence[str]) -> list[Record]:
        """The newest record of everything that was measured on a device under some conditions, given by their hashes,
        in the order in which the things were measured first."""
        ends = (func.max(MeasurementRow.id).label("newest"), func.min(MeasurementRow.id).label("first"))
        query = select(*ends).where(self._of(device), MeasurementRow.condition_hash.in_(conditions))
        each = query.group_by(MeasurementRow.kind, MeasurementRow.key).subquery()
        joined = select(*STORED).join(each, MeasurementRow.id == each.c.newest).order_by(each.c.first)
        with reading(self._engine) as session:
            return as_stored(session, session.execute(joined))

    def blocks(self, device: str, conditions: Sequence[str] | None = None) -> set[str]:
        """Keys of the blocks that were measured on a device; under some conditions, given by their hashes, or any."""
        query = select(MeasurementRow.key).where(self._of(device), MeasurementRow.kind == "op").distinct()
        if conditions is not None:
            query = query.where(MeasurementRow.condition_hash.in_(conditions))
        with reading(self._engine) as session:
            return set(session.scalars(query))

    def newest_measurement(self, device: str) -> int:
        """The largest ``id`` of a device's records; 0 where it has none."""
        with reading(self._engine) as session:
            return session.scalar(select(func.max(MeasurementRow.id)).where(self._of(device))) or 0

    def cursor(self, server: str, device: str) -> int:
        """The ``id`` on a server up to which a device's records were copied here."""
        with reading(self._engine) as session:
            row = session.get(CursorRow, (server, device))
            return row.position if row else 0

    def move_cursor(self, server: str, device: str, position: int) -> None:
        """Remember up to which ``id`` a device's records were copied here."""
        with writing(self._engine) as session:
            session.merge(CursorRow(server=server, device=device, position=position))

    def measured_devices(self) -> list[str]:
        """Names of all devices that have measurements."""
        with reading(self._engine) as session:
            names = session.scalars(select(MeasurementRow.device).distinct().order_by(MeasurementRow.device)).all()
        return [name for name in names if name not in self._until or self.has_measurements(name)]

    def has_measurements(self, device: str, kind: str | None = None) -> bool:
        """Whether a device has any; of ``kind`` (``op``: a block, ``network``) where it is given."""
        query = select(MeasurementRow.id).where(self._of(device)).limit(1)
        with reading(self._engine) as session:
            return session.scalar(query if kind is None else query.where(MeasurementRow.kind == kind)) is not None

    def add_evaluation(
        self,
        supernet: str,
        arch: Mapping[str, JSON],
        key: str,
        accuracy: float,
        n: int,
        split: str,
        role: str,
        state: str = ONE_SHOT,
        weights: str | None = None,
    ) -> None:
        """Remember a subnet's accuracy (a fraction, over ``n`` images), and the subnet as an architecture; replaces the
        value of the same weights on that split.

        Args:
            state: ``one-shot``, ``fine-tuned`` or ``scratch``.
            weights: sha256 of the file that holds the weights; by default the supernet's.
        """
        values = {"supernet": supernet, "key": key, "split": split, "state": state, "weights": weights or supernet}
        found = {"arch": dict(arch), "accuracy": float(accuracy), "n": n, "role": role, "created_at": utc_now()}
        with writing(self._engine) as session:
            remember(session, ArchFacts(key, arch))
            upsert(session, EvaluationRow, {**values, **found}, list(values))

    def evaluations(self, supernet: str, split: str, state: str = ONE_SHOT) -> list[Evaluation]:
        """Every subnet of a supernet that was evaluated with weights in a state, oldest first."""
        query = select(EvaluationRow).filter_by(supernet=supernet, split=split, state=state).order_by(EvaluationRow.id)
        with reading(self._engine) as session:
            return [as_evaluation(row) for row in session.scalars(query)]

    def add_artefact(self, kind: str, path: str, sha256: str, meta: Mapping[str, object]) -> None:
        """Remember a file that was made."""
        with writing(self._engine) as session:
            session.add(ArtefactRow(kind=kind, path=path, sha256=sha256, meta={**meta}))

    def artefacts(self, kind: str) -> list[Artefact]:
        """The files of a kind, newest last."""
        query = select(ArtefactRow).filter_by(kind=kind).order_by(ArtefactRow.id)
        with reading(self._engine) as session:
            return [as_artefact(row) for row in session.scalars(query)]


def as_device(row: DeviceRow) -> Device:
    """A row as a record."""
    return Device(row.name, row.profile, row.facts, row.created_at, row.seen_at, row.revoked_at)
