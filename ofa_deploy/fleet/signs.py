"""Signs of life: a file that is locked for as long as its process lives, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".lock"


class Sign:
    """This process's own sign. It appears when it is locked: an unlocked one would say that we are dead.

    Args:
        path: without suffix; nobody else uses it.
    """

    def __init__(self, path: Path) -> None:
        self._file, fresh = path.with_suffix(SUFFIX), path.with_suffix(".new")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        fresh.rename(self._file)

    def close(self) -> None:
        """Take it away."""
        self._file.unlink(missing_ok=True)
        os.close(self._handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold a file's lock; False where its owner holds it, who lives, or where there is no such file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)


def abandoned(folder: Path) -> Iterator[Path]:
    """The signs in a folder, without suffix, whose processes are gone. Each is held while the caller is at it, and
    then removed."""
    for file in folder.glob(f"*{SUFFIX}"):
        with locked(file) as ours:
            if ours:
                yield file.with_suffix("")
                file.unlink(missing_ok=True)
