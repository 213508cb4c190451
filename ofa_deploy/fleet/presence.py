"""Which server serves a workspace, for the commands that stand in it; without the server's libraries."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

FILE = "server.json"
LOOKING_S = 10.0  # a command looks for a millisecond, unless it is stopped in the middle


@contextlib.contextmanager
def announced(workspace: Path, url: str) -> Iterator[bool]:
    """Tell the workspace's commands of a server, for as long as this process lives. False where they have one already:
    the second serves as well, but is not the one that they find."""
    handle = os.open(workspace / FILE, os.O_RDWR | os.O_CREAT, 0o644)
    first = _locked(handle)
    try:
        if first:
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps({"url": url}).encode())
        yield first
    finally:
        if first:
            os.ftruncate(handle, 0)
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock the file as its server. False where another server has it locked.

    A command that looks shares the lock for a moment. It is told from a server by sharing the lock with it.
    """
    end = time.monotonic() + LOOKING_S
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(handle, fcntl.LOCK_UN)
        time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 - two servers that begin at once look at each other, too
    return False


def running(workspace: Path) -> str | None:
    """The URL of the server that serves this workspace, or None."""
    try:
        with (workspace / FILE).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return str(json.loads(file.read())["url"])
    except (OSError, ValueError, KeyError):
        return None
    return None
