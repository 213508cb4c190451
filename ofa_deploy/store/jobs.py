"""The queue: jobs of chunks of items, and the numbered runs in which agents measure them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, Select, func, select, update
from sqlalchemy.orm import Session

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.store.database import reading, writing
from ofa_deploy.store.models import ChunkRow, ItemRow, JobRow, MeasurementRow, RunRow, utc_now
from ofa_deploy.store.rows import measurement_row

MAX_ATTEMPTS = 3
log = logging.getLogger(__name__)


class StaleRun(OfaDeployError):
    """A run is unknown, was given to another agent, is over, or its job was cancelled."""


class Jobs:
    """The queue of one database. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        job: str,
        device: str,
        request: Mapping[str, Any],
        chunks: Sequence[Sequence[Mapping[str, Any]]],
        queue: str = "",
    ) -> None:
        """Queue a job; an item is ``{"position", "blob", "payload"}``."""
        with writing(self._engine) as session:
            session.add(JobRow(id=job, device=device, queue=queue, request=dict(request)))
            session.flush()
            for position, items in enumerate(chunks):
                chunk = f"{job}-{position}"
                session.add(ChunkRow(id=chunk, job_id=job, position=position))
                session.flush()
                session.add_all(
                    ItemRow(id=f"{job}.{item['position']}", chunk_id=chunk, job_id=job, **item) for item in items
                )

    def claim(self, device: str, queue: str, lease_s: float) -> dict[str, Any] | None:
        """The next waiting chunk of a device as a new run, or None; see ``run`` for its shape."""
        with reading(self._engine) as session:  # most polls find nothing, and should not take the writer's lock
            if not session.scalar(select(func.count()).select_from(_open_chunks(device, queue).subquery())):
                return None
        with writing(self._engine) as session:
            _expire_runs(session)
            waiting = _open_chunks(device, queue).where(ChunkRow.state == "waiting").limit(1)
            chunk = session.scalars(waiting.with_for_update(skip_locked=True)).first()
            if chunk is None:
                return None
            chunk.state, chunk.attempts = "running", chunk.attempts + 1
            row = RunRow(
                id=uuid4().hex, chunk_id=chunk.id, device=device, attempt=chunk.attempts, expires_at=utc_now(lease_s)
            )
            session.add(row)
            session.flush()
            return _describe(session, row)

    def run(self, run: str) -> dict[str, Any]:
        """``{"run", "attempt", "job", "chunk", "device", "state", "request", "reference", "items"}`` of a run.

        Raises:
            StaleRun: there is no such run.
        """
        with reading(self._engine) as session:
            row = session.get(RunRow, run)
            if row is None:
                raise StaleRun(f"there is no run {run}")
            return _describe(session, row)

    def beat(self, run: str, progress: Mapping[str, Any], lease_s: float) -> None:
        """A sign of life: prolongs the run's lease.

        Raises:
            StaleRun: the agent should stop, its result would be refused.
        """
        with writing(self._engine) as session:
            row = _live_run(session, run)
            row.progress, row.expires_at = dict(progress), utc_now(lease_s)

    def finish(
        self,
        run: str,
        digest: str,
        records: Mapping[str, Mapping[str, Any]],
        errors: Mapping[str, Mapping[str, Any]],
        reference: Mapping[str, Any] | None,
    ) -> bool:
        """Take a run's result, in one transaction: records and errors by item id. False where it was taken before.

        Raises:
            StaleRun: the run is over, and this is not the result it ended with.
        """
        with writing(self._engine) as session:
            row = session.get(RunRow, run)
            if row is not None and row.state == "done" and row.digest == digest:
                return False
            row = _live_run(session, run)
            row.state, row.digest = "done", digest
            session.add_all(measurement_row(record) for record in records.values())
            for item in session.scalars(select(ItemRow).where(ItemRow.chunk_id == row.chunk_id)):
                item.state = "done" if item.id in records else "failed"
                item.error = dict(errors[item.id]) if item.id in errors else None
            _close_chunk(session, row.chunk_id, reference)
        return True

    def give_back(self, run: str, error: Mapping[str, Any], retry: bool) -> None:
        """An agent could not measure its chunk: another run may, or all its items fail with ``error``.

        Raises:
            StaleRun: the run was over already.
        """
        with writing(self._engine) as session:
            row = _live_run(session, run)
            row.state = "returned"
            _requeue(session, row.chunk_id, error, retry)

    def status(self, job: str) -> dict[str, Any] | None:
        """``{"id", "device", "state", "total", "done", "failed", "errors", "progress"}`` of a job; None if unknown."""
        with reading(self._engine) as session:
            row = session.get(JobRow, job)
            if row is None:
                return None
            items = list(session.scalars(select(ItemRow).where(ItemRow.job_id == job).order_by(ItemRow.position)))
            runs = select(RunRow).join(ChunkRow).where(ChunkRow.job_id == job, RunRow.state == "running")
            errors = [
                {"position": i.position, "key": i.payload.get("key"), **(i.error or {})}
                for i in items
                if i.state == "failed"
            ]
            return {
                "id": row.id,
                "device": row.device,
                "state": row.state,
                "total": len(items),
                "done": sum(item.state == "done" for item in items),
                "failed": len(errors),
                "errors": errors,
                "running": self._running_items(session, job),
                "progress": next((run.progress for run in session.scalars(runs)), None),
            }

    def _running_items(self, session: Session, job: str) -> int:
        running = select(func.count()).select_from(ItemRow).join(ChunkRow, ChunkRow.id == ItemRow.chunk_id)
        return session.scalar(running.where(ChunkRow.job_id == job, ChunkRow.state == "running")) or 0

    def records(self, job: str) -> dict[int, dict[str, Any]]:
        """The measurement records of a job, by the position of their item."""
        query = (
            select(ItemRow.position, MeasurementRow.id, MeasurementRow.record)
            .join(MeasurementRow, MeasurementRow.item == ItemRow.id)
            .where(ItemRow.job_id == job)
        )
        with reading(self._engine) as session:
            return {position: {**record, "id": number} for position, number, record in session.execute(query)}

    def cancel(self, job: str) -> None:
        """End a job; what was measured stays. A job that is over stays as it is."""
        with writing(self._engine) as session:
            row = session.get(JobRow, job)
            if row is not None and row.state == "active":
                _cancel(session, row)

    def cancel_queue(self, queue: str) -> None:
        """End every job of a queue that nobody serves any more."""
        with writing(self._engine) as session:
            for row in session.scalars(select(JobRow).filter_by(queue=queue, state="active")).all():
                _cancel(session, row)

    def blobs(self, queue: str) -> set[str]:
        """sha256 of every model that an active job of a queue still needs."""
        active = (JobRow.queue == queue, JobRow.state == "active")
        with reading(self._engine) as session:
            items = session.scalars(select(ItemRow.blob).join(JobRow, JobRow.id == ItemRow.job_id).where(*active))
            requests = session.scalars(select(JobRow.request).where(*active))
            return {*items, *(blob for request in requests for blob in request.get("blobs", ()))}

    def blobs_of(self, job: str) -> set[str]:
        """sha256 of every model of one job."""
        with reading(self._engine) as session:
            items = session.scalars(select(ItemRow.blob).where(ItemRow.job_id == job))
            return {*items, *session.get_one(JobRow, job).request.get("blobs", ())}


