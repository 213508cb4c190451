"""What a device is and how it is doing: read where readable, left out where not."""

import glob
import os
import platform

CPUFREQ = "/sys/devices/system/cpu/cpu{}/cpufreq/{}"


def read(path):
    """First line of a small system file, or None."""
    try:
        with open(path, errors="replace") as file:
            return file.readline().strip("\x00\n ") or None
    except (OSError, ValueError):
        return None


def device_facts():
    """Facts that do not change while the agent runs."""
    facts = {
        "hostname": platform.node(),
        "model": read("/proc/device-tree/model") or read("/sys/class/dmi/id/product_name"),
        "cpu": cpu_model(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cores_allowed": ALLOWED,
        "governor": read(CPUFREQ.format(ALLOWED[0] if ALLOWED else 0, "scaling_governor")),
        "os": platform.platform(),
        "python": platform.python_version(),
    }
    return {key: value for key, value in facts.items() if value is not None}


def cpu_model():
    """The processor's name for people."""
    try:
        with open("/proc/cpuinfo", errors="replace") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return platform.processor() or None
    names = {key.strip(): value.strip() for key, value in lines.items()}
    return names.get("model name") or names.get("Hardware") or platform.processor() or None


def temperature():
    """The hottest thermal zone in degrees Celsius, or None."""
    readings = [read(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    degrees = [int(text) / 1000.0 for text in readings if text and text.lstrip("-").isdigit()]
    return max(degrees) if degrees else None


def allowed_cores():
    """The cores this process may use, or None where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


ALLOWED = allowed_cores()  # before anything is pinned


def pin_to_cores(count):
    """Keep this process on ``count`` of its cores, and return them; None where the system cannot.

    The fastest are taken (phones mix kinds of cores), and the last of these: the first one serves most interrupts.
    """
    if ALLOWED is None:
        return None
    speed = {core: int(read(CPUFREQ.format(core, "cpuinfo_max_freq")) or 0) for core in ALLOWED}
    chosen = sorted(sorted(ALLOWED, key=lambda core: (speed[core], core))[-count:])
    os.sched_setaffinity(0, chosen)
    return chosen
