"""Writing files so that a killed process or a full disk leaves either the old or the new content, never a half."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from ofa_deploy.errors import OfaDeployError


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file's content in one step.

    Raises:
        OfaDeployError: the folder cannot be written or the disk is full; the old file is untouched.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise OfaDeployError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error


def short_hash(content: bytes) -> str:
    """The first 32 digits of a content's sha256: enough to tell files apart, where there are many."""
    return hashlib.sha256(content).hexdigest()[:32]
