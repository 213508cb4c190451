"""What executes models on a device. A runtime opens model files as sessions that can be called again and again."""

import importlib

__all__ = ["RuntimeRefused", "open_runtime"]

MODULES = {
    "onnxruntime": "device_agents.runtimes.onnxruntime",
    "simulated": "device_agents.runtimes.simulated",
}


class RuntimeRefused(Exception):
    """A runtime cannot do what is asked here; ``reason`` is what the server is told."""

    def __init__(self, message, reason="unsupported"):
        super().__init__(message)
        self.reason = reason


def open_runtime(asked, seed):
    """The runtime that a job asks for: ``{"runtime", "provider", "precision", "batch", "threads", "simulation"}``.

    A runtime has ``condition`` (what it really is, stored with every row), ``real`` (whether it times this machine),
    ``facts`` and ``load(item, fetch) -> session`` with ``session.run()``; ``fetch()`` gives the item's model. A session
    that cannot be timed from outside has ``elapsed_ns(calls)``.

    Raises:
        RuntimeRefused: it is unknown or not installed, or cannot be had in the way that is asked.
    """
    name = asked["runtime"]
    if name not in MODULES:
        raise RuntimeRefused("unknown runtime {!r}; this agent has {}".format(name, ", ".join(sorted(MODULES))))
    return importlib.import_module(MODULES[name]).open_runtime(asked, seed)
