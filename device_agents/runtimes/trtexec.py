"""TensorRT's own ``trtexec``: builds an engine and times it in a process of its own; for devices without TensorRT's
Python package. What is read is the JSON that it exports: ``computeMs`` of each inference, the GPU's time from the first
kernel to the end of the last, by CUDA's events.

A process is started for each visit of a round, which takes seconds: the Python package, where there is one, is quicker.
Engines are kept (see ``engines``). Flags as of TensorRT 8.2 to 10; 11 has no ``--fp16``, there the model itself is made
fp16.
"""

import json
import os
import re
import shutil
import subprocess

from device_agents import files
from device_agents.log import log
from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.ahead import AheadSession
from device_agents.runtimes.conditions import check_asked, condition, pin
from device_agents.runtimes.engines import Engines, gpu_name, no_room
from device_agents.runtimes.half import to_fp16
from device_agents.runtimes.layers import engine_details

FOLDERS = ("/usr/src/tensorrt/bin", "/usr/local/tensorrt/bin", "/opt/tensorrt/bin")
VERSION = re.compile(r"\[TensorRT v([0-9]+)\]")
BUILD_S, RUN_S, ASK_S = 1800, 300, 60  # a Nano builds a network for minutes
PROFILED = 50  # inferences under the profiler
WORDS = 3  # last lines of complaint that an error tells
WORKSPACE_MIB = 256  # for the builder's trials; a Nano has 4 GB in all
INSPECTOR = (8, 2)  # the version that brought --exportLayerInfo
MEMORY_POOLS = (8, 4)  # the version that replaced --workspace
SKIP_INFERENCE = (8, 6)  # the version that renamed --buildOnly
STRONGLY_TYPED = (11,)
DETAILED = "--profilingVerbosity=detailed"  # or the inspector tells no more than the layers' names
UNWRITTEN = ("Saving engine to file failed", "No space left")


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["provider"]`` is ``TensorRT``. ``trtexec`` makes random inputs of its own.

    Raises:
        RuntimeRefused: there is no ``trtexec``, or it does not say its version.
    """
    check_asked(asked, "trtexec", {"TensorRT": ("fp32", "fp16")})
    program = find_program()
    banner = VERSION.search(run_program([program, "--help"], ASK_S))
    if banner is None:
        raise RuntimeRefused("{} --help does not say which TensorRT it is of; try it by hand".format(program))
    return TrtexecRuntime(program, decode_version(int(banner.group(1))), asked)


def find_program():
    """The path of ``trtexec``: from ``PATH``, or where TensorRT's packages put it."""
    found = shutil.which("trtexec") or shutil.which("trtexec", path=os.pathsep.join(FOLDERS))
    if found is None:
        raise RuntimeRefused(
            "trtexec is not in PATH nor in {}: install TensorRT's package libnvinfer-bin".format(" or ".join(FOLDERS))
        )
    return found


def decode_version(number):
    """``8201`` is 8.2.1, ``100500`` is 10.5.0."""
    thousands = 10000 if number >= 100000 else 1000
    return number // thousands, number % thousands // 100, number % 100


def run_program(command, limit_s):
    """Run a program to its end; returns what it said.

    Raises:
        RuntimeRefused: it failed, did not end in time, or was killed; with its last complaints.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeRefused("trtexec did not end within {} s".format(limit_s), "timeout") from error
    except OSError as error:
        raise RuntimeRefused("cannot run {}: {}".format(command[0], error)) from error
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise RuntimeRefused("trtexec ended with {}: {}".format(done.returncode, complaints(said)), reason_of(said))
    return said


def complaints(said):
    """The last lines of a log that are errors, or its last lines."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(([line for line in lines if "[E]" in line] or lines)[-WORDS:]) or "it said nothing"


def reason_of(said):
    """What kind of failure a log tells of."""
    words = said.lower()
    if "out of memory" in words or "outofmemory" in words:
        return "out-of-memory"
    if "no importer registered" in words or "unsupported_node" in words:
        return "unsupported-op"
    return "malformed" if "failed to parse" in words else "failed"


