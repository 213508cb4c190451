"""What executes models on a device: one file a runtime, each opening models as sessions that are called repeatedly."""

import importlib
import os

__all__ = ["DeviceLost", "RuntimeRefused", "open_runtime"]

MODULES = {
    name: "device_agents.runtimes." + name
    for name in ("onnxruntime", "openvino", "simulated", "tensorrt", "torch", "trtexec")
}
ON_A_PHONE = "adb-onnxruntime"
MODULES[ON_A_PHONE] = "device_agents.runtimes.adb"
PHONE = "OFA_ADB_SERIAL"  # in the environment of an agent that drives a phone, and of its workers


class RuntimeRefused(Exception):
    """A runtime cannot do what is asked here; ``reason`` is what the server is told."""

    def __init__(self, message, reason="unsupported-op"):
        super().__init__(message)
        self.reason = reason


class DeviceLost(RuntimeRefused):
    """The device itself is away: that is no failure of the model which it was at, and the chunk is worth a retry."""

    def __init__(self, message):
        super().__init__(message, "failed")


def open_runtime(asked, seed):
    """The runtime that a job asks for: ``{"runtime", "provider", "precision", "batch", "threads", "simulation"}``.

    A runtime has ``condition`` (what it really is, stored with every row), ``real`` (whether it times this machine),
    ``facts`` and ``load(item, fetch) -> session``; ``fetch()`` gives the bytes of the item's ONNX file.
    One that drives another device from here has that as ``device``, with what ``chunk.ThisMachine`` has.
    A session has ``run()``, one inference, and may have

    * ``elapsed_ns(calls)``, where the clock outside cannot tell how long so many inferences take;
    * ``outputs()``, what the model answers to the session's inputs: by equal seeds all runtimes have equal inputs;
    * ``details``, what it tells of the model beside its latency, as JSON; it goes into the item's record;
    * ``close()``, where it holds more than memory.

    Raises:
        RuntimeRefused: it is unknown or not installed, or cannot be had in the way that is asked.
    """
    name = asked["runtime"]
    if name not in MODULES:
        raise RuntimeRefused("unknown runtime {!r}; this agent has {}".format(name, ", ".join(sorted(MODULES))))
    if os.environ.get(PHONE) and name not in (ON_A_PHONE, "simulated"):
        raise RuntimeRefused("this agent drives the phone {}, it has no {}".format(os.environ[PHONE], name))
    return importlib.import_module(MODULES[name]).open_runtime(asked, seed)
