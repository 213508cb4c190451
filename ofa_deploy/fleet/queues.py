"""The queue of a command: it ends with its process, however that ends.

A process holds a lock on its queue's file for as long as it lives; the system frees it when the process dies, so that
the next command knows which queues nobody serves any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from uuid import uuid4

from ofa_deploy.store import Workspace

LOCK = ".lock"


class Queue:
    """This process's own queue.

    Attributes:
        name: of the queue in the database.
        folder: for the models of its jobs.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.name = uuid4().hex
        self.folder = _folder(workspace) / self.name
        self.folder.parent.mkdir(exist_ok=True)
        self._file = self.folder.with_suffix(LOCK)
        fresh = self.folder.with_suffix(".new")  # renamed when it is locked, or another process would think us dead
        self._handle = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        fresh.rename(self._file)

    def close(self) -> None:
        """Give up the queue and its models."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._file.unlink(missing_ok=True)
        os.close(self._handle)


def end_abandoned(workspace: Workspace) -> None:
    """Cancel the jobs of commands that were killed, and remove their models."""
    for file in _folder(workspace).glob(f"*{LOCK}"):
        try:
            handle = os.open(file, os.O_RDWR)
        except FileNotFoundError:  # another command is doing the same
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its process lives
            continue
        else:
            workspace.store.jobs.cancel_queue(file.stem)
            shutil.rmtree(file.with_suffix(""), ignore_errors=True)
            file.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "blobs"
