"""A simulated device: computes what a model would take from public figures of the hardware. It times nothing.

A block takes the larger of computing and moving data (roofline model of Williams, Waterman and Patterson, 2009), and
a launch for each of its kernels; an inference pays a call once. Depthwise convolutions reach less of the peak than
dense ones, and small kernels less than large ones. Inside a network, what a block leaves for the next stays in the
cache as far as it fits, so that a network takes less than its blocks one by one.

Equal figures, models and seeds give equal latencies, on every machine.
"""

import hashlib
import json
import math
import os
import random
import time

from device_agents.runtimes import RuntimeRefused

MODEL = "roofline-2"
VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


def open_runtime(asked, seed):
    """See ``runtimes.open_runtime``; ``asked["simulation"]`` are the device's figures, from its profile on the host."""
    figures = asked.get("simulation")
    if not figures:
        raise RuntimeRefused("a simulation needs the device's figures, and the job brings none", "malformed")
    if asked["precision"] not in figures["gflops"] or asked["precision"] not in VALUE_BYTES:
        raise RuntimeRefused("the simulated device has no figures for {}".format(asked["precision"]))
    return SimulatedRuntime(asked, figures, seed)


class SimulatedRuntime:
    """A device made of figures.

    Attributes:
        busy_s: for how long it has been computing, in its own time: it gets warm.
    """

    real = False

    def __init__(self, asked, figures, seed):
        self.figures = figures
        self.precision = asked["precision"]
        self.batch = asked["batch"]
        self.seed = seed
        self.busy_s = 0.0
        self.facts = {"simulated": True, "simulation": figures}
        digest = hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()
        self.condition = {
            "runtime": "simulated",
            "runtime_version": "{}-{}".format(MODEL, digest[:8]),  # other figures are another device
            "provider": asked["provider"],
            "precision": self.precision,
            "batch": self.batch,
            "threads": asked["threads"],
            "simulated": True,
            "power_mode": "simulated",
        }

    def load(self, item, fetch):
        """A session from the item's ``counts``, one of each block; the model itself is never fetched.

        Raises:
            RuntimeRefused: the item has no counts, or its fault is to fail.
            MemoryError: it does not fit into the device's memory, or its fault is not to fit.
        """
        counts = item.get("counts")
        if not counts:
            raise RuntimeRefused("{} comes without counts, which a simulation needs".format(item["key"]), "malformed")
        if needed_bytes(counts, self.batch, self.precision) > self.figures["memory_mb"] * 1e6:
            raise MemoryError("the simulated device has {:g} MB of memory".format(self.figures["memory_mb"]))
        for begin, fault in self.figures["faults"].items():
            if item["key"].startswith(begin):
                FAULTS[fault]()
        ideal = latency_s(counts, self.figures, self.batch, self.precision)
        return SimulatedSession(self, ideal, random.Random("{} {}".format(self.seed, item["key"])))  # noqa: S311

    def warmth(self):
        """By what factor the device is slower now than when it was cold."""
        return 1 + self.figures["drift"] * (1 - math.exp(-self.busy_s / self.figures["drift_s"]))


class SimulatedSession:
    """One model on the simulated device."""

    def __init__(self, runtime, ideal_s, noise):
        self._runtime = runtime
        self._ideal_s = ideal_s
        self._noise = noise

    def run(self):
        """One inference."""
        self.elapsed_ns(1)

    def elapsed_ns(self, calls):
        """How long so many inferences take in the device's own time; with ``real_time`` in everybody's."""
        figures = self._runtime.figures
        factor = max(self._noise.gauss(1, figures["noise"]), 0.5) * self._runtime.warmth()
        if self._noise.random() < figures["spikes"]:
            factor *= figures["spike"]
        seconds = calls * self._ideal_s * factor
        self._runtime.busy_s += seconds
        if figures["real_time"]:
            time.sleep(seconds)
        return round(seconds * 1e9)


def latency_s(counts, figures, batch, precision):
    """Seconds of one inference of a cold, undisturbed device.

    Args:
        counts: of every block in order: ``dense_macs``, ``depthwise_macs``, ``kernels``, and numbers of values:
            ``weights``, ``input`` and ``output``, and ``inside``, those that its kernels leave for each other.
    """
    size = VALUE_BYTES[precision]
    total = figures["call_us"] * 1e-6
    for place, block in enumerate(counts):
        memory = size * block["weights"] / _memory_rate(figures)
        memory += _cached_s(2 * size * batch * block["inside"], figures)  # written and read
        for edge, outermost in (("input", place == 0), ("output", place == len(counts) - 1)):
            moved = size * batch * block[edge]
            memory += moved / _memory_rate(figures) if outermost else _cached_s(moved, figures)
        launches = block["kernels"] * figures["launch_us"] * 1e-6
        total += launches + max(_compute_s(block, figures, batch, precision), memory)
    return total


def _compute_s(block, figures, batch, precision):
    macs_s = figures["gflops"][precision] * 1e9 / 2
    dense = batch * block["dense_macs"] + block["kernels"] * figures["ramp_macs"]
    return (dense / figures["dense_share"] + batch * block["depthwise_macs"] / figures["depthwise_share"]) / macs_s


def _memory_rate(figures):
    return figures["memory_gbs"] * figures["memory_share"] * 1e9


def _cached_s(moved, figures):
    """What fits into the cache stays there; the rest goes through memory."""
    kept = min(moved, figures["cache_kb"] * 1024)
    return kept / (figures["cache_gbs"] * 1e9) + (moved - kept) / _memory_rate(figures)


def needed_bytes(counts, batch, precision):
    """Memory for all weights and the block with most values."""
    values = max(block["input"] + block["inside"] + block["output"] for block in counts)
    return VALUE_BYTES[precision] * (sum(block["weights"] for block in counts) + batch * values)


def _fail():
    raise RuntimeRefused("this fault was asked for in the simulation's figures", "failed")


def _run_out_of_memory():
    raise MemoryError("this fault was asked for in the simulation's figures")


def _hang():
    while True:
        time.sleep(1)


FAULTS = {"failed": _fail, "out-of-memory": _run_out_of_memory, "hang": _hang, "crash": os.abort}
