"""The tables of ``ofa.db``. A change here needs a revision in ``migrations/versions``; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy
from sqlalchemy import BigInteger, Float, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ofa_deploy.json_types import JSON


def utc_now(ahead_s: float = 0.0) -> str:
    """The time, or one ahead, as ISO 8601 with milliseconds and a Z: text that sorts in the order of time."""
    moment = datetime.now(UTC) + timedelta(seconds=ahead_s)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Base(DeclarativeBase):
    """Base of all tables."""

    type_annotation_map = {dict[str, JSON]: sqlalchemy.JSON, str: String, float: Float, int: Integer}  # noqa: RUF012


class DeviceRow(Base):
    """A device that measures; ``facts`` is what its agent last said about it, ``profile`` what it was registered as."""

    __tablename__ = "devices"

    name: Mapped[str] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, JSON]]
    profile: Mapped[dict[str, JSON] | None] = mapped_column(sqlalchemy.JSON(none_as_null=True))
    created_at: Mapped[str] = mapped_column(default=utc_now)
    seen_at: Mapped[str | None]  # None: it was registered, and nothing was heard of it yet
    revoked_at: Mapped[str | None]


class TokenRow(Base):
    """A device's token. ``queue`` is that of the command which started the agent, and ends with it; "" otherwise."""

    __tablename__ = "tokens"

    hash: Mapped[str] = mapped_column(primary_key=True)  # sha256 of the secret
    device: Mapped[str] = mapped_column(ForeignKey("devices.name"), index=True)
    queue: Mapped[str]
    created_at: Mapped[str] = mapped_column(default=utc_now)
    revoked_at: Mapped[str | None]


class CodeRow(Base):
    """A code that an agent can trade for a token, once: ``secret_hash`` says for which."""

    __tablename__ = "codes"

    hash: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(ForeignKey("devices.name"), index=True)
    queue: Mapped[str]
    created_at: Mapped[str] = mapped_column(default=utc_now)
    expires_at: Mapped[str]
    secret_hash: Mapped[str | None]


class JobRow(Base):
    """Something to be measured on one device.

    ``queue`` is "" for registered devices; the agent that a command starts takes work of that command's queue only.
    ``request`` is what the client asked for; ``reference`` is left by the first finished chunk for the others.
    """

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_open", "state", "device", "queue"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(index=True)
    queue: Mapped[str]
    state: Mapped[str] = mapped_column(default="active")  # arriving, active, done, cancelled
    request: Mapped[dict[str, JSON]]
    reference: Mapped[dict[str, JSON] | None] = mapped_column(default=None)
    created_at: Mapped[str] = mapped_column(default=utc_now)
    start_by: Mapped[str | None]  # a job of which nothing was taken until then fails
    run_s: Mapped[float]  # limit of one run
    finished_at: Mapped[str | None] = mapped_column(default=None)


class ModelRow(Base):
    """A model file that a job needs."""

    __tablename__ = "models"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class ChunkRow(Base):
    """Items of a job that are measured together, in one run."""

    __tablename__ = "chunks"
    __table_args__ = (UniqueConstraint("job_id", "position"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    position: Mapped[int]
    state: Mapped[str] = mapped_column(default="waiting")  # waiting, running, done
    attempts: Mapped[int] = mapped_column(default=0)


class ItemRow(Base):
    """One thing to be measured; ``position`` is its place in the job."""

    __tablename__ = "items"

    id: Mapped[str] = mapped_column(primary_key=True)
    chunk_id: Mapped[str] = mapped_column(ForeignKey("chunks.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    position: Mapped[int]
    state: Mapped[str] = mapped_column(default="waiting")  # waiting, done, failed
    blob: Mapped[str]  # sha256 of the model
    payload: Mapped[dict[str, JSON]]
    error: Mapped[dict[str, JSON] | None] = mapped_column(default=None)


class RunRow(Base):
    """One attempt at a chunk by one agent; ``digest`` recognises a result that is sent twice."""

    __tablename__ = "runs"
    __table_args__ = (Index("ix_runs_lease", "state", "expires_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    chunk_id: Mapped[str] = mapped_column(ForeignKey("chunks.id"), index=True)
    device: Mapped[str]
    attempt: Mapped[int]
    state: Mapped[str] = mapped_column(default="running")  # running, done, returned, expired, cancelled
    progress: Mapped[dict[str, JSON] | None] = mapped_column(default=None)
    digest: Mapped[str | None] = mapped_column(default=None)
    claimed_at: Mapped[str] = mapped_column(default=utc_now)
    expires_at: Mapped[str]
    ends_at: Mapped[str]  # no lease is prolonged beyond it


class MeasurementRow(Base):
    """One measured item, never changed once written: the record as JSON, and the fields that are searched."""

    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint("run", "item"),
        Index("ix_measurements_lookup", "device", "condition_hash", "key"),
        Index("ix_measurements_kind_key", "kind", "key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str]
    condition_hash: Mapped[str]
    measured_at: Mapped[str]
    run: Mapped[str | None]
    item: Mapped[str | None] = mapped_column(index=True)
    record: Mapped[dict[str, JSON]]


class RunFactsRow(Base):
    """What a device said about itself in a run, once for all records of the run; older records hold it themselves."""

    __tablename__ = "run_facts"

    run: Mapped[str] = mapped_column(primary_key=True)
    facts: Mapped[dict[str, JSON]]


class ArchitectureRow(Base):
    """A subnet of a space; ``network`` is the key under which it is measured, whatever space it comes from."""

    __tablename__ = "architectures"

    key: Mapped[str] = mapped_column(primary_key=True)
    space: Mapped[str] = mapped_column(index=True)
    arch: Mapped[dict[str, JSON]]
    network: Mapped[str | None] = mapped_column(index=True)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    params: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[str] = mapped_column(default=utc_now)


class EvaluationRow(Base):
    """The measured accuracy of one subnet on one split.

    ``state`` says how it came to its weights: ``one-shot`` (inherited from the supernet), ``fine-tuned`` or
    ``scratch``; ``weights`` is the sha256 of the file that holds them, the supernet's own where they are inherited.
    """

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("supernet", "key", "split", "state", "weights"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    supernet: Mapped[str]
    key: Mapped[str] = mapped_column(index=True)
    split: Mapped[str]
    role: Mapped[str]
    state: Mapped[str]
    weights: Mapped[str]
    arch: Mapped[dict[str, JSON]]
    accuracy: Mapped[float]
    n: Mapped[int]
    created_at: Mapped[str] = mapped_column(default=utc_now)


class ArtefactRow(Base):
    """A file that the project made: a supernet, a table, a bundle."""

    __tablename__ = "artefacts"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(index=True)
    path: Mapped[str]
    sha256: Mapped[str]
    meta: Mapped[dict[str, JSON]]
    created_at: Mapped[str] = mapped_column(default=utc_now)


class CursorRow(Base):
    """Up to which measurement of a device a server's rows were copied to this workspace."""

    __tablename__ = "cursors"

    server: Mapped[str] = mapped_column(primary_key=True)
    device: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
