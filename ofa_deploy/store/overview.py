"""What the dashboard and the metrics ask of the database: counted there, so that nothing large is ever loaded."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, case, func, literal, select, text
from sqlalchemy.orm import InstrumentedAttribute

from ofa_deploy.store.database import reading
from ofa_deploy.store.jobs import ARRIVING
from ofa_deploy.store.schema import ChunkRow, DeviceRow, ItemRow, JobRow, MeasurementRow, RunFactsRow, RunRow

NUMBERS = ("p50", "p90", "p99", "se")  # of a measurement record, as they are shown
RECORD = MeasurementRow.record
COLUMNS = tuple(column.key for column in DeviceRow.__table__.columns)
ITEM_STATES = ("waiting", "running", "done", "failed", "cancelled")


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

    def devices(self) -> list[dict[str, Any]]:
        """Every device's row, by name, with ``measured``, ``measured_facts`` and ``simulated``.

        ``measured`` counts its records; the newest of them gives ``measured_facts``, and ``simulated``: None where
        nothing was measured yet.
        """
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
                {
                    **{name: getattr(row, name) for name in COLUMNS},
                    "measured": count or 0,
                    "measured_facts": of_run or facts or {},  # older records hold the facts themselves
                    "simulated": simulated,
                }
                for row, count, facts, of_run, simulated in session.execute(query)
            ]

    def queues(self) -> dict[str, dict[str, int]]:
        """Items of every device's active jobs, counted by state."""
        return self._count_items(JobRow.device, JobRow.state == "active")

    def running(self) -> list[dict[str, Any]]:
        """``run, job, device, attempt, claimed_at, progress, items`` of every run that is under way."""
        items = select(func.count()).where(ItemRow.chunk_id == ChunkRow.id).scalar_subquery()
        fields = (RunRow.device, RunRow.attempt, RunRow.claimed_at, RunRow.progress)
        query = (
            select(RunRow.id.label("run"), ChunkRow.job_id.label("job"), *fields, items.label("items"))
            .join(ChunkRow, ChunkRow.id == RunRow.chunk_id)
            .join(JobRow, JobRow.id == ChunkRow.job_id)
            .where(JobRow.state == "active", RunRow.state == "running")
        )
        return self._mappings(query)

    def jobs(self, limit: int) -> list[dict[str, Any]]:
        """``id, device, state, created_at, finished_at, runtime, items`` of the newest jobs, active ones first."""
        fields = (JobRow.id, JobRow.device, JobRow.state, JobRow.created_at, JobRow.finished_at)
        order = (case((JobRow.state == "active", 0), else_=1), JobRow.created_at.desc(), JobRow.id)
        jobs = self._mappings(
            select(*fields, JobRow.request["runtime"].label("runtime"))
            .where(JobRow.state != ARRIVING)
            .order_by(*order)
            .limit(limit)
        )
        counts = self._count_items(JobRow.id, JobRow.id.in_([job["id"] for job in jobs]))
        return [{**job, "items": counts.get(job["id"], {})} for job in jobs]

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

    def conditions(self, device: str) -> list[dict[str, Any]]:
        """``hash, condition, records, measured_at`` of every condition a device was measured under, newest first."""
        about = (func.count().label("records"), func.max(MeasurementRow.id).label("newest"))
        groups = select(MeasurementRow.condition_hash.label("hash"), *about).where(MeasurementRow.device == device)
        known = groups.group_by(MeasurementRow.condition_hash).subquery()
        fields = (known.c.hash, known.c.records, MeasurementRow.measured_at, RECORD["condition"].label("condition"))
        query = select(*fields).join(MeasurementRow, MeasurementRow.id == known.c.newest)
        return self._mappings(query.order_by(MeasurementRow.id.desc()))

    def rows(self, device: str, condition: str) -> list[dict[str, Any]]:
        """``kind, key, spec, measured_at, p50, p90, p99, se, n, flags, arch`` of a device's newest rows under a
        condition; ``spec`` of the first block, None where a record has none."""
        newest = select(func.max(MeasurementRow.id)).filter_by(device=device, condition_hash=condition)
        numbers = [RECORD[name].as_float().label(name) for name in NUMBERS]
        parts = [RECORD["n"].as_integer().label("n"), RECORD["flags"].label("flags"), RECORD["arch"].label("arch")]
        parts.append(RECORD["specs", 0].label("spec"))
        fields: list[Any] = [MeasurementRow.kind, MeasurementRow.key, MeasurementRow.measured_at, *numbers, *parts]
        chosen = newest.group_by(MeasurementRow.kind, MeasurementRow.key)
        return self._mappings(select(*fields).where(MeasurementRow.id.in_(chosen)).order_by(MeasurementRow.id))

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

    def _mappings(self, query: Select[Any]) -> list[dict[str, Any]]:
        with reading(self._engine) as session:
            return [dict(row) for row in session.execute(query).mappings()]


def _item_state() -> ColumnElement[str]:
    """An item's own state where it is over; else what its job and its chunk make of it."""
    return case(
        (ItemRow.state != "waiting", ItemRow.state),
        (JobRow.state != "active", "cancelled"),
        (ChunkRow.state == "running", "running"),
        else_="waiting",
    )
