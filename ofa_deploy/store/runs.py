"""Numbered runs: how agents take chunks, keep them, lose them and finish them.

Where a transaction changes rows of several tables, it locks the job before its runs and chunks: transactions that lock
in different orders would wait for each other. A claim locks nothing but a chunk that nobody else has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from uuid import uuid4

from sqlalchemy import Engine, Select, exists, func, select, update
from sqlalchemy.orm import Session

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.json_types import JSON
from ofa_deploy.store.database import reading, writing
from ofa_deploy.store.rows import NewRecords
from ofa_deploy.store.schema import ChunkRow, ItemRow, JobRow, RunRow, utc_now
from ofa_deploy.store.views import Run, RunItem

MAX_ATTEMPTS = 3
BEAT_S = 2.0  # a sign of life that brings nothing new is not written more often than this
log = logging.getLogger(__name__)


class StaleRun(OfaDeployError):
    """A run is unknown, was given to another agent, is over, or its job was cancelled."""


class Runs:
    """The runs of one database. Every method but ``expire`` is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def claim(self, device: str, queue: str, lease_s: float, resume: str | None = None) -> Run | None:
        """The next waiting chunk of a device as a new run, or None.

        Args:
            resume: a run of which the agent has the state still; it goes on with it where nobody else has the chunk.
        """
        self.expire()
        again = self._resume(resume, device, queue, lease_s) if resume else None
        if again:
            return again
        with reading(self._engine) as session:  # most polls find nothing, and should not take the writer's lock
            if session.scalars(_waiting(device, queue)).first() is None:
                return None
        with writing(self._engine) as session:
            chunk = session.scalars(_waiting(device, queue).with_for_update(skip_locked=True, of=ChunkRow)).first()
            if chunk is None:
                return None
            chunk.state, chunk.attempts = "running", chunk.attempts + 1
            run_s = session.get_one(JobRow, chunk.job_id).run_s
            lease, end = utc_now(min(lease_s, run_s)), utc_now(run_s)
            row = RunRow(id=uuid4().hex, chunk_id=chunk.id, device=device, attempt=chunk.attempts)
            row.expires_at, row.ends_at = lease, end
            session.add(row)
            session.flush()
            return _describe(session, row)

    def _resume(self, run: str, device: str, queue: str, lease_s: float) -> Run | None:
        try:
            with writing(self._engine) as session:
                row = _own(session, run)
                job = session.get_one(ChunkRow, row.chunk_id).job_id
                if row.device != device or session.get_one(JobRow, job).queue != queue:
                    return None
                row.expires_at = min(utc_now(lease_s), row.ends_at)
                return _describe(session, row)
        except StaleRun:
            return None

    def run(self, run: str) -> Run:
        """A run.

        Raises:
            StaleRun: there is no such run.
        """
        with reading(self._engine) as session:
            return _describe(session, _get(session, run))

    def owner(self, run: str) -> tuple[str, str]:
        """The device and the queue whose agent has a run.

        Raises:
            StaleRun: there is no such run.
        """
        with reading(self._engine) as session:
            row = _get(session, run)
            queue = select(JobRow.queue).join(ChunkRow, ChunkRow.job_id == JobRow.id).where(ChunkRow.id == row.chunk_id)
            return row.device, session.scalars(queue).one()

    def beat(self, run: str, progress: Mapping[str, JSON], lease_s: float) -> None:
        """A sign of life: prolongs the run's lease, but never beyond the limit of a run.

        Raises:
            StaleRun: the agent should stop, its result would be refused.
        """
        lease = utc_now(lease_s)
        with reading(self._engine) as session:
            row = _get(session, run)
            phase = (row.progress or {}).get("phase")
            if row.state == "running" and phase == progress.get("phase") and _seconds(row.expires_at, lease) < BEAT_S:
                return
        with writing(self._engine) as session:
            row = _own(session, run)
            row.progress, row.expires_at = dict(progress), min(lease, row.ends_at)

    def finish(
        self,
        run: str,
        digest: str,
        records: Mapping[str, Mapping[str, JSON]],
        errors: Mapping[str, Mapping[str, JSON]],
        reference: Mapping[str, JSON] | None,
    ) -> bool:
        """Take a run's result, in one transaction: records and errors by item id. False where it was taken before.

        Raises:
            StaleRun: the run is over, and this is not the result it ended with.
        """
        new = NewRecords(records.values())
        with writing(self._engine) as session:
            row = _locked(session, run)
            if row.state == "done" and row.digest == digest:
                return False
            row = _own(session, run)
            row.state, row.digest = "done", digest
            new.store(session)
            for item in session.scalars(select(ItemRow).where(ItemRow.chunk_id == row.chunk_id)):
                item.state = "done" if item.id in records else "failed"
                item.error = dict(errors[item.id]) if item.id in errors else None
            _close_chunk(session, row.chunk_id, reference)
        return True

    def give_back(self, run: str, error: Mapping[str, JSON], retry: bool) -> None:
        """An agent could not measure its chunk: another run may, or all its items fail with ``error``.

        Raises:
            StaleRun: the run was over already.
        """
        with writing(self._engine) as session:
            row = _own(session, run)
            row.state = "returned"
            _requeue(session, row.chunk_id, error, retry)

    def expire(self) -> list[str]:
        """Take back what agents were not heard of about, and end jobs that nobody took. Returns the ended jobs."""
        now = utc_now()
        late = select(RunRow.id).where(RunRow.state == "running", RunRow.expires_at < now)
        taken = exists().where(ChunkRow.job_id == JobRow.id, ChunkRow.attempts > 0)
        unwanted = select(JobRow.id).where(JobRow.state == "active", JobRow.start_by < now, ~taken)
        with reading(self._engine) as session:
            runs, jobs = session.scalars(late).all(), session.scalars(unwanted).all()
        ended = [self._expire_run(run) for run in runs] + [self._expire_job(job) for job in jobs]
        return [job for job in ended if job]

    def _expire_run(self, run: str) -> str | None:
        with writing(self._engine) as session:
            row = _locked(session, run)
            if row.state != "running" or row.expires_at >= utc_now():
                return None
            row.state = "expired"
            log.warning("expired", extra={"device": row.device, "run": row.id})
            why = "it took longer than a run may" if row.expires_at == row.ends_at else "the agent was not heard of"
            error = {"reason": "timeout", "message": f"{why} after {row.expires_at}"}
            _requeue(session, row.chunk_id, error, retry=True)
            job = session.get_one(JobRow, session.get_one(ChunkRow, row.chunk_id).job_id)
            return job.id if job.state != "active" else None

    def _expire_job(self, job: str) -> str | None:
        with writing(self._engine) as session:
            row = _lock_job(session, job)
            waiting = update(ChunkRow).where(ChunkRow.job_id == job, ChunkRow.state == "waiting")
            chunks = session.scalars(waiting.values(state="done").returning(ChunkRow.id)).all()
            error = {"reason": "timeout", "message": f"no agent of {row.device} took the job until {row.start_by}"}
            for chunk in chunks:
                _fail_items(session, chunk, error)
                _close_chunk(session, chunk, None)
            return job if row.state != "active" else None


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _waiting(device: str, queue: str) -> Select[ChunkRow]:
    """The next chunk of a device that nobody measures, the oldest job's first."""
    query = select(ChunkRow).join(JobRow, JobRow.id == ChunkRow.job_id).where(ChunkRow.state == "waiting")
    active = query.where(JobRow.device == device, JobRow.queue == queue, JobRow.state == "active")
    return active.order_by(JobRow.created_at, JobRow.id, ChunkRow.position).limit(1)


