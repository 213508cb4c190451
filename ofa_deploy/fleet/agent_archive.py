"""The agent as one file that any Python runs: ``device_agents`` in a zip archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from ofa_deploy.errors import UsageError

PACKAGE = "device_agents"
SHEBANG = b"#!/usr/bin/env python3\n"
START = f"import sys\n\nfrom {PACKAGE}.__main__ import main\n\nsys.exit(main())\n"
DATE = (1980, 1, 1, 0, 0, 0)  # the same files give the same bytes


def pack_agent(path: Path) -> bytes:
    """Write the agent to a file, and return the file's bytes.

    Raises:
        UsageError: the file cannot be written.
    """
    archive = io.BytesIO(SHEBANG)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, source in [("__main__.py", START.encode()), *_sources(resources.files(PACKAGE), PACKAGE)]:
            entry = zipfile.ZipInfo(name, DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            file.writestr(entry, source)
    try:
        path.write_bytes(archive.getvalue())
        path.chmod(0o755)
    except OSError as error:
        raise UsageError(f"cannot write the agent to {path}: {error.strerror}; name another file with -o") from error
    return archive.getvalue()


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Every Python file of a package, by its name in the archive, in a fixed order."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}/{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, name)
        elif entry.name.endswith(".py"):
            yield name, entry.read_bytes()
