"""Measuring one chunk: models in, one result out, no network: what could as well happen in a process of its own."""

import time

from device_agents.facts import device_facts, device_state
from device_agents.lock import measuring_lock
from device_agents.priority import high_priority
from device_agents.protocol import Rounds, Settings, failure
from device_agents.runtimes import RuntimeRefused, open_runtime


def measure_chunk(run, models, report, lock_path=None):
    """Measure the items of a run together.

    Args:
        run: what the server handed out: ``items``, ``sentinels``, ``runtime`` and ``settings``.
        models: function from a model's sha256 to its bytes.
        report: called with the progress, often; may raise to end the measurement.
        lock_path: the file to hold locked while a real runtime times this machine.

    Returns:
        The result as the server expects it, with every timing; an item that failed has ``error`` instead.

    Raises:
        RuntimeRefused: this agent cannot measure such a chunk at all.
    """
    began, before = utc_now(), device_state()
    with high_priority() as nice:  # from the beginning: the runtime's threads inherit it
        runtime, rounds, blob, errors, stopped = _measure(run, models, report, lock_path)
    return {
        "condition": runtime.condition,
        "facts": dict(device_facts(), nice=nice, **dict(runtime.facts, **start_and_end(before, device_state()))),
        "settings": run["settings"],
        "started_at": began,
        "finished_at": utc_now(),
        "stopped": stopped,
        "sentinel": {"blob": blob, "burst": rounds.sentinel.burst, "visits": rounds.visits},
        "items": [item_result(item["item"], rounds, errors) for item in run["items"]],
    }


def _measure(run, models, report, lock_path):
    settings = Settings(**run["settings"])
    runtime = open_runtime(run["runtime"], settings.seed)
    sessions, errors = load_sessions(runtime, run["items"], models, report)
    blob, sentinel = first_that_runs(runtime, run["sentinels"], models)
    with measuring_lock(lock_path if runtime.real else None, lambda: report({"phase": "waiting"})):
        rounds = Rounds(sessions, sentinel, settings, report=report)
        stopped = rounds.measure()
    errors.update(rounds.errors)
    return runtime, rounds, blob, errors, stopped


def load_sessions(runtime, items, models, report):
    """Open every item's model: sessions and errors by item id."""
    sessions, errors = {}, {}
    for done, item in enumerate(items):
        report({"phase": "loading", "items": len(items), "done": done})
        model = models(item["blob"])
        try:
            sessions[item["item"]] = runtime.load(item, lambda model=model: model)
        except Exception as error:
            errors[item["item"]] = failure(error)
    return sessions, errors


def first_that_runs(runtime, blobs, models):
    """The first model that this runtime can run, as sha256 and session."""
    problem = "none was given"
    for blob in blobs:
        model = models(blob)
        try:
            session = runtime.load({"item": "sentinel", "blob": blob}, lambda model=model: model)
            session.run()
            return blob, session
        except Exception as error:
            problem = error
    raise RuntimeRefused("none of {} sentinels can be run: {}".format(len(blobs), problem), "unsupported")


def item_result(item, rounds, errors):
    """An item's burst size and timings, or its error."""
    if item in errors:
        return {"item": item, "error": errors[item]}
    series = rounds.series[item]
    return {"item": item, "burst": series.burst, "timings": series.timings}


def start_and_end(before, after):
    """Every reading as it was when the run began and when its rounds ended."""
    return {key: [value, after.get(key)] for key, value in before.items()}


def utc_now():
    """The time as ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