def _describe(session: Session, row: RunRow) -> Run:
    chunk = session.get_one(ChunkRow, row.chunk_id)
    job = session.get_one(JobRow, chunk.job_id)
    items = session.scalars(select(ItemRow).where(ItemRow.chunk_id == chunk.id).order_by(ItemRow.position))
    return Run(
        run=row.id,
        attempt=row.attempt,
        state=row.state,
        device=row.device,
        claimed_at=row.claimed_at,
        job=job.id,
        queue=job.queue,
        chunk=chunk.position,
        run_s=job.run_s,
        request=job.request,
        reference=job.reference,
        items=tuple(RunItem(i.id, i.position, i.blob, i.payload) for i in items),
    )


def _get(session: Session, run: str) -> RunRow:
    row = session.get(RunRow, run)
    if row is None:
        raise StaleRun(f"there is no run {run}")
    return row


def _lock_job(session: Session, job: str) -> JobRow:
    return session.get_one(JobRow, job, with_for_update=True, populate_existing=True)


def _locked(session: Session, run: str) -> RunRow:
    """A run as it is now that nobody else can change it or its job."""
    chunk = session.get_one(ChunkRow, _get(session, run).chunk_id)
    _lock_job(session, chunk.job_id)
    return session.get_one(RunRow, run, with_for_update=True, populate_existing=True)


def _own(session: Session, run: str) -> RunRow:
    """A run that its agent may go on with: one that expired belongs to it until somebody else has the chunk."""
    row = _locked(session, run)
    chunk = session.get_one(ChunkRow, row.chunk_id, with_for_update=True, populate_existing=True)
    job = session.get_one(JobRow, chunk.job_id)
    back = row.state == "expired" and chunk.state == "waiting" and utc_now() < row.ends_at
    if job.state != "active" or not (row.state == "running" or back):
        raise StaleRun(f"run {run} is {'over' if row.state == 'running' else row.state}, its job is {job.state}")
    row.state = chunk.state = "running"
    return row


def _requeue(session: Session, chunk_id: str, error: Mapping[str, JSON], retry: bool) -> None:
    chunk = session.get_one(ChunkRow, chunk_id)
    if retry and chunk.attempts < MAX_ATTEMPTS:
        chunk.state = "waiting"
        return
    _fail_items(session, chunk_id, error)
    _close_chunk(session, chunk_id, None)


def _fail_items(session: Session, chunk_id: str, error: Mapping[str, JSON]) -> None:
    waiting = update(ItemRow).where(ItemRow.chunk_id == chunk_id, ItemRow.state == "waiting")
    session.execute(waiting.values(state="failed", error=dict(error)))


def _close_chunk(session: Session, chunk_id: str, reference: Mapping[str, JSON] | None) -> None:
    """End a chunk, and with the last one the job, which the caller has locked."""
    chunk = session.get_one(ChunkRow, chunk_id)
    job = session.get_one(JobRow, chunk.job_id)
    chunk.state = "done"
    job.reference = job.reference or (dict(reference) if reference else None)
    session.flush()
    left = select(func.count()).where(ChunkRow.job_id == job.id, ChunkRow.state != "done")
    if not session.scalar(left):
        job.state, job.finished_at = "done", utc_now()
