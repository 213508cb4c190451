"""Measuring a chunk in a process of its own, with limits, and again without the item that broke it."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time

from device_agents.facts import memory_limit
from device_agents.marker import read_marker
from device_agents.worker import IMPORT, OUT_OF_MEMORY

POLL_S = 0.25
MEMORY_SHARE = 0.8  # of what there is, that a worker may hold
STALL_SHARE = 0.25  # of the run's time, after which a single item is taken to hang
RESTARTS = 5
GOODBYE_S = 5.0
SECRETS = ("OFA_TOKEN", "OFA_CODE")  # of no use to a runtime


class ChunkFailed(Exception):
    """The chunk could not be measured; ``reason`` is what the server is told."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


class Crashed(ChunkFailed):
    """The worker is of no use any more, because of what it was at."""


def worker_command():
    """How to start a worker from where this very module lies: a folder, or a zip archive."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    flags = ["-I"] * sys.flags.isolated + ["-S"] * sys.flags.no_site
    code = "import sys; sys.path.insert(0, sys.argv.pop()); from device_agents.worker import main; main()"
    return [sys.executable, *flags, "-c", code, root]


class Workers:
    """Starts worker processes, and the next one ahead where that is asked for: a start takes longer than many chunks.

    Args:
        command: how to start a worker.
    """

    def __init__(self, command=None):
        self._command = command or worker_command()
        self._ahead = None

    def start(self):
        """A process that waits for its run: the one that was started ahead, if it still lives, or a new one."""
        process, self._ahead = self._ahead, None
        if process is not None:
            if process.poll() is None:
                return process
            end_process(process)
        return self._start({})

    def prepare(self, runtime):
        """Start the next process, in which the runtime of that name will probably be wanted."""
        if self._ahead is None:
            self._ahead = self._start({IMPORT: runtime})

    def _start(self, more):
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment.update(more)
        return subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the agent; and a session's leader may raise the session's priority
        )

    def close(self):
        """End the process that nobody took."""
        process, self._ahead = self._ahead, None
        if process is not None:
            end_process(process)


class Supervisor:
    """Measures chunks.

    Args:
        models: function from a model's sha256 to its bytes.
        report: called with a worker's progress.
        check: called often; may raise to end the measurement.
        marker_path: a file for the worker to say in what it is at.
        lock_path: the file to hold locked while a real runtime times this machine.
        workers: ``Workers``.
        memory: bytes that a worker may hold; by default a share of what the device, or this container, has.
    """

    def __init__(self, models, report, check, marker_path, lock_path=None, workers=None, memory=None):
        self._models = models
        self._report = report
        self._check = check
        self._marker_path = marker_path
        self._lock_path = lock_path
        self._workers = workers or Workers()
        self._memory = memory or MEMORY_SHARE * (memory_limit() or float("inf"))

    def measure(self, run):
        """The result of a run, as the server expects it.

        An item that crashes, hangs or fills the memory gets an error, and all others are measured without it.

        Raises:
            ChunkFailed: that happened too often, or outside of any item; time is up; or the runtime cannot be had.
        """
        end = time.monotonic() + run["run_s"]
        errors, tried = {}, run
        for _ in range(RESTARTS + 1):
            try:
                result = self._attempt(tried, end)
            except Crashed as crash:
                last = crash
                tried = self._without_culprit(tried, crash, errors)
            else:
                return _in_order(run, result, errors)
        raise ChunkFailed(last.reason, "{} of its models broke the runtime, the last: {}".format(RESTARTS + 1, last))

    def _attempt(self, run, end):
        limits = {"stall_s": STALL_SHARE * run["run_s"], "end": end, "memory": self._memory}
        worker = Worker(self._workers, self._marker_path, limits)
        try:
            worker.send({"run": run, "lock": self._lock_path, "marker": self._marker_path})
            while True:
                self._check()
                message = worker.next_message()
                if "fetch" in message:
                    worker.send_model(self._models(message["fetch"]))
                elif "progress" in message:
                    self._report(message["progress"])
                elif "result" in message:
                    return message["result"]
                elif "refused" in message:
                    raise ChunkFailed(message["refused"]["reason"], message["refused"]["message"])
        finally:
            worker.end()

    def _without_culprit(self, run, crash, errors):
        """The run without the item, or the sentinel, that the worker was at; the item's error is noted."""
        place = read_marker(self._marker_path)[1]
        items, sentinels = list(run["items"]), list(run["sentinels"])
        if place < 0:
            raise ChunkFailed(crash.reason, str(crash))
        if place < len(items):
            errors[items.pop(place)["item"]] = {"reason": crash.reason, "message": str(crash)}
        else:
            del sentinels[place - len(items)]
        return dict(run, items=items, sentinels=sentinels)


