"""A bundle on disk: written whole or not at all, and verified offline, down to the figures of its report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ofa_deploy.documents.manifest_document import ListedFile, Manifest
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.export.provenance import wrong_subjects
from ofa_deploy.export.recompute import wrong_figures
from ofa_deploy.json_types import JSON

SCHEMA = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"


def write_bundle(folder: Path, files: Mapping[str, bytes], provenance: Mapping[str, JSON]) -> Path:
    """Write a bundle; an older one at the same place is replaced when the new one is complete.

    ``manifest.json`` holds size and sha256 of every file, and the provenance; ``manifest.sha256`` seals the manifest.
    Equal arguments give equal bytes.

    Args:
        folder: what becomes the bundle.
        files: content by name; names have no folders in them.

    Returns:
        The folder.

    Raises:
        UsageError: the folder holds something that is not a bundle; nothing of it is touched.
        OfaDeployError: the disk is full or cannot be written; an older bundle is still there.
    """
    folder = folder.resolve()  # "." has no name to put a sibling beside
    temporary = None
    try:
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        temporary.chmod(0o755)
        for name, content in _sealed(files, provenance).items():
            _write(temporary / name, content)
        _swap(temporary, folder)
    except OSError as error:
        raise OfaDeployError(
            f"cannot write the bundle {folder}: {error.strerror or error}; free space or choose another folder"
        ) from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _sealed(files: Mapping[str, bytes], provenance: Mapping[str, JSON]) -> dict[str, bytes]:
    """The files, their manifest, and the manifest's seal."""
    for name in files:
        if not name or Path(name).name != name or name in (MANIFEST, SEAL):
            raise ValueError(f"{name!r} cannot be the name of a bundle's file")
    listed = {name: ListedFile(sha256=_sha256(content), bytes=len(content)) for name, content in files.items()}
    document = Manifest(schema=SCHEMA, files=listed, provenance=provenance).to_json()
    manifest = (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    return {**files, MANIFEST: manifest, SEAL: f"{_sha256(manifest)}  {MANIFEST}\n".encode()}


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(new: Path, folder: Path) -> None:
    """Put a complete bundle in its place; on failure the old one is back there."""
    old = None
    if folder.exists():
        old = new.with_name(f"{new.name}.old")
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old:
            old.rename(folder)
        raise
    if old:
        shutil.rmtree(old, ignore_errors=True)


def _refuse_foreign(folder: Path) -> None:
    """Replacing a folder deletes what is in it, so it has to be a bundle and nothing else."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; choose another place for the bundle")
    present = {path.name for path in folder.iterdir()}
    listed: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        listed = {*Manifest.model_validate_json((folder / MANIFEST).read_bytes()).files, MANIFEST, SEAL}
    if present - listed:
        foreign = ", ".join(sorted(present - listed)[:3])
        raise UsageError(f"{folder} holds what is not part of a bundle ({foreign}); choose another folder")


def verify_bundle(folder: Path) -> list[str]:
    """Check a bundle offline: the manifest's seal, every file's size and hash, every figure of the report.

    Returns:
        What is wrong, one line each; nothing if all is well.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no bundle at {folder}")
    return changed_files(folder) + wrong_subjects(folder) + wrong_figures(folder)


def changed_files(folder: Path) -> list[str]:
    """Which files of a bundle are not as they were written, one line each: its seal, and every size and hash.

    While no file has changed, neither has what else ``verify_bundle`` asks: whether the figures follow from the
    evidence.
    """
    try:
        manifest = (folder / MANIFEST).read_bytes()
        listed = Manifest.model_validate_json(manifest).files
    except OSError:
        return [f"{MANIFEST} is missing or cannot be read"]
    except ValueError:
        return [f"{MANIFEST} is damaged"]
    return _wrong_seal(folder, manifest) + _wrong_files(folder, listed)


def _wrong_seal(folder: Path, manifest: bytes) -> list[str]:
    try:
        sealed = (folder / SEAL).read_bytes()
    except OSError:
        return [f"{SEAL} is missing or cannot be read"]
    return [] if sealed == f"{_sha256(manifest)}  {MANIFEST}\n".encode() else [f"{MANIFEST} does not match {SEAL}"]


def _wrong_files(folder: Path, listed: Mapping[str, ListedFile]) -> list[str]:
    present = {path.name: path for path in folder.iterdir() if path.name not in (MANIFEST, SEAL)}
    problems = [f"{name} is missing" for name in sorted(listed.keys() - present.keys())]
    problems += [f"{name} is not in the manifest" for name in sorted(present.keys() - listed.keys())]
    for name in sorted(listed.keys() & present.keys()):
        try:
            content = present[name].read_bytes()
        except OSError as error:
            problems.append(f"{name} cannot be read: {error.strerror}")
            continue
        if (_sha256(content), len(content)) != (listed[name].sha256, listed[name].bytes):
            problems.append(f"{name} was changed: its content does not match the manifest")
    return problems


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
