"""TensorRT's own ``trtexec``: builds an engine and times it in a process of its own; for devices without TensorRT's
Python package. What is read is the JSON that it exports: ``computeMs`` of each inference, the GPU's time from the first
kernel to the end of the last, by CUDA's events.

A process is started for each visit of a round, which takes seconds: the Python package, where there is one, is quicker.
Flags as of TensorRT 8.2 to 10; 11 has no ``--fp16``, there the model itself is made fp16.
"""

import collections
import json
import os
import re
import shutil
import subprocess
import tempfile
import weakref

from device_agents.runtimes import RuntimeRefused
from device_agents.runtimes.conditions import check_asked, condition, pin
from device_agents.runtimes.half import to_fp16

FOLDERS = ("/usr/src/tensorrt/bin", "/usr/local/tensorrt/bin", "/opt/tensorrt/bin")
VERSION = re.compile(r"\[TensorRT v([0-9]+)\]")
BUILD_S, RUN_S, ASK_S = 1800, 300, 60  # a Nano builds a network for minutes
AHEAD = 8  # bursts that a process measures at once: a visit has fewer
WORDS = 3  # last lines of complaint that an error tells
SKIP_INFERENCE = (8, 6)  # the version that renamed --buildOnly
STRONGLY_TYPED = (11,)


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
    """``trtexec`` on the first GPU; models and engines lie in a folder that goes with the runtime."""

    real = True

    def __init__(self, program, version, asked):
        self._program = program
        self._version = version
        self._half = asked["precision"] == "fp16"
        self._folder = tempfile.mkdtemp(prefix="ofa-trtexec-")
        weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._count = 0
        self.facts = {"cores_used": pin(asked["threads"]), "trtexec": program}
        self.condition = condition(asked, ".".join(map(str, version)))

    def load(self, item, fetch):
        """Build an item's engine; ``fetch()`` gives the bytes of its ONNX file.

        Raises:
            RuntimeRefused: ``trtexec`` cannot read or build it.
        """
        model = fetch()
        self._count += 1
        source = os.path.join(self._folder, "{}.onnx".format(self._count))
        engine = os.path.join(self._folder, "{}.engine".format(self._count))
        with open(source, "wb") as file:
            file.write(to_fp16(model) if self._half and self._version >= STRONGLY_TYPED else model)
        try:
            run_program([self._program, *self._build_flags(source, engine)], BUILD_S)
        finally:
            os.remove(source)
        return TrtexecSession(self._program, engine)

    def _build_flags(self, source, engine):
        flags = ["--onnx=" + source, "--saveEngine=" + engine, "--noTF32"]  # fp32 means fp32
        flags.append("--skipInference" if self._version >= SKIP_INFERENCE else "--buildOnly")
        return flags + (["--fp16"] if self._half and self._version < STRONGLY_TYPED else [])


class TrtexecSession:
    """An engine file; a process measures many inferences, which are handed out burst by burst."""

    def __init__(self, program, engine):
        self._program = program
        self._engine = engine
        self._times = collections.deque()
        self._ahead = AHEAD

    def run(self):
        """Measure anew: what was measured before is forgotten."""
        self._times.clear()
        self._measure(self._ahead)

    def elapsed_ns(self, calls):
        """How long the next so many of the measured inferences took."""
        self._ahead = max(self._ahead, AHEAD * calls)
        if len(self._times) < calls:
            self._measure(self._ahead)
        return round(sum(self._times.popleft() for _ in range(calls)) * 1e6)

    def _measure(self, inferences):
        exported = self._engine + ".json"
        flags = ["--iterations={}".format(inferences), "--duration=0", "--noDataTransfers", "--useSpinWait"]
        run_program([self._program, "--loadEngine=" + self._engine, "--exportTimes=" + exported, *flags], RUN_S)
        try:
            with open(exported) as file:
                self._times.extend(read_times(file.read()))
            os.remove(exported)
        except OSError as error:
            raise RuntimeRefused("trtexec exported no times: {}".format(error), "failed") from error
        if len(self._times) < inferences:
            message = "trtexec measured {} inferences, asked were {}".format(len(self._times), inferences)
            raise RuntimeRefused(message, "failed")

    def close(self):
        """Delete the engine."""
        os.remove(self._engine)
