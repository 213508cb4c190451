"""A PostgreSQL server for tests, from the programs that the system has."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

FOLDERS = Path("/usr/lib/postgresql")  # where Debian has every version's programs


def programs() -> Path:
    """The folder of initdb and postgres; skips the test where there is none."""
    pytest.importorskip("psycopg")
    found = shutil.which("initdb") or max(map(str, FOLDERS.glob("*/bin/initdb")), default=None)
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return Path(found).resolve().parent


def as_user() -> dict[str, str | int]:
    """How to start a process that root may not be: as ``nobody``."""
    return {} if os.getuid() else {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}


def start(folder: Path) -> Callable[[], None]:
    """Start a server in a folder that nobody else reads. Returns what stops it."""
    bin_folder, user, data = programs(), as_user(), folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    if user:
        shutil.chown(folder, "nobody", user["group"])
    initdb = [bin_folder / "initdb", "-D", data, "-U", "ofa", "--auth=trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initdb, check=True, timeout=120, **quiet)
    options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=300"
    control = [bin_folder / "pg_ctl", "-D", data, "-w", "-t", "60"]
    subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], check=True, timeout=120, **quiet)
    return lambda: subprocess.run([*control, "-m", "immediate", "stop"], check=False, timeout=120, **quiet)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The folder with the socket of a server that runs for the session."""
    folder = Path(tempfile.mkdtemp(prefix="ofa-pg-"))
    stop = start(folder)
    yield str(folder)
    stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_postgres_database(postgres: str) -> Callable[[], str]:
    """A function that makes an empty database, and returns its URL."""
    import psycopg

    def make() -> str:
        name = f"ofa_{uuid4().hex}"
        with psycopg.connect(host=postgres, user="ofa", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://ofa@/{name}?host={postgres}"

    return make
