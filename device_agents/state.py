"""The agent's folder: who it is, what it is at, and what it has not yet delivered. It outlives reboots."""

import os

from device_agents import files
from device_agents.lock import try_lock
from device_agents.spool import Spool

DEFAULT = os.path.join("~", ".ofa-agent")


class StateBusy(Exception):
    """Another agent uses the folder."""


class State:
    """The folder of one agent, which holds it locked for as long as it lives.

    Attributes:
        identity: ``server``, ``code``, ``secret``, ``ca``, and once enrolled ``device`` and ``token``.
        spool: results on their way to the server.

    Raises:
        OSError: the folder cannot be made or written.
        StateBusy: another agent uses it.
    """

    def __init__(self, folder):
        self.folder = os.path.abspath(os.path.expanduser(folder))
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._lock = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        if not try_lock(self._lock):
            os.close(self._lock)
            raise StateBusy("another agent runs with the folder {}; end it, or give --state".format(self.folder))
        self.identity = files.read_json(self.path("agent.json"))
        self.spool = Spool(self.path("spool"))

    def path(self, *names):
        """The path of something in the folder."""
        return os.path.join(self.folder, *names)

    def close(self):
        """Let another agent use the folder."""
        os.close(self._lock)

    def remember(self, **identity):
        """Store who this agent is; what is given replaces what was known.

        Raises:
            OSError: the disk is full.
        """
        files.write_json(self.path("agent.json"), identity)
        self.identity = identity

    @property
    def run(self):
        """The run that was being measured when the agent last ended, or None."""
        return files.read_json(self.path("run.json")).get("run")

    def begin(self, run):
        """Note the run that is measured from now on.

        Raises:
            OSError: the disk is full.
        """
        files.write_json(self.path("run.json"), {"run": run})

    def end_run(self):
        """There is nothing to resume any more."""
        files.remove(self.path("run.json"))