def _in_order(run, result, errors):
    """The result with the errors of items that the worker was not given."""
    found = {item["item"]: item for item in result["items"]}
    found.update((item, {"item": item, "error": error}) for item, error in errors.items())
    return dict(result, items=[found[item["item"]] for item in run["items"]])


class Worker:
    """A worker process. Every method may raise ``Crashed``.

    Args:
        limits: ``stall_s`` seconds that it may be at one item, ``end`` of its time, ``memory`` in bytes.
    """

    def __init__(self, workers, marker_path, limits):
        self._limits = limits
        self._marker_path = marker_path
        self._moves, self._moved = None, time.monotonic()
        if os.path.exists(marker_path):
            os.remove(marker_path)
        self._process = workers.start()
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next_message(self):
        """What the worker says next; an empty message when it says nothing for a moment."""
        try:
            line = self._lines.get(timeout=POLL_S)
        except queue.Empty:
            self._check_limits()
            return {}
        if line is None:
            raise self._death()
        try:
            return json.loads(line.decode("utf-8"))
        except ValueError:
            raise Crashed("failed", "the runtime garbles what its process says") from None

    def send(self, message):
        """Say something to the worker."""
        self._write(json.dumps(message).encode("utf-8") + b"\n")

    def send_model(self, model):
        """Hand over a model that it asked for; the time that it took to get it does not count."""
        self._moved = time.monotonic()
        self._write(json.dumps({"bytes": len(model)}).encode("utf-8") + b"\n" + model)

    def _write(self, data):
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._death() from None

    def _check_limits(self):
        now, moves = time.monotonic(), read_marker(self._marker_path)[0]
        if moves != self._moves:
            self._moves, self._moved = moves, now
        if now > self._limits["end"]:
            raise ChunkFailed("timeout", "the run took longer than it may")
        if now - self._moved > self._limits["stall_s"]:
            raise Crashed("timeout", "the runtime hangs: nothing for {:.0f} s".format(now - self._moved))
        held = memory_held(self._process.pid)
        if held > self._limits["memory"]:
            raise Crashed("out-of-memory", "the runtime holds {:.0f} MB of memory".format(held / 1e6))

    def _death(self):
        """Why the process ended, as a ``Crashed``."""
        try:
            code = self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            return Crashed("failed", "the runtime closed its process's pipe")
        if code in (-signal.SIGKILL, OUT_OF_MEMORY):
            return Crashed("out-of-memory", "the runtime's process was killed: there was not enough memory")
        if code < 0:
            return Crashed("failed", "the runtime crashed: {}".format(signal_name(-code)))
        return Crashed("failed", "the runtime ended its process with code {}".format(code))

    def end(self):
        """End the process, and what it has started."""
        end_process(self._process, lambda: self._reader.join(GOODBYE_S))


def end_process(process, then=lambda: None):
    """End a worker's process, and what it has started; ``then`` is called before its pipes are closed."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (OSError, AttributeError):  # it is gone; or this is not a Unix
        process.kill()
    process.wait()
    then()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was not sent yet is not needed
            pipe.close()


def signal_name(number):
    """A signal's name for people."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal {}".format(number)


def memory_held(pid):
    """Resident bytes of a process; 0 where the system does not say."""
    try:
        with open("/proc/{}/status".format(pid)) as file:
            found = re.search(r"VmRSS:\s+([0-9]+) kB", file.read())
    except OSError:
        return 0
    return int(found.group(1)) * 1024 if found else 0
