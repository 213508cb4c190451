"""The agent's loop: ask the server for work, measure it, send the result, forever."""

import os
import random
import signal
import sys
import time

from device_agents import VERSION
from device_agents.chunk import measure_chunk
from device_agents.facts import device_facts
from device_agents.http import Refused, ServerAway
from device_agents.protocol import failure
from device_agents.runtimes import RuntimeRefused

CLAIM_WAIT_S = 20  # how long the server may keep an idle agent's question open
REPORT_S = 1.0
BACKOFF_S = (0.5, 30.0)


class Stopped(Exception):
    """The agent was told to end."""


class RunOver(Exception):
    """The server does not want this run's result any more."""


class Agent:
    """One device's agent.

    Args:
        server: a ``Server``.
        queue: whose work it takes; "" is everybody's.
        lock_path: locked while this machine is timed.
        parent: process id without which the agent ends; None to live on.
    """

    def __init__(self, server, queue="", lock_path=None, parent=None):
        self.server = server
        self.queue = queue
        self.lock_path = lock_path
        self.parent = parent
        self.stop_asked = False
        self._reported = 0.0
        self._idle = False

    def install_signals(self):
        """End in an orderly way on SIGTERM and SIGINT: a run in progress is handed back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number, frame):
        self.stop_asked = True
        if self._idle:  # nothing to hand back, and the server may keep the question open for long
            raise Stopped

    def check(self):
        """Raise ``Stopped`` when it is time to end."""
        orphan = self.parent is not None and os.getppid() != self.parent
        if self.stop_asked or orphan:
            raise Stopped

    def loop(self):
        """Work until stopped; a refusal of the token ends the loop with ``Refused``."""
        try:
            while True:
                run = self._persist(self._claim)
                if run:
                    self._work(run)
        except Stopped:
            return

    def _claim(self):
        facts = dict(device_facts(), agent=VERSION)
        wait = 1 if self.parent else CLAIM_WAIT_S  # notice soon when the parent is gone
        body = {"queue": self.queue, "facts": facts, "wait_s": wait}
        self._idle = True
        try:
            return self.server.call("POST", "/api/claim", body, timeout=CLAIM_WAIT_S + 10)
        finally:
            self._idle = False

    def _persist(self, request):
        """Repeat a request until the server answers, ever more rarely while it is away."""
        pause, longest = BACKOFF_S
        while True:
            self.check()
            try:
                return request()
            except ServerAway as error:
                log("server away ({}), next try in {:.1f} s".format(error, pause))
                self._sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
                pause = min(2 * pause, longest)

    def _sleep(self, seconds):
        end = time.time() + seconds
        while time.time() < end:
            self.check()
            time.sleep(min(0.2, seconds))

    def _work(self, run):
        path = "/api/runs/{}".format(run["run"])
        try:
            result = measure_chunk(run, self._model, lambda progress: self._report(path, progress), self.lock_path)
            self._persist(lambda: self.server.call("POST", path + "/result", result, timeout=120))
        except RunOver:
            log("run {} is over, its result is not wanted".format(run["run"]))
        except Stopped:
            self._hand_back(path, "worker-shutdown", "the agent was stopped")
            raise
        except RuntimeRefused as error:
            self._hand_back(path, error.reason, str(error))
        except Refused as error:
            log("run {}: {}".format(run["run"], error))
            if error.status == 401:
                raise
            if error.status != 409:
                self._hand_back(path, "malformed", str(error))
        except Exception as error:  # a broken chunk must not cost the agent
            problem = failure(error)
            self._hand_back(path, problem["reason"], problem["message"])

    def _model(self, sha256):
        return self._persist(lambda: self.server.blob(sha256))

    def _report(self, path, progress):
        """Tell the server how far we are, once a second; a server that is away is no reason to stop measuring."""
        now = time.time()
        if abs(now - self._reported) < REPORT_S:
            return
        self._reported = now
        self.check()
        try:
            self.server.call("POST", path + "/progress", progress, timeout=2)
        except ServerAway:
            return
        except Refused as error:
            if error.status == 409:
                raise RunOver from error
            raise

    def _hand_back(self, path, reason, message):
        log("{}: {}".format(reason, message))
        try:
            self.server.call("POST", path + "/failure", {"reason": reason, "message": message[:500]}, timeout=5)
        except (ServerAway, Refused) as error:
            log("could not hand the run back: {}".format(error))  # its lease ends by itself


def log(message):
    """One line on stderr."""
    sys.stderr.write("ofa-agent: {}\n".format(" ".join(message.split())))
    sys.stderr.flush()
