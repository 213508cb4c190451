"""Telling the server that a run is alive, from a thread of its own: whatever the measurement does, its lease holds."""

import threading
import time

from device_agents.http import Refused, ServerAway
from device_agents.log import log

PROGRESS_S = 1.0  # how often progress is told
LEASE_SHARE = 4  # signs of life within a lease, where there is no progress to tell


class Heartbeat:
    """Signs of life of one run; a context manager.

    Attributes:
        refusal: the server's ``Refused``, when the run is not this agent's any more.
    """

    def __init__(self, server, path, lease_s):
        self.refusal = None
        self._server = server
        self._path = path + "/progress"
        self._quiet_s = lease_s / LEASE_SHARE
        self._progress = {"phase": "loading"}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def tell(self, progress):
        """What the next sign of life says."""
        self._progress = progress

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()

    def _beat_on(self):
        told, last, pause = None, time.monotonic(), min(PROGRESS_S, self._quiet_s)
        while not self._ended.wait(pause) and self.refusal is None:
            progress = self._progress
            if progress is told and time.monotonic() - last < self._quiet_s:
                continue
            try:
                self._server.call("POST", self._path, progress, timeout=max(2.0, self._quiet_s))
            except ServerAway:
                self._ended.wait(self._quiet_s / 2)
            except Refused as error:
                self._refused(error)
            told, last = progress, time.monotonic()

    def _refused(self, error):
        if error.status in (401, 403, 404, 409):
            self.refusal = error
        else:
            log("progress is refused: {}".format(error))
