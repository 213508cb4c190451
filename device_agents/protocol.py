"""How latency is measured: in rounds.

Timing one item after another is wrong on any machine whose speed drifts: an item measured in a slow minute looks like
a slow item. Here each round visits every item once, in shuffled order, and times a short series of bursts; an item's
latency is the median over rounds of its in-round medians. A sentinel item, timed at the start, the middle and the end
of each round, shows the rounds in which the whole device was slow; they are measured again while time allows.
"""

import gc
import itertools
import math
import random
import time
from typing import NamedTuple

from device_agents.runtimes import DeviceLost
from device_agents.summary import median, relative_error, sentinel_levels, slow_rounds

ROUNDS_AT_LEAST = 3  # even when time is up: fewer say nothing about their spread
MAX_CALLS = 100000


class Settings(NamedTuple):
    """The protocol's settings; they are stored with every row.

    Attributes:
        rounds_min, rounds_max: rounds that are not slow before measuring may stop; rounds at which it stops.
        min_s: measuring goes on for this long at least: the rounds of a few small items are over so soon that one
            busy moment of the machine would be all that they see.
        timings: timed bursts an item gets in a round.
        burst_ms: a burst repeats the call until it takes this long, or 1000 times the timer's resolution.
        visit_ms: items so slow that the series would take longer are timed less often, but at least twice a round.
            Where the rounds that it takes at least would otherwise not end within ``cap_s``, it is shorter.
        se: measuring stops when every item's relative standard error is below this.
        cap_s: measuring stops when the rounds have taken this long.
        warmup_ms, warmup_calls: how long, and how often at least, an item is called before the first round.
        drift: a round is slow when its sentinel is this share slower than in the best stretch.
        seed: of the order in the rounds, and of the inputs.
    """

    rounds_min: int = 12
    rounds_max: int = 120
    min_s: float = 3.0
    timings: int = 6
    burst_ms: float = 0.5
    visit_ms: float = 200.0
    se: float = 0.01
    cap_s: float = 120.0
    warmup_ms: float = 5.0
    warmup_calls: int = 3
    drift: float = 0.12
    seed: int = 0


def _clock_ns():
    return int(time.perf_counter() * 1e9)


clock_ns = getattr(time, "perf_counter_ns", _clock_ns)  # Python 3.6 has only the float


def timer_resolution_ns(clock=clock_ns):
    """The smallest step that the clock was seen to make."""
    steps = []
    for _ in range(50):
        begin = now = clock()
        while now == begin:
            now = clock()
        steps.append(now - begin)
    return min(steps)


