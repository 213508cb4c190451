"""Measuring one chunk: models in, one result out. No network, no state: this is what a worker process does."""

import contextlib
import time

from device_agents import effort
from device_agents.facts import core_ticks, device_facts, device_state, power_mode, shares
from device_agents.lock import measuring_lock
from device_agents.power import PowerMeter, power_state
from device_agents.priority import high_priority
from device_agents.protocol import Rounds, Settings, SimulatedTime, clock_ns, item_failure
from device_agents.runtimes import DeviceLost, RuntimeRefused, open_runtime


def measure_chunk(run, models, report, lock_path=None, at=lambda place: None):
    """Measure the items of a run together.

    Args:
        run: what the server handed out: ``items``, ``sentinels``, ``runtime`` and ``settings``.
        models: function from a model's sha256 to its bytes.
        report: called with the progress, often; may raise to end the measurement.
        lock_path: the file to hold locked while a real runtime times this machine.
        at: called with the place in items + sentinels of what is worked on from now on, -1 for none.

    Returns:
        The result as the server expects it, with every timing; an item that failed has ``error`` instead.

    Raises:
        RuntimeRefused: this agent cannot measure such a chunk at all, or the device's power mode changed meanwhile.
    """
    began = utc_now()
    with high_priority() as nice:  # from the beginning: the runtime's threads inherit it
        runtime, watched, rounds, blob, errors, details, stopped = _measure(run, models, report, lock_path, at)
    machine = dict(watched, nice=nice) if runtime.real else {}
    return {
        "condition": runtime.condition,
        "facts": dict(machine, **runtime.facts),  # of a simulation this machine says nothing
        "settings": run["settings"],
        "started_at": began,
        "finished_at": utc_now(),
        "stopped": stopped,
        "sentinel": {"blob": blob, "burst": rounds.sentinel.burst, "visits": rounds.visits},
        "items": [item_result(item["item"], rounds, errors, details) for item in run["items"]],
    }


def _measure(run, models, report, lock_path, at):
    settings = Settings(**run["settings"])
    runtime = open_runtime(run["runtime"], settings.seed)
    places = {item["item"]: place for place, item in enumerate(run["items"])}
    sessions, errors = load_sessions(runtime, run["items"], models, report, at)
    place, sentinel = first_that_runs(runtime, run["sentinels"], models, lambda i: at(len(places) + i))
    places[None] = len(places) + place

    def waiting():
        at(-1)
        report({"phase": "waiting"})

    with measuring_lock(lock_path if runtime.real else None, waiting):
        watch = Watch(runtime)
        clock = chunk_clock(runtime, [*sessions.values(), sentinel])
        spent = effort.spent if runtime.real and effort.known() else None
        visiting = lambda item: at(places[item])  # noqa: E731
        rounds = Rounds(sessions, sentinel, settings, clock, watch.sampling(report), visiting, spent)
        stopped = rounds.measure()
        watched = watch.end()
    at(-1)
    for session in [*sessions.values(), sentinel]:
        close(session)
    errors.update(rounds.errors)
    details = {item: session.details for item, session in sessions.items() if getattr(session, "details", None)}
    return runtime, watched, rounds, run["sentinels"][place]["blob"], errors, details, stopped


class ThisMachine:
    """What there is to know of the device that is timed, where it is this one."""

    facts = staticmethod(device_facts)
    power_mode = staticmethod(power_mode)
    meter = PowerMeter

    @staticmethod
    def state():
        """What may change while a chunk is measured."""
        return dict(device_state(), **power_state())


class Watch:
    """The device while it measures: read when the rounds begin, in between, and when they end."""

    def __init__(self, runtime):
        self._runtime = runtime
        self._device = getattr(runtime, "device", ThisMachine)
        self._before = self._device.state() if runtime.real else {}
        self._ticks = core_ticks() if self._device is ThisMachine else None
        self._meter = self._device.meter() if runtime.real else None

    def sampling(self, report):
        """``report`` that also looks at the power meter, between two visits."""

        def both(progress):
            if self._meter:
                self._meter.sample()
            report(progress)

        return both

    def end(self):
        """Facts of the device, with readings at both ends and the mean power between them.

        Raises:
            RuntimeRefused: its power mode is another one now: nobody knows which timings are of which.
        """
        if not self._runtime.real:
            return {}
        mode, now = self._runtime.condition["power_mode"], self._device.power_mode()
        if mode != now:
            raise RuntimeRefused("the power mode changed from {} to {} meanwhile".format(mode, now), "failed")
        readings = start_and_end(self._before, self._device.state())
        if self._ticks:
            readings.update(shares(self._ticks, core_ticks()))
        return dict(self._device.facts(), **readings, **self._meter.facts())


def load_sessions(runtime, items, models, report, at):
    """Open every item's model: sessions and errors by item id."""
    sessions, errors = {}, {}
    for done, item in enumerate(items):
        report({"phase": "loading", "items": len(items), "done": done})
        at(done)
        try:
            sessions[item["item"]] = load(runtime, item, models)
        except Exception as error:
            errors[item["item"]] = item_failure(error)
    return sessions, errors


def first_that_runs(runtime, sentinels, models, at):
    """The first sentinel that this runtime can run, as its place and session."""
    problem = "none was given"
    for place, sentinel in enumerate(sentinels):
        at(place)
        try:
            session = load(runtime, sentinel, models)
            run_once(session)
            return place, session
        except DeviceLost:
            raise
        except Exception as error:
            problem = error
    raise RuntimeRefused("none of {} sentinels can be run: {}".format(len(sentinels), problem))


def load(runtime, item, models):
    """Open one item as a session."""
    return runtime.load(item, lambda: models(item["blob"]))


def run_once(session):
    """One inference, not timed."""
    if hasattr(session, "run"):
        session.run()
    else:
        session.elapsed_ns(1)


def close(session):
    """End a session that wants to be ended; the timings are safe, whatever it says."""
    with contextlib.suppress(Exception):
        getattr(session, "close", lambda: None)()


def chunk_clock(runtime, sessions):
    """This machine's clock; for a simulated device, one that moves as its sessions say."""
    if runtime.real or not all(hasattr(session, "elapsed_ns") for session in sessions):
        return clock_ns
    clock = SimulatedTime()
    for session in sessions:
        clock.watch(session)
    return clock


def item_result(item, rounds, errors, details):
    """An item's burst size and timings, with what its runtime tells of it; or its error."""
    if item in errors:
        return {"item": item, "error": errors[item]}
    series = rounds.series[item]
    found = {"item": item, "burst": series.burst, "timings": series.timings}
    if series.cpu:
        found.update(cpu=series.cpu, switches=series.switches)
    return dict(found, details=details[item]) if item in details else found


def start_and_end(before, after):
    """Every reading as it was when the run began and when its rounds ended."""
    return {key: [value, after.get(key)] for key, value in before.items()}


def utc_now():
    """The time as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
