"""Sessions whose measuring is a process: it measures many inferences, which are handed out burst by burst."""

import collections
import math

from device_agents.summary import median

AHEAD = 6  # bursts that a process measures: those of a visit
FIRST_RUNS = 8


class AheadSession:
    """A model that a process measures.

    What another session's visit has left over is of an earlier round, so it is forgotten: ``runtime.last`` is the
    session that measured last.

    Args:
        runtime: has ``last``, which may be None.
        times: function from a number of inferences to the milliseconds of so many.
        process_ms: that a process measures at least, where bursts of tiny models are over too soon to pay for one.
    """

    def __init__(self, runtime, times, process_ms=0.0):
        self._runtime = runtime
        self._measured = times
        self._process_ms = process_ms
        self._times = collections.deque()
        self._typical_ms = None

    def run(self):
        """Measure anew."""
        self.measure(FIRST_RUNS)

    def elapsed_ns(self, calls):
        """How long the next so many of the measured inferences took, by the device's clock."""
        if self._runtime.last is not self or len(self._times) < calls:
            enough = math.ceil(self._process_ms / self._typical_ms) if self._typical_ms else FIRST_RUNS
            self.measure(max(AHEAD * calls, enough))
        return round(sum(self._times.popleft() for _ in range(calls)) * 1e6)

    def measure(self, runs):
        """Run a process; what was measured before is forgotten."""
        self._times = collections.deque(self._measured(runs))
        self._typical_ms = median(self._times)
        self._runtime.last = self