def read_times(text):
    """Milliseconds of every inference, from what ``--exportTimes`` wrote.

    Raises:
        RuntimeRefused: it is no such list, or a time is not a positive number.
    """
    try:
        times = [float(entry["computeMs"]) for entry in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeRefused("trtexec's exported times cannot be read: {!r}".format(error), "failed") from error
    if not times or not all(0 < ms < float("inf") for ms in times):
        raise RuntimeRefused("trtexec exported {} times, not all positive".format(len(times)), "failed")
    return times


class TrtexecRuntime:
    """``trtexec`` on the first GPU; engines are kept on this machine, and loaded where they were built here."""

    real = True

    def __init__(self, program, version, asked):
        self._program = program
        self._version = version
        self._precision = asked["precision"]
        self._engines = Engines()
        self.last = None  # see AheadSession
        gpu = gpu_name()
        self.facts = {
            "cores_used": pin(asked["threads"]),
            "trtexec": program,
            "gpu": gpu,
            "engines": self._engines.folder,
        }
        self.condition = condition(asked, ".".join(map(str, version)))

    def load(self, item, fetch):
        """Build an item's engine, or take the one that was built here before; ``fetch()`` gives the ONNX file's bytes.

        Raises:
            RuntimeRefused: ``trtexec`` cannot read or build it, or the disk is full.
        """
        model = fetch()
        flags = build_flags(self._version, self._precision)
        key = self._engines.key(model, self.condition["runtime_version"], self.facts["gpu"], flags)
        try:
            engine = self._engines.get(key, lambda path: self._build(model, path, flags))
        except OSError as error:
            raise RuntimeRefused(no_room(self._engines.folder, error.strerror), "failed") from error
        details = self._engines.details(key, lambda: self._profile(engine)) if item.get("kind") == "network" else None
        return TrtexecSession(self, engine, details)

    def _build(self, model, engine, flags):
        """Build once more without the other engines where there was no room to write this one."""
        strong = self._precision == "fp16" and self._version >= STRONGLY_TYPED
        source = engine + ".onnx"
        try:
            with open(source, "wb") as file:
                file.write(to_fp16(model) if strong else model)
            command = [self._program, "--onnx=" + source, "--saveEngine=" + engine, *flags]
            self._save(command)
        finally:
            files.remove(source)

    def _save(self, command):
        while True:
            try:
                run_program(command, BUILD_S)
                return
            except RuntimeRefused as error:
                if not any(words in str(error) for words in UNWRITTEN):
                    raise
                if not self._engines.make_way():  # there is nothing more to delete
                    raise RuntimeRefused(no_room(self._engines.folder, str(error)), "failed") from error

    def _profile(self, engine):
        """What each layer takes, and what it is made of; nothing where this fails, which costs no measurement."""
        profile, layers = engine + ".profile", engine + ".layers"
        flags = ["--loadEngine=" + engine, "--dumpProfile", "--exportProfile=" + profile, *timing_flags(PROFILED)]
        flags += ["--exportLayerInfo=" + layers, DETAILED] if self._version >= INSPECTOR else []
        try:
            run_program([self._program, *flags], RUN_S)
            return engine_details(read_text(profile), read_text(layers))
        except RuntimeRefused as error:
            log("no profile of the layers: {}".format(error))
            return {}
        finally:
            files.remove(profile)
            files.remove(layers)

    def times(self, engine, inferences):
        """Milliseconds of so many inferences.

        Raises:
            RuntimeRefused: ``trtexec`` failed, or measured fewer.
        """
        exported = engine + ".times"
        try:
            run_program(
                [self._program, "--loadEngine=" + engine, "--exportTimes=" + exported, *timing_flags(inferences)], RUN_S
            )
            times = read_times(read_text(exported))
        finally:
            files.remove(exported)
        if len(times) < inferences:
            raise RuntimeRefused(
                "trtexec measured {} inferences, asked were {}".format(len(times), inferences), "failed"
            )
        return times


def build_flags(version, precision, workspace_mib=WORKSPACE_MIB):
    """What ``trtexec`` is told of how to build, beside the files; ``version`` is a tuple such as ``(8, 2, 1)``."""
    flags = ["--noTF32"]  # fp32 means fp32
    flags.append("--skipInference" if version >= SKIP_INFERENCE else "--buildOnly")
    if version >= MEMORY_POOLS:
        flags.append("--memPoolSize=workspace:{}".format(workspace_mib))
    else:
        flags.append("--workspace={}".format(workspace_mib))
    flags += [DETAILED] if version >= INSPECTOR else []
    return flags + (["--fp16"] if precision == "fp16" and version < STRONGLY_TYPED else [])


def timing_flags(inferences):
    """So many inferences without copying values, with the CPU spinning while it waits."""
    return ["--iterations={}".format(inferences), "--duration=0", "--noDataTransfers", "--useSpinWait"]


def read_text(path):
    """What ``trtexec`` has exported; nothing where it did not."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


class TrtexecSession(AheadSession):
    """An engine file.

    Attributes:
        details: of a whole network, the profile of its layers; see ``layers.engine_details``.
    """

    def __init__(self, runtime, engine, details):
        super().__init__(runtime, lambda runs: runtime.times(engine, runs))
        self.details = details
