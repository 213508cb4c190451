"""The queue: jobs of chunks of items."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlalchemy import ColumnElement, Engine, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from ofa_deploy.json_types import JSON
from ofa_deploy.store.database import Encoded, reading, writing
from ofa_deploy.store.rows import Record, as_stored
from ofa_deploy.store.schema import (
    Base,
    ChunkRow,
    CodeRow,
    ItemRow,
    JobRow,
    MeasurementRow,
    ModelRow,
    RunRow,
    TokenRow,
    utc_now,
)
from ofa_deploy.store.views import ItemFailure, JobState, JobTimes, NewItem

RUN_S = 3600.0
ARRIVING = "arriving"  # the state of a job that is being written
OPEN = ("active", ARRIVING)
BATCH_ITEMS, BATCH_CHARACTERS = 1000, 2**20  # of items that are written in one transaction


class Jobs:
    """The jobs of one database; ``Runs`` is how agents work on them. Every method is one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self,
        job: str,
        device: str,
        request: Mapping[str, JSON],
        chunks: Sequence[Sequence[NewItem]],
        queue: str = "",
        queue_s: float | None = None,
        run_s: float = RUN_S,
    ) -> None:
        """Queue a job. One that is there already stays as it is.

        A large job is written in several transactions, so that others can write in between; nothing but ``cancel``
        sees it before the last one. Where that is never reached, the job can be queued again.

        Args:
            queue_s: the job fails when no agent took anything of it for so long.
            run_s: limit of one run.
        """
        start_by = None if queue_s is None else utc_now(queue_s)
        row = JobRow(id=job, device=device, queue=queue, request=dict(request), start_by=start_by, run_s=run_s)
        row.state = ARRIVING
        models = _models(job, chunks)
        rows: Iterator[tuple[type[Base], Sequence[Mapping[str, object]]]] = itertools.chain(
            ((ModelRow, models[i : i + BATCH_ITEMS]) for i in range(0, len(models), BATCH_ITEMS)),
            ((ItemRow, batch) for batch in _batches(job, chunks)),
        )
        try:
            with writing(self._engine) as session:
                if _is_there(session, job):
                    return
                session.add(row)
                session.flush()
                _add_chunks(session, job, len(chunks))
            for kind, batch in rows:
                with writing(self._engine) as session:
                    session.execute(insert(kind), batch)
            with writing(self._engine) as session:
                arrived = update(JobRow).where(JobRow.id == job, JobRow.state == ARRIVING)
                session.execute(arrived.values(state="active"))
        except IntegrityError:
            if self.status(job) is None:
                raise

    def drop_unfinished(self, older_s: float) -> None:
        """Forget jobs whose writing ended in the middle, so long ago."""
        query = select(JobRow.id).where(JobRow.state == ARRIVING, JobRow.created_at < utc_now(-older_s))
        with writing(self._engine) as session:
            for job in session.scalars(query).all():
                _forget(session, job)

    def status(self, job: str) -> JobState | None:
        """How far a job is; None if it is unknown."""
        with reading(self._engine) as session:
            row = session.get(JobRow, job)
            if row is None or row.state == ARRIVING:
                return None
            of_job = ItemRow.job_id == job
            states = select(ItemRow.state, func.count()).where(of_job).group_by(ItemRow.state)
            counts: dict[str, int] = dict(session.execute(states).all())
            failed = session.scalars(
                select(ItemRow).where(of_job, ItemRow.state == "failed").order_by(ItemRow.position)
            )
            running = select(RunRow.progress).join(ChunkRow).where(ChunkRow.job_id == job, RunRow.state == "running")
            return JobState(
                id=row.id,
                device=row.device,
                queue=row.queue,
                state=row.state,
                quiet_since=_quiet_since(session, row),
                total=sum(counts.values()),
                done=counts.get("done", 0),
                failed=counts.get("failed", 0),
                errors=tuple(_failure(item) for item in failed),
                running=_running_items(session, job),
                progress=session.scalars(running).first(),
            )

    def records(self, job: str) -> dict[int, Record]:
        """The measurement records of a job, by the position of their item."""
        query = (
            select(MeasurementRow.id, MeasurementRow.run, MeasurementRow.record, ItemRow.position)
            .join(MeasurementRow, MeasurementRow.item == ItemRow.id)
            .where(ItemRow.job_id == job)
        )
        with reading(self._engine) as session:
            rows = session.execute(query).all()
            records = as_stored(session, (row[:3] for row in rows))
            return {row.position: record for row, record in zip(rows, records, strict=True)}

    def of_device(self, device: str, limit: int = 20) -> list[JobTimes]:
        """A device's newest jobs, newest first."""
        query = (
            select(JobRow)
            .filter_by(device=device)
            .where(JobRow.state != ARRIVING)
            .order_by(JobRow.created_at.desc())
            .limit(limit)
        )
        with reading(self._engine) as session:
            return [JobTimes(row.id, row.state, row.created_at, row.finished_at) for row in session.scalars(query)]

    def waiting(self) -> set[tuple[str, str]]:
        """Device and queue of every job that has a chunk which nobody measures."""
        query = select(JobRow.device, JobRow.queue).join(ChunkRow, ChunkRow.job_id == JobRow.id).distinct()
        with reading(self._engine) as session:
            found = session.execute(query.where(JobRow.state == "active", ChunkRow.state == "waiting"))
            return {(device, queue) for device, queue in found}

    def abandoned_queues(self, silent_s: float) -> list[str]:
        """Queues of commands for whose jobs no agent was at work for so long: their agents ended with them."""
        since = utc_now(-silent_s)
        at_work = exists().where(
            ChunkRow.job_id == JobRow.id, RunRow.chunk_id == ChunkRow.id, RunRow.expires_at > since
        )
        query = select(JobRow.queue).where(JobRow.state == "active", JobRow.queue != "", JobRow.created_at < since)
        with reading(self._engine) as session:
            return list(session.scalars(query.where(~at_work).distinct()))

    def cancel(self, job: str) -> None:
        """End a job; what was measured stays. A job that is over stays as it is."""
        self._cancel(JobRow.id == job)

    def cancel_device(self, device: str) -> list[str]:
        """End every job of a device that is gone for good. Returns those that ended."""
        return self._cancel(JobRow.device == device)

    def cancel_queue(self, queue: str) -> list[str]:
        """End every job of a queue that nobody serves any more, and the tokens of its agents. Returns those jobs."""
        ended = self._cancel(JobRow.queue == queue)
        with writing(self._engine) as session:
            for kind in (TokenRow, CodeRow):
                session.execute(delete(kind).where(kind.queue == queue))
        return ended

    def _cancel(self, which: ColumnElement[bool]) -> list[str]:
        with writing(self._engine) as session:
            query = select(JobRow).where(which, JobRow.state.in_(OPEN)).order_by(JobRow.id)
            rows = session.scalars(query.with_for_update()).all()
            for row in rows:
                row.state, row.finished_at = "cancelled", utc_now()
                chunks = select(ChunkRow.id).where(ChunkRow.job_id == row.id)
                running = update(RunRow).where(RunRow.chunk_id.in_(chunks), RunRow.state == "running")
                session.execute(running.values(state="cancelled"))
            return [row.id for row in rows]

    def unneeded_models(self, job: str) -> set[str]:
        """sha256 of the models of a job that is over which no active job needs."""
        other = aliased(ModelRow)
        in_use = exists().where(other.sha256 == ModelRow.sha256, other.job_id == JobRow.id, JobRow.state.in_(OPEN))
        with reading(self._engine) as session:
            return set(session.scalars(select(ModelRow.sha256).where(ModelRow.job_id == job, ~in_use)))

    def needed_models(self) -> set[str]:
        """sha256 of every model that an active job needs."""
        query = select(ModelRow.sha256).join(JobRow, JobRow.id == ModelRow.job_id).where(JobRow.state.in_(OPEN))
        with reading(self._engine) as session:
            return set(session.scalars(query))