class SimulatedTime:
    """The clock of a simulated device: it moves while one of its sessions is busy, and only then."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        """Nanoseconds."""
        return self.now

    def watch(self, session):
        """Let the clock move with a session."""
        elapsed = session.elapsed_ns

        def elapsed_ns(calls):
            spent = elapsed(calls)
            self.now += spent
            return spent

        session.elapsed_ns = elapsed_ns


class Series:
    """A session with the size of its bursts, and the timings that it has got: ``timings[visit][burst]`` in ms.

    Where the calls run in this process, ``cpu`` are milliseconds of processor time of a call and ``switches`` how often
    the burst lost its core to another process, in the same order; else both are empty.
    """

    def __init__(self, session, settings, clock, resolution_ns, spent=None):
        self.run = getattr(session, "run", None)
        self.elapsed_ns = getattr(session, "elapsed_ns", self._timed)
        self.spent = None if hasattr(session, "elapsed_ns") else spent
        self.clock = clock
        self.timings, self.cpu, self.switches = [], [], []
        call_ns = max(self._warm_up(settings), 1)
        burst_ns = max(settings.burst_ms * 1e6, 1000 * resolution_ns)
        self.burst = min(max(math.ceil(burst_ns / call_ns), 1), MAX_CALLS)
        self.bursts = max(2, min(settings.timings, int(settings.visit_ms * 1e6 / (self.burst * call_ns))))

    def _warm_up(self, settings):
        """Call until warm; returns the typical duration of a call in nanoseconds."""
        durations, spent = [], 0
        while len(durations) < settings.warmup_calls or spent < settings.warmup_ms * 1e6:
            durations.append(self.elapsed_ns(1))
            spent += durations[-1]
            if len(durations) >= MAX_CALLS:
                break
        return median(durations[len(durations) // 2 :])

    def _timed(self, calls):
        """Duration of so many calls in nanoseconds."""
        run, clock = self.run, self.clock
        begin = clock()
        for _ in itertools.repeat(None, calls):
            run()
        return clock() - begin

    def visit(self):
        """Time one series of bursts.

        The first finds in the caches what other items left there: so does a user's program that does other work
        between inferences, and the median of the series leaves it its weight.
        """
        elapsed_ns, calls, spent = self.elapsed_ns, self.burst, self.spent
        if spent is None:
            self.timings.append([elapsed_ns(calls) / calls / 1e6 for _ in range(self.bursts)])
            return
        timings, cpu, switches, before = [], [], [], spent()
        for _ in range(self.bursts):
            timings.append(elapsed_ns(calls) / calls / 1e6)
            after = spent()
            cpu.append((after[0] - before[0]) / calls / 1e6)
            switches.append(after[1] - before[1])
            before = after
        self.timings.append(timings)
        self.cpu.append(cpu)
        self.switches.append(switches)

    def error(self, used):
        """Relative standard error over the used rounds."""
        return relative_error([median(self.timings[i]) for i in used])


class Rounds:
    """One measurement of a chunk: warms up, goes round until it is sure enough, and keeps every timing.

    Args:
        sessions: by item id, each with a ``run()`` method; all stay open, and all are visited in every round.
        sentinel: the session that shows drift.
        settings: ``Settings``.
        clock: nanoseconds; a ``SimulatedTime`` knows no resolution.
        report: called with the progress after every visit; may raise to end the measurement.
        visiting: called with an item's id before each of its visits, or with None for the sentinel.
        spent: what this process has spent so far, see ``effort``; None where that is not known.
    """

    def __init__(self, sessions, sentinel, settings, clock=clock_ns, report=None, visiting=None, spent=None):
        self.settings = settings
        self.spent = spent
        self.clock = clock
        self.report = report or (lambda progress: None)
        self.visiting = visiting or (lambda item: None)
        self.errors = {}
        self.series = {}
        self.visits = []  # of the sentinel: [round][visit][burst]
        self.settled = 0
        self._warm_up_all(sessions, sentinel)

    def _warm_up_all(self, sessions, sentinel):
        share_ms = self.settings.cap_s * 1e3 / ROUNDS_AT_LEAST / max(len(sessions), 1)
        settings = self.settings._replace(visit_ms=min(self.settings.visit_ms, share_ms))
        resolution = 1 if isinstance(self.clock, SimulatedTime) else timer_resolution_ns(self.clock)
        self.visiting(None)
        self.sentinel = Series(sentinel, settings, self.clock, resolution)
        for done, (item, session) in enumerate(sorted(sessions.items())):
            self.report({"phase": "warm-up", "items": len(sessions), "done": done})
            self.visiting(item)
            try:
                self.series[item] = Series(session, settings, self.clock, resolution, self.spent)
            except Exception as error:
                self.errors[item] = item_failure(error)

    def measure(self):
        """All rounds. Returns why they ended: ``settled``, ``cap`` or ``rounds``."""
        shuffle = random.Random(self.settings.seed).shuffle  # noqa: S311
        start = self.clock()
        gc.collect()
        gc.disable()
        try:
            while True:
                order = sorted(self.series)
                shuffle(order)
                self._round(order)
                reason = self._reason_to_stop((self.clock() - start) / 1e9)
                if reason:
                    return reason
        finally:
            gc.enable()

    def _round(self, order):
        middle = len(order) // 2
        self._visit_sentinel()
        self._visit(order[:middle])
        self._visit_sentinel()
        self._visit(order[middle:])
        self._visit_sentinel()
        self.visits.append(self.sentinel.timings[-3:])

    def _visit_sentinel(self):
        self.visiting(None)
        self.sentinel.visit()

    def _visit(self, items):
        for item in items:
            self.visiting(item)
            try:
                self.series[item].visit()
            except Exception as error:
                self.errors[item] = item_failure(error)
                del self.series[item]
            self.report(self._progress())

    def _progress(self):
        return {
            "phase": "rounds",
            "items": len(self.series),
            "settled": self.settled,
            "round": len(self.visits),
            "rounds_min": self.settings.rounds_min,
        }

    def _reason_to_stop(self, elapsed_s):
        rounds, settings = len(self.visits), self.settings
        slow = set(slow_rounds(sentinel_levels(self.visits), settings.drift))
        clean = [i for i in range(rounds) if i not in slow]
        self.settled = sum(series.error(clean) < settings.se for series in self.series.values())
        over = elapsed_s * (rounds + 1) / rounds > settings.cap_s
        disturbed = rounds - 1 in slow  # it may go away
        if (elapsed_s < settings.min_s or disturbed) and not over:
            return None
        if len(clean) >= settings.rounds_min and self.settled == len(self.series):
            return "settled"
        if rounds >= settings.rounds_max:
            return "rounds"
        return "cap" if over and rounds >= ROUNDS_AT_LEAST else None


def item_failure(error):
    """``failure`` of an item; raises the error again where it is the device that is lost."""
    if isinstance(error, DeviceLost):
        raise error
    return failure(error)


def failure(error):
    """A failed item as a record: a crash of one model is a result, not a crash."""
    reason = "out-of-memory" if isinstance(error, MemoryError) else getattr(error, "reason", "failed")
    return {"reason": reason, "message": " ".join(str(error).split())[:500] or type(error).__name__}
