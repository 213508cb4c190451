"""The queue of a command: it ends with its process, however that ends.

A process shows a sign of life for its queue, so that the next command knows which queues nobody serves any more.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

from ofa_deploy.fleet.signs import Sign, abandoned
from ofa_deploy.store import Workspace


class Queue:
    """This process's own queue.

    Attributes:
        name: of the queue in the database.
        folder: for the models of its jobs.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.name = uuid4().hex
        self.folder = _folder(workspace) / self.name
        self._sign = Sign(self.folder)

    def close(self) -> None:
        """Give up the queue and its models."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._sign.close()


def end_abandoned(workspace: Workspace) -> None:
    """Cancel the jobs of commands that were killed, and remove their models."""
    for folder in abandoned(_folder(workspace)):
        workspace.store.jobs.cancel_queue(folder.name)
        shutil.rmtree(folder, ignore_errors=True)


def _folder(workspace: Workspace) -> Path:
    return workspace.root / "blobs"
