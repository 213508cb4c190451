"""ONNX Runtime Web in a workspace, from where ``serve`` gives it to the browser agent; installed, never shipped."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import device_agents
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.files import write_atomic

WEB = Path(device_agents.__file__).parent / "web"
PACKAGE = "onnxruntime-web"
INSTALL = "ofa-deploy agent web-assets"
NEEDED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
FOR_WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
LARGEST = 256 * 2**20  # of a file in the package, and of the package: far above what it has
NPM_S = 600
Read = Callable[[str], bytes | None]  # a file of the package by its name; None where it has none


def assets_folder(workspace: Path) -> Path:
    """Where a workspace has them."""
    return workspace / "web-assets"


def missing(workspace: Path) -> bool:
    """Whether the browser agent cannot measure for want of them."""
    return not all((assets_folder(workspace) / name).is_file() for name in NEEDED)


@dataclass(frozen=True)
class Locked:
    """The package as the lock file has it; ``integrity`` is the name of a hash, "-", and the hash in base 64."""

    version: str
    integrity: str


def locked() -> Locked:
    """What the lock file asks for."""
    entry = json.loads((WEB / "package-lock.json").read_text())["packages"][f"node_modules/{PACKAGE}"]
    return Locked(entry["version"], entry["integrity"])


def install(workspace: Path, archive: Path | None = None) -> list[Path]:
    """Put the files into the workspace: from npm by the lock file, or from the package as a file.

    Args:
        archive: the package as npm publishes it (``.tgz``), where there is no npm or no network.

    Returns:
        The files.

    Raises:
        UsageError: the archive cannot be read, or is not the package of the lock file.
        OfaDeployError: npm is not there, or fails; or the disk is full.
    """
    if archive is not None:
        return _copy(_reader(_checked(archive)), workspace)
    with tempfile.TemporaryDirectory() as folder:
        dist = _with_npm(Path(folder)) / "node_modules" / PACKAGE / "dist"
        return _copy(lambda name: (dist / name).read_bytes() if (dist / name).is_file() else None, workspace)


def _with_npm(folder: Path) -> Path:
    if shutil.which("npm") is None:
        version = locked().version
        raise OfaDeployError(
            f"npm is not installed here: install it (Debian: apt-get install npm), or get {PACKAGE}-{version}.tgz by "
            f"`npm pack {PACKAGE}@{version}` elsewhere, and: {INSTALL} --from {PACKAGE}-{version}.tgz"
        )
    for name in ("package.json", "package-lock.json"):
        shutil.copy(WEB / name, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_S, check=False)
    except subprocess.TimeoutExpired:
        raise OfaDeployError(f"npm took longer than {NPM_S} s; is its registry reachable?") from None
    if done.returncode:
        said = [line.removeprefix("npm error ") for line in done.stderr.splitlines() if line.startswith("npm err")]
        what = "; ".join(said[:2]) or "it printed nothing"
        raise OfaDeployError(f"npm failed: {what}; without npm: {INSTALL} --from {PACKAGE}-{locked().version}.tgz")
    return folder


def _checked(archive: Path) -> bytes:
    try:
        if archive.stat().st_size > LARGEST:
            raise UsageError(f"{archive} is larger than {PACKAGE} can be")
        content = archive.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {archive}: {error.strerror}") from error
    known = locked()
    algorithm, _, expected = known.integrity.partition("-")
    if base64.b64encode(hashlib.new(algorithm, content).digest()).decode() != expected:
        raise UsageError(
            f"{archive} is not {PACKAGE} {known.version} as its lock file knows it: the {algorithm} differs; "
            f"get it by: npm pack {PACKAGE}@{known.version}"
        )
    return content


def _reader(content: bytes) -> Read:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        wanted = {f"package/dist/{name}": name for name in (*NEEDED, *FOR_WEBGPU)}
        members = [member for member in tar.getmembers() if member.isfile() and member.name in wanted]
        found = {wanted[member.name]: file.read() for member in members if (file := tar.extractfile(member))}
    return found.get


def _copy(read: Read, workspace: Path) -> list[Path]:
    folder = assets_folder(workspace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OfaDeployError(f"cannot make {folder}: {error.strerror}; choose another --workspace") from error
    contents = {name: content for name in (*NEEDED, *FOR_WEBGPU) if (content := read(name)) is not None}
    if absent := set(NEEDED) - set(contents):
        raise OfaDeployError(f"{PACKAGE} {locked().version} has no {min(absent)}")
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]
