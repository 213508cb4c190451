"""The agent's loop: deliver what is measured, ask the server for work, have it measured, forever."""

import os
import random
import re
import signal
import time

from device_agents import VERSION
from device_agents.facts import device_facts
from device_agents.heartbeat import Heartbeat
from device_agents.http import Refused, ServerAway
from device_agents.log import log
from device_agents.model_cache import Models
from device_agents.protocol import failure
from device_agents.runtimes import DeviceLost
from device_agents.supervisor import ChunkFailed, Supervisor, Workers

CLAIM_WAIT_S = 20  # how long the server may keep an idle agent's question open
BACKOFF_S = (0.5, 60.0)
NOT_WANTED = (403, 404, 409)  # the run is another's now, or its job is gone
RUN_NAME = r"[A-Za-z0-9_-]{1,100}$"  # it becomes a file's name


class Stopped(Exception):
    """The agent was told to end."""


class Agent:
    """One device's agent.

    Args:
        state: the ``State`` of this agent.
        queue: the server's queue from which it takes work.
        lock_path: locked while this machine is timed.
        parent: process id without which the agent ends; None to live on.
        once: end when there is no work.
        command: how to start a worker, see ``Workers``.
        facts: function that says what the device is, where that is another one than this machine; while it raises
            ``DeviceLost``, no work is asked for.
    """

    def __init__(self, state, queue="", lock_path=None, parent=None, once=False, command=None, facts=None):
        self.server = None
        self.state = state
        self.queue = queue
        self.lock_path = lock_path
        self.parent = parent
        self.once = once
        self.workers = Workers(command)
        self.facts = facts or device_facts
        self.stop_asked = False
        self._idle = False

    def install_signals(self):
        """End on SIGTERM and SIGINT, with a run in progress handed back to the server; on the second one at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number, frame):
        if self.stop_asked:
            os._exit(128 + number)  # the worker ends too: its pipe is broken
        self.stop_asked = True
        if self._idle:  # nothing to hand back, and the server may keep the question open for long
            raise Stopped

    def check(self):
        """Raise ``Stopped`` when it is time to end."""
        orphan = self.parent is not None and os.getppid() != self.parent
        if self.stop_asked or orphan:
            raise Stopped

    def loop(self, server):
        """Work for a server until stopped; a refusal of the token ends it with ``Refused``."""
        self.server = server
        try:
            while True:
                self._deliver()
                work = self.persist(self._claim)
                if work:
                    self._work(work)
                elif self.once:
                    return
        except Stopped:
            return
        finally:
            self.workers.close()

    def persist(self, request):
        """Repeat a request until the server answers, ever more rarely while it, or the device to measure, is away.

        Raises:
            Stopped: the agent was told to end.
        """
        pause, longest = BACKOFF_S
        while True:
            self.check()
            try:
                return request()
            except (ServerAway, DeviceLost) as error:
                now = pause * random.uniform(0.5, 1.0)  # noqa: S311 - not all agents at once when it is back
                who = "device" if isinstance(error, DeviceLost) else "server"
                log("{} away ({}), next try in {:.1f} s".format(who, error, now))
                self._sleep(now)
                pause = min(2 * pause, longest)

    def _sleep(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(min(0.2, seconds))

    def _claim(self):
        wait = 0 if self.once else 1 if self.parent else CLAIM_WAIT_S  # notice soon when the parent is gone
        facts = dict(self.facts(), agent=VERSION)
        body = {"facts": facts, "wait_s": wait, "queue": self.queue, "run": self.state.run}
        self._idle = True
        try:
            work = self.server.call("POST", "/api/claim", body, timeout=CLAIM_WAIT_S + 10)
        except Refused as error:
            if error.status in (401, 403):
                raise
            raise ServerAway(str(error)) from error  # another version, or a proxy that is being set up
        finally:
            self._idle = False
        if not work:
            self.state.end_run()
        elif not re.match(RUN_NAME, str(work.get("run"))):
            raise ServerAway("it does not name the run as an ofa-deploy server does")
        return work

    def _work(self, work):
        path = "/api/runs/{}".format(work["run"])
        self._begin(work["run"])
        try:
            with Heartbeat(self.server, path, work["lease_s"]) as heartbeat:
                result = self._measure(work, heartbeat)
        except Stopped:
            self._hand_back(path, "worker-shutdown", "the agent was stopped")
            raise
        except ChunkFailed as error:
            self._hand_back(path, error.reason, str(error))
        except Refused as error:
            self._refused(path, error)
        except Exception as error:  # a broken chunk must not cost the agent
            problem = failure(error)
            self._hand_back(path, problem["reason"], problem["message"])
        else:
            self.state.spool.keep(work["run"], result)
            if self.parent is not None:  # a command asks for more soon; other agents may idle for days, and hold memory
                self.workers.prepare(work["runtime"]["runtime"])
        self.state.end_run()

    def _begin(self, run):
        try:
            self.state.begin(run)
        except OSError as error:
            log("cannot note the run in {}: {}".format(self.state.folder, error.strerror))

    def _measure(self, work, heartbeat):
        def check():
            self.check()
            if heartbeat.refusal is not None:
                raise heartbeat.refusal

        def fetch(sha256):
            check()
            return self.server.blob(sha256)

        models = Models(self.state.path("models"), lambda sha256: self.persist(lambda: fetch(sha256)))
        marker = self.state.path("at")
        return Supervisor(models.get, heartbeat.tell, check, marker, self.lock_path, self.workers).measure(work)

    def _deliver(self):
        """Give the server every result that it does not have yet."""
        for run in self.state.spool.runs():
            result = self.state.spool.load(run)
            if result:
                self._send("/api/runs/{}".format(run), result)
            self.state.spool.drop(run)
            if self.state.run == run:  # the agent was killed between storing the result and noting its end
                self.state.end_run()

    def _send(self, path, result):
        try:
            self.persist(lambda: self.server.call("POST", path + "/result", result, timeout=120))
        except Refused as error:
            self._refused(path, error)

    def _refused(self, path, error):
        """The server does not take what belongs to a run; a token that it does not accept ends the agent."""
        if error.status == 401:
            raise error
        log("{}: {}".format(path, error))
        if error.status not in NOT_WANTED:
            self._hand_back(path, "malformed", str(error))

    def _hand_back(self, path, reason, message):
        log("{}: {}".format(reason, message))
        try:
            self.server.call("POST", path + "/failure", {"reason": reason, "message": message[:500]}, timeout=5)
        except (ServerAway, Refused) as error:
            log("could not hand the run back: {}".format(error))  # its lease ends by itself