def _cancel(session: Session, row: JobRow) -> None:
    row.state, row.finished_at = "cancelled", utc_now()
    chunks = select(ChunkRow.id).where(ChunkRow.job_id == row.id)
    running = update(RunRow).where(RunRow.chunk_id.in_(chunks), RunRow.state == "running")
    session.execute(running.values(state="cancelled"))


def _open_chunks(device: str, queue: str) -> Select[Any]:
    """Chunks of a device that are not done, the oldest job's first."""
    query = select(ChunkRow).join(JobRow, JobRow.id == ChunkRow.job_id)
    active = query.where(JobRow.device == device, JobRow.queue == queue, JobRow.state == "active")
    return active.where(ChunkRow.state != "done").order_by(JobRow.created_at, JobRow.id, ChunkRow.position)


def _describe(session: Session, row: RunRow) -> dict[str, Any]:
    chunk = session.get_one(ChunkRow, row.chunk_id)
    job = session.get_one(JobRow, chunk.job_id)
    items = session.scalars(select(ItemRow).where(ItemRow.chunk_id == chunk.id).order_by(ItemRow.position))
    return {
        "run": row.id,
        "attempt": row.attempt,
        "state": row.state,
        "device": row.device,
        "claimed_at": row.claimed_at,
        "job": job.id,
        "chunk": chunk.position,
        "request": job.request,
        "reference": job.reference,
        "items": [{"item": i.id, "position": i.position, "blob": i.blob, "payload": i.payload} for i in items],
    }


def _live_run(session: Session, run: str) -> RunRow:
    row = session.get(RunRow, run)
    if row is None:
        raise StaleRun(f"there is no run {run}")
    if row.state != "running":
        raise StaleRun(f"run {run} is {row.state}")
    return row


def _expire_runs(session: Session) -> None:
    late = select(RunRow).where(RunRow.state == "running", RunRow.expires_at < utc_now())
    for row in session.scalars(late.with_for_update(skip_locked=True)):
        row.state = "expired"
        log.warning("expired", extra={"device": row.device, "run": row.id})
        error = {"reason": "timeout", "message": f"the agent was not heard of after {row.expires_at}"}
        _requeue(session, row.chunk_id, error, retry=True)


def _requeue(session: Session, chunk_id: str, error: Mapping[str, Any], retry: bool) -> None:
    chunk = session.get_one(ChunkRow, chunk_id)
    if retry and chunk.attempts < MAX_ATTEMPTS:
        chunk.state = "waiting"
        return
    failed = update(ItemRow).where(ItemRow.chunk_id == chunk_id, ItemRow.state == "waiting")
    session.execute(failed.values(state="failed", error=dict(error)))
    _close_chunk(session, chunk_id, None)


def _close_chunk(session: Session, chunk_id: str, reference: Mapping[str, Any] | None) -> None:
    chunk = session.get_one(ChunkRow, chunk_id)
    job = session.get_one(JobRow, chunk.job_id)
    chunk.state = "done"
    job.reference = job.reference or (dict(reference) if reference else None)
    session.flush()
    left = select(func.count()).where(ChunkRow.job_id == job.id, ChunkRow.state != "done")
    if not session.scalar(left):
        job.state, job.finished_at = "done", utc_now()
