"""Engines that were built here, kept: by model, TensorRT, GPU and flags, and never used anywhere else.

An engine executes what it holds, and fits only the TensorRT and the GPU that it was built with. So beside each lies a
marker, ``KEY.json``, with the key, this machine's identity and the engine's sha256; an engine without one, with another
machine's, or changed since is deleted and built again. What came here by copying a folder is never loaded.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
import weakref

from device_agents import files
from device_agents.log import log

FOLDER = "OFA_ENGINES"  # in the environment of an agent's workers: where its engines lie
DEFAULT = os.path.join("~", ".cache", "ofa-agent", "engines")
LIMIT_BYTES = 2 * 2**30
FREE_SHARE = 0.5  # of the disk's free space, at most
STALE_S = 4000  # a build that takes longer was killed
IDENTITIES = ("/proc/device-tree/serial-number", "/etc/machine-id", "/sys/class/dmi/id/product_uuid")
ENGINE, MARKER, DETAILS = ".engine", ".json", ".details.json"


def machine():
    """What tells this machine from all others, as a sha256: a disk that was copied to a like one is another."""
    parts = [os.uname().nodename] if hasattr(os, "uname") else []
    for path in IDENTITIES:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            parts.append(file.read().strip(b"\0\n ").decode("utf-8", "replace"))
    return hashlib.sha256("\n".join(parts).encode("utf-8")).hexdigest()


def gpu_name():
    """The first GPU's name with its compute capability, by CUDA's driver; ``unknown`` where there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "unknown"
    name, device, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    asked = (
        driver.cuInit(0),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetName(name, 256, device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device),  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device),  # and _MINOR
    )
    if any(asked):
        return "unknown"
    return "{} {}.{}".format(name.value.decode("utf-8", "replace"), major.value, minor.value)


def no_room(folder, said):
    """There is no room for an engine, in one line."""
    return "no engine can be written to {}: {}; free space there".format(folder, said)


def sha256_of(path):
    """Of a file's content, read in parts: an engine may be larger than what memory is left."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


class Engines:
    """The folder of engines; where it cannot be written, another one that goes with this object.

    Args:
        folder: by default what ``FOLDER`` names, or one in the user's cache.
        limit: bytes that it may hold.
    """

    def __init__(self, folder=None, limit=LIMIT_BYTES):
        self.folder = os.path.abspath(os.path.expanduser(folder or os.environ.get(FOLDER) or DEFAULT))
        self._limit = limit
        self._machine = machine()
        self._in_use = set()
        try:
            os.makedirs(self.folder, mode=0o700, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            log("cannot keep engines in {}: {}; going on without".format(self.folder, error.strerror))
            self.folder = tempfile.mkdtemp(prefix="ofa-engines-")
            weakref.finalize(self, shutil.rmtree, self.folder, True)
        self._sweep()

    def key(self, model, tensorrt, gpu, flags):
        """What an engine is kept by: the ONNX file's sha256, TensorRT's version, the GPU and the builder's flags."""
        return {
            "onnx": hashlib.sha256(model).hexdigest(),
            "tensorrt": tensorrt,
            "gpu": gpu,
            "flags": sorted(flags),
        }

    def get(self, key, build):
        """The path of a key's engine, which is built if it is not here.

        Args:
            build: called with the path at which it has to put the engine.

        Raises:
            OSError: it cannot be written.
            Exception: what ``build`` raises; nothing is kept then.
        """
        path = self._path(key, ENGINE)
        self._in_use.add(path)
        if self._is_built_here(key, path):
            with contextlib.suppress(OSError):
                os.utime(path)  # the longest unused go first
            return path
        self._forget(path)
        self._make_room(self._limit)
        building = "{}.{}.building".format(path, os.getpid())
        try:
            build(building)
            self._mark(key, building)
            os.replace(building, path)
        except BaseException:
            self._in_use.discard(path)
            files.remove(building)
            raise
        return path

    def details(self, key, find):
        """What ``find()`` tells of a key's engine, remembered beside it."""
        path = self._path(key, DETAILS)
        known = files.read_json(path)
        if not known:
            known = find()
            with contextlib.suppress(OSError):
                files.write_json(path, known)
        return known

    def make_way(self):
        """Delete all engines that are not in use; whether there were any."""
        kept = self._engines()
        for path in kept:
            self._forget(path)
        return bool(kept)

    def write(self, path, plan):
        """Write an engine where ``get`` asks for it; a full disk costs the engines that are not in use.

        Raises:
            OSError: it cannot be written, even so.
        """
        while True:
            try:
                with open(path, "wb") as file:
                    file.write(plan)
                return
            except OSError as error:
                if error.errno != errno.ENOSPC or not self.make_way():
                    raise

    def _path(self, key, ending):
        text = json.dumps(key, sort_keys=True)
        return os.path.join(self.folder, hashlib.sha256(text.encode("utf-8")).hexdigest()[:40] + ending)

    def _is_built_here(self, key, path):
        marker = files.read_json(self._path(key, MARKER))
        if not os.path.exists(path):
            return False
        try:
            known = marker == dict(key, machine=self._machine, engine=sha256_of(path))
        except OSError:
            known = False
        if not known:
            log("the engine {} is damaged, or was not built here: it is built again".format(os.path.basename(path)))
        return known

    def _mark(self, key, building):
        marker = dict(key, machine=self._machine, engine=sha256_of(building))
        files.write_json(self._path(key, MARKER), marker)

    def _engines(self):
        """Paths of those that are not in use, the longest unused first."""
        paths = {os.path.join(self.folder, name) for name in os.listdir(self.folder) if name.endswith(ENGINE)}
        return sorted(paths - self._in_use, key=os.path.getmtime)

    def _make_room(self, limit):
        paths = self._engines()
        sizes = {path: os.path.getsize(path) for path in paths}
        total = sum(sizes.values())
        bound = min(limit, total + shutil.disk_usage(self.folder).free * FREE_SHARE)
        for path in paths:
            if total <= bound:
                return
            self._forget(path)
            total -= sizes[path]

    def _forget(self, path):
        stem = path[: -len(ENGINE)]
        for ending in (ENGINE, MARKER, DETAILS):
            files.remove(stem + ending)

    def _sweep(self):
        """Delete what builds left behind that were killed."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            with contextlib.suppress(OSError):
                if name.endswith((".building", ".onnx")) and time.time() - os.path.getmtime(path) > STALE_S:
                    os.remove(path)
