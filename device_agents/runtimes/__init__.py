"""What executes models on a device: one file a runtime, each opening models as sessions that are called repeatedly."""

import importlib

__all__ = ["RuntimeRefused", "open_runtime"]

MODULES = {
    name: "device_agents.runtimes." + name
    for name in ("onnxruntime", "openvino", "simulated", "tensorrt", "torch", "trtexec")
}


class RuntimeRefused(Exception):
    """A runtime cannot do what is asked here; ``reason`` is what the server is told."""

    def __init__(self, message, reason="unsupported-op"):
        super().__init__(message)
        self.reason = reason


def open_runtime(asked, seed):
    """The runtime that a job asks for: ``{"runtime", "provider", "precision", "batch", "threads", "simulation"}``.

    A runtime has ``condition`` (what it really is, stored with every row), ``real`` (whether it times this machine),
    ``facts`` and ``load(item, fetch) -> session``; ``fetch()`` gives the bytes of the item's ONNX file.
    A session has ``run()``, one inference, and may have

    * ``elapsed_ns(calls)``, where the clock outside cannot tell how long so many inferences take;
    * ``outputs()``, what the model answers to the session's inputs: by equal seeds all runtimes have equal inputs;
    * ``close()``, where it holds more than memory.

    Raises:
        RuntimeRefused: it is unknown or not installed, or cannot be had in the way that is asked.
    """
    name = asked["runtime"]
    if name not in MODULES:
        raise RuntimeRefused("unknown runtime {!r}; this agent has {}".format(name, ", ".join(sorted(MODULES))))
    return importlib.import_module(MODULES[name]).open_runtime(asked, seed)