def _models(job: str, chunks: Iterable[Iterable[NewItem]]) -> list[dict[str, str]]:
    names = {item.blob for chunk in chunks for item in chunk}
    return [{"job_id": job, "sha256": name} for name in sorted(names)]


def _chunk(job: str, position: int) -> str:
    return f"{job}-{position}"


def _add_chunks(session: Session, job: str, count: int) -> None:
    rows = [{"id": _chunk(job, position), "job_id": job, "position": position} for position in range(count)]
    if rows:
        session.execute(insert(ChunkRow), rows)


def _batches(job: str, chunks: Sequence[Sequence[NewItem]]) -> Iterator[list[dict[str, object]]]:
    """The rows of all items, in parts that are written within milliseconds."""
    batch, size = list[dict[str, object]](), 0
    for place, chunk in enumerate(chunks):
        for item in chunk:
            payload = item.payload if isinstance(item.payload, Encoded) else Encoded(item.payload)
            ids = {"id": f"{job}.{item.position}", "chunk_id": _chunk(job, place), "job_id": job}
            batch.append({"position": item.position, "blob": item.blob, **ids, "payload": payload})
            size += len(payload.text)
            if size > BATCH_CHARACTERS or len(batch) >= BATCH_ITEMS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _is_there(session: Session, job: str) -> bool:
    """Whether a job is queued; one whose writing ended in the middle is forgotten."""
    row = session.get(JobRow, job)
    if row is None or row.state != ARRIVING:
        return row is not None
    _forget(session, job)
    session.expunge(row)
    return False


def _forget(session: Session, job: str) -> None:
    for kind in (ItemRow, ChunkRow, ModelRow):
        session.execute(delete(kind).where(kind.job_id == job))
    session.execute(delete(JobRow).where(JobRow.id == job))


def _failure(item: ItemRow) -> ItemFailure:
    key, error = item.payload.get("key"), item.error or {}
    reason, message = error.get("reason"), error.get("message")
    return ItemFailure(item.position, *(None if text is None else str(text) for text in (key, reason, message)))


def _quiet_since(session: Session, job: JobRow) -> str | None:
    runs = select(func.max(RunRow.expires_at)).join(ChunkRow).where(ChunkRow.job_id == job.id)
    if job.state != "active" or session.scalar(runs.where(RunRow.state == "running")):
        return None
    return max(job.created_at, session.scalar(runs) or "")


def _running_items(session: Session, job: str) -> int:
    running = select(func.count()).select_from(ItemRow).join(ChunkRow, ChunkRow.id == ItemRow.chunk_id)
    return session.scalar(running.where(ChunkRow.job_id == job, ChunkRow.state == "running")) or 0
