"""What executes models on a device. A runtime opens model files as sessions that can be called again and again."""

import importlib

__all__ = ["RuntimeRefused", "open_runtime"]

MODULES = {
    "onnxruntime": "device_agents.runtimes.onnxruntime",
    "simulated": "device_agents.runtimes.simulated",
}


class RuntimeRefused(Exception):
    """A runtime cannot do what is asked here; ``reason`` is what the server is told."""

    def __init__(self, message, reason="unsupported-op"):
        super().__init__(message)
        self.reason = reason


def open_runtime(asked, seed):
    """The runtime that a job asks for: ``{"runtime", "provider", "precision", "batch", "threads", "simulation"}``.

    A runtime has ``condition`` (what it really is, stored with every row), ``real`` (whether it times this machine),
    ``facts`` and ``load(item, fetch) -> session``: the item is one of the run's, ``fetch()`` gets its model's bytes.

    A session has ``run()``, one inference that is timed from outside; or else ``elapsed_ns(calls)``, which runs many
    and says how long they took: where a tool of the vendor's times itself, or the device is simulated. It may have
    ``close()``.

    Raises:
        RuntimeRefused: it is unknown or not installed, or cannot be had in the way that is asked.
    """
    name = asked["runtime"]
    if name not in MODULES:
        raise RuntimeRefused("unknown runtime {!r}; this agent has {}".format(name, ", ".join(sorted(MODULES))))
    return importlib.import_module(MODULES[name]).open_runtime(asked, seed)
