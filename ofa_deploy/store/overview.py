"""What the dashboard and the metrics ask of the database: counted there, so that nothing large is ever loaded."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import ColumnElement, Engine, Select, case, func, literal, select, text
from sqlalchemy.orm import InstrumentedAttribute

from ofa_deploy.store.database import reading
from ofa_deploy.store.jobs import ARRIVING
from ofa_deploy.store.schema import ChunkRow, DeviceRow, ItemRow, JobRow, MeasurementRow, RunFactsRow, RunRow
from ofa_deploy.store.views import JobSummary, MeasuredCondition, MeasuredDevice, NewestRow, RunUnderWay

NUMBERS = ("p50", "p90", "p99", "se")  # of a measurement record, as they are shown
RECORD = MeasurementRow.record
ITEM_STATES = ("waiting", "running", "done", "failed", "cancelled")
ViewT = TypeVar("ViewT", RunUnderWay, MeasuredCondition, NewestRow)
ColumnsT = TypeVar("ColumnsT", bound=tuple[object, ...])


class Overview:
    """Questions about a database as a whole. Every method only reads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def reachable(self) -> None:
        """Ask the database for nothing.

        Raises:
            SQLAlchemyError: it does not answer.
        """
        with reading(self._engine) as session:
            session.execute(text("SELECT 1"))

    def devices(self) -> list[MeasuredDevice]:
        """Every device, by name."""
        about = select(MeasurementRow.device, func.count().label("n"), func.max(MeasurementRow.id).label("newest"))
        known = about.group_by(MeasurementRow.device).subquery()
        simulated = RECORD["condition"]["simulated"].as_boolean()
        query = (
            select(DeviceRow, known.c.n, RECORD["facts"], RunFactsRow.facts, simulated)
            .outerjoin(known, known.c.device == DeviceRow.name)
            .outerjoin(MeasurementRow, MeasurementRow.id == known.c.newest)
            .outerjoin(RunFactsRow, RunFactsRow.run == MeasurementRow.run)
            .order_by(DeviceRow.name)
        )
        with reading(self._engine) as session:
            return [
                MeasuredDevice(
                    name=row.name,
                    profile=row.profile,
                    facts=row.facts,
                    created_at=row.created_at,
                    seen_at=row.seen_at,
                    revoked_at=row.revoked_at,
                    measured=count or 0,
                    measured_facts=of_run or facts or {},  # older records hold the facts themselves
                    simulated=simulated,
                )
                for row, count, facts, of_run, simulated in session.execute(query)
            ]

    def queues(self) -> dict[str, dict[str, int]]:
        """Items of every device's active jobs, counted by state."""
        return self._count_items(JobRow.device, JobRow.state == "active")

    def running(self) -> list[RunUnderWay]:
        """Every run that is under way."""
        items = select(func.count()).where(ItemRow.chunk_id == ChunkRow.id).scalar_subquery()
        fields = (RunRow.device, RunRow.attempt, RunRow.claimed_at, RunRow.progress)
        query = (
            select(RunRow.id.label("run"), ChunkRow.job_id.label("job"), *fields, items.label("items"))
            .join(ChunkRow, ChunkRow.id == RunRow.chunk_id)
            .join(JobRow, JobRow.id == ChunkRow.job_id)
            .where(JobRow.state == "active", RunRow.state == "running")
        )
        return self._views(RunUnderWay, query)

    def jobs(self, limit: int) -> list[JobSummary]:
        """The newest jobs, active ones first."""
        fields = (JobRow.id, JobRow.device, JobRow.state, JobRow.created_at, JobRow.finished_at)
        order = (case((JobRow.state == "active", 0), else_=1), JobRow.created_at.desc(), JobRow.id)
        query = select(*fields, JobRow.request["runtime"].label("runtime")).where(JobRow.state != ARRIVING)
        with reading(self._engine) as session:
            jobs = session.execute(query.order_by(*order).limit(limit)).mappings().all()
        counts = self._count_items(JobRow.id, JobRow.id.in_([job["id"] for job in jobs]))
        return [JobSummary(**job, items=counts.get(job["id"], {})) for job in jobs]

    def active_jobs(self) -> int:
        """How many jobs are not over."""
        with reading(self._engine) as session:
            return session.scalar(select(func.count()).where(JobRow.state == "active")) or 0

    def items_by_state(self) -> dict[str, int]:
        """All items ever queued, counted by state."""
        return self._count_items(literal("all")).get("all", dict.fromkeys(ITEM_STATES, 0))

    def runs_by_state(self) -> dict[str, int]:
        """All runs ever started, counted by state."""
        query = select(RunRow.state, func.count()).group_by(RunRow.state)
        with reading(self._engine) as session:
            return {row[0]: row[1] for row in session.execute(query)}

    def conditions(self, device: str) -> list[MeasuredCondition]:
        """Every condition that a device was measured under, newest first."""
        about = (func.count().label("records"), func.max(MeasurementRow.id).label("newest"))
        groups = select(MeasurementRow.condition_hash.label("hash"), *about).where(MeasurementRow.device == device)
        known = groups.group_by(MeasurementRow.condition_hash).subquery()
        fields = (known.c.hash, known.c.records, MeasurementRow.measured_at, RECORD["condition"].label("condition"))
        query = select(*fields).join(MeasurementRow, MeasurementRow.id == known.c.newest)
        return self._views(MeasuredCondition, query.order_by(MeasurementRow.id.desc()))

    def rows(self, device: str, condition: str) -> list[NewestRow]:
        """A device's newest rows under a condition."""
        newest = select(func.max(MeasurementRow.id)).filter_by(device=device, condition_hash=condition)
        numbers = [RECORD[name].as_float().label(name) for name in NUMBERS]
        parts = [RECORD["n"].as_integer().label("n"), RECORD["flags"].label("flags"), RECORD["arch"].label("arch")]
        parts.append(RECORD["specs", 0].label("spec"))
        names = (MeasurementRow.kind, MeasurementRow.key, MeasurementRow.measured_at)
        chosen = newest.group_by(MeasurementRow.kind, MeasurementRow.key)
        query = select(*names, *numbers, *parts).where(MeasurementRow.id.in_(chosen)).order_by(MeasurementRow.id)
        return self._views(NewestRow, query)

    def _count_items(
        self, owner: ColumnElement[str] | InstrumentedAttribute[str], *where: ColumnElement[bool]
    ) -> dict[str, dict[str, int]]:
        """Items by what owns them, then by state."""
        items = select(owner.label("owner"), _item_state().label("state")).select_from(ItemRow)
        joined = items.join(ChunkRow, ChunkRow.id == ItemRow.chunk_id).join(JobRow, JobRow.id == ItemRow.job_id)
        each = joined.where(*where).subquery()
        found: dict[str, dict[str, int]] = {}
        with reading(self._engine) as session:
            counted = select(each.c.owner, each.c.state, func.count()).group_by(each.c.owner, each.c.state)
            for name, state, count in session.execute(counted):
                found.setdefault(name, dict.fromkeys(ITEM_STATES, 0))[state] = count
        return found

    def _views(self, kind: type[ViewT], query: Select[ColumnsT]) -> list[ViewT]:
        with reading(self._engine) as session:
            return [kind(**row) for row in session.execute(query).mappings()]


def _item_state() -> ColumnElement[str]:
    """An item's own state where it is over; else what its job and its chunk make of it."""
    return case(
        (ItemRow.state != "waiting", ItemRow.state),
        (JobRow.state != "active", "cancelled"),
        (ChunkRow.state == "running", "running"),
        else_="waiting",
    )
