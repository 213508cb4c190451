"""The process that measures one chunk, and nothing else: what crashes here costs an item, not the agent.

It talks with the agent in JSON lines over its standard streams, which nobody else in the process can reach: a runtime
that prints or reads meets stderr and an empty file.

    agent to worker   {"run", "lock", "marker"}       once, at the start
                      {"bytes": n} and n raw bytes    a model that was asked for
    worker to agent   {"progress": {…}}               at most once a second
                      {"fetch": sha256}               a model is needed
                      {"result": {…}} or {"refused": {"reason", "message"}}
"""

import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import time

from device_agents.chunk import measure_chunk
from device_agents.marker import Marker
from device_agents.protocol import failure

REPORT_S = 1.0
OUT_OF_MEMORY = errno.ENOMEM  # exit code
IMPORT = "OFA_IMPORT"  # in the environment of a worker that waits for its run: the runtime to import meanwhile
LIBRARIES = ("onnxruntime", "openvino", "torch")  # runtimes whose Python module has the same name


class Pipe:
    """The agent at the other end; when it is gone, so is this process."""

    def __init__(self):
        self._in, self._out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        self._reported = -REPORT_S

    def read(self):
        """The next line, as JSON."""
        line = self._in.readline()
        if not line:
            raise SystemExit("the agent is gone")
        return json.loads(line.decode("utf-8"))

    def send(self, message):
        """Say something to the agent."""
        try:
            self._out.write(json.dumps(message, allow_nan=False).encode("utf-8") + b"\n")
            self._out.flush()
        except BrokenPipeError:
            raise SystemExit("the agent is gone") from None

    def model(self, sha256):
        """A model's bytes."""
        self.send({"fetch": sha256})
        size = self.read()["bytes"]
        try:
            return self._in.read(size)
        except MemoryError:  # what follows on the pipe is lost
            raise SystemExit(OUT_OF_MEMORY) from None

    def report(self, progress):
        """Tell how far the measurement is, now and then."""
        now = time.monotonic()
        if now - self._reported >= REPORT_S:
            self._reported = now
            self.send({"progress": progress})


def main():
    """Measure the chunk that the agent hands over."""
    pipe = Pipe()
    if os.environ.get(IMPORT) in LIBRARIES:
        with contextlib.suppress(Exception):  # who needs it will say what is wrong
            importlib.import_module(os.environ[IMPORT])
    asked = pipe.read()
    run = asked["run"]
    if hasattr(signal, "alarm"):  # hanging in a runtime, with no agent left to end it
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(run["run_s"]) + 1)
    prefer_to_be_killed()
    try:
        answer = {"result": measure_chunk(run, pipe.model, pipe.report, asked["lock"], Marker(asked["marker"]))}
    except Exception as error:
        answer = {"refused": failure(error)}
    pipe.send(answer)
    sys.stderr.flush()
    os._exit(0)  # a runtime's clean-up is a good place for a crash, and there is nothing left to clean


def prefer_to_be_killed():
    """Where memory runs out, Linux should end this process, not the agent or what else lives on the device."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
