"""Opening the database, SQLite or PostgreSQL: settings, two kinds of transaction, and the migrations."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.orm import Session

from ofa_deploy.errors import UsageError

HEAD = "0004"  # the newest revision in migrations/versions
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
CONNECTIONS = 15  # that are kept open; as many more for a moment
MIGRATING = 0x0FADE  # PostgreSQL's lock that one of several starting servers holds


class Encoded:
    """The value of a JSON column, encoded before a transaction begins: nobody else can write while that lasts.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """

    def __init__(self, value: object) -> None:
        self.text = json.dumps(value, allow_nan=False, sort_keys=True)


def open_engine(url: str) -> Engine:
    """An engine for ``sqlite:///FILE`` or ``postgresql://…``; JSON columns refuse NaN and infinities.

    Raises:
        UsageError: the URL is of neither kind, or the driver for PostgreSQL is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    kind = parsed.get_backend_name() if parsed else ""
    if parsed is None or kind not in ("sqlite", "postgresql", "postgres"):
        raise UsageError("a database is named by a URL: postgresql://USER:PASSWORD@HOST/NAME, or sqlite:///FILE")
    if kind != "sqlite":
        if importlib.util.find_spec("psycopg") is None:
            raise UsageError("PostgreSQL needs its driver: pip install 'ofa-deploy[postgres]'")
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(
        parsed,
        json_serializer=lambda value: (value if isinstance(value, Encoded) else Encoded(value)).text,
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        pool_pre_ping=kind != "sqlite",
    )
    if kind == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the driver starts no transactions on its own; _begin_sqlite does
    for pragma in (f"busy_timeout={BUSY_SECONDS * 1000}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # a writer takes the lock at once: one that reads first and writes later would fail where it should wait
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """A session whose transaction is committed at the end, and undone by an exception."""
    with Session(engine.execution_options(writes=True)) as session, session.begin():
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads."""
    with Session(engine) as session:
        yield session


def migrate(engine: Engine, where: str) -> None:
    """Bring the database to the newest revision; at the newest, this costs one query.

    Raises:
        UsageError: it is no database, cannot be reached or written, or comes from a newer version of this program.
    """
    try:
        current = _revision(engine)
        if current != HEAD:
            _upgrade(engine, current, where)
    except DatabaseError as error:
        raise UsageError(
            f"cannot use the database {where}: {' '.join(str(error.orig).split())}; move it away, or name another"
        ) from error


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(engine: Engine, current: str | None, where: str) -> None:
    from alembic import command  # heavy, and needed once in a workspace's life
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise UsageError(
            f"{where} was written by a newer ofa-deploy (schema {current}; this one knows {HEAD}): update ofa-deploy"
        )
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATING})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
