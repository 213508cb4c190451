"""Secrets: the admin's token in the workspace, and the codes and tokens of devices, of which hashes are stored."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.store import Store

FILE = "token"
CODE_S = 24 * 3600.0  # for which an enrolment code is good
Role = Literal["admin", "device"]


@dataclass(frozen=True)
class Bearer:
    """Whose token came with a request; ``device`` is "" for an admin.

    ``queue`` is the only one that the token is good for: that of the command which started the agent, else "".
    """

    role: Role
    device: str = ""
    queue: str = ""


def admin_token(workspace: Path) -> str:
    """The workspace's admin token, made on first need; only its owner can read the file.

    Raises:
        OfaDeployError: the file cannot be read or written.
    """
    path = workspace / FILE
    try:
        with contextlib.suppress(FileExistsError):
            fresh = workspace / f".{FILE}.{secrets.token_hex(8)}"  # linked when it is whole: another process may look
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            try:
                os.link(fresh, path)
            finally:
                fresh.unlink()
        path.chmod(0o600)
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise OfaDeployError(f"cannot use the admin token {path}: {why}; remove the file to get another") from error


def digest(secret: str) -> str:
    """What is stored of a secret: secrets are 128 random bits or more, so that a plain sha256 cannot be searched."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def new_code() -> str:
    """An enrolment code; it never begins with a dash, because it is typed after an option."""
    return secrets.token_hex(16)


def device_token(device: str, secret: str) -> str:
    """The token of a device; neither part of it needs quoting, and a secret has no dot."""
    return f"{device}.{secret}"


def who(store: Store, header: bytes, admin: str) -> Bearer | None:
    """Whose token an ``Authorization`` header holds; None for a wrong or revoked one."""
    scheme, _, token = header.partition(b" ")
    if scheme.lower() != b"bearer" or not token:
        return None
    if hmac.compare_digest(token, admin.encode()):
        return Bearer("admin")
    device, _, secret = token.decode("latin-1").rpartition(".")
    known = device.isascii() and device.isprintable()
    queue = store.access.queue_of(device, digest(secret)) if known else None
    return None if queue is None else Bearer("device", device, queue)
