"""What a device is and how it is doing: read from small system files where readable, left out where not.

No process is started for it: a tool of the vendor's that hangs would cost the measurement.
"""

import glob
import os
import platform
import re

ROOT = ""  # what all system files lie under; tests have one of their own
CPU = "/sys/devices/system/cpu"
CPUFREQ = CPU + "/cpu{}/cpufreq/{}"
GPU_HZ = ("/sys/devices/gpu.0/devfreq/*/cur_freq", "/sys/class/devfreq/*gpu*/cur_freq")
EMC_HZ = ("/sys/kernel/debug/bpmp/debug/clk/emc/rate", "/sys/kernel/debug/clk/emc/clk_rate")  # the memory controller


def read(path):
    """First line of a small system file, or None."""
    try:
        with open(ROOT + path, errors="replace") as file:
            return file.readline().strip("\x00\n ") or None
    except (OSError, ValueError):
        return None


def read_lines(path):
    """All lines of a small system file; none where it cannot be read."""
    try:
        with open(ROOT + path, errors="replace") as file:
            return file.read().splitlines()
    except (OSError, ValueError):
        return []


def read_numbers(*patterns):
    """The whole numbers in the first lines of all files that match."""
    paths = [path[len(ROOT) :] for pattern in patterns for path in sorted(glob.glob(ROOT + pattern))]
    texts = [read(path) for path in paths]
    return [int(text) for text in texts if text and re.match(r"-?[0-9]+$", text)]


def known(facts):
    """Those of the facts that could be read."""
    return {key: value for key, value in facts.items() if value is not None}


def device_facts():
    """Facts that do not change while a chunk is measured."""
    return known(
        {
            "hostname": platform.node(),
            "model": read("/proc/device-tree/model") or read("/sys/class/dmi/id/product_name"),
            "soc": soc(),
            "cpu": cpu_model(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "cores_allowed": ALLOWED,
            "cpu_quota_cores": cpu_quota(),
            "cpu_mhz_min": mhz(min, *cpufreq("scaling_min_freq")),
            "cpu_mhz_max": mhz(max, *cpufreq("scaling_max_freq")),
            "turbo": turbo(),
            "governor": governor(),
            "nvpmodel": nvpmodel(),
            "memory_mb": memory_mb(),
            "os": platform.platform(),
            "os_release": os_release(),
            "python": platform.python_version(),
        }
    )


def device_state():
    """What changes from minute to minute: degrees Celsius, clocks in MHz, the processes that want to run."""
    return known(
        {
            "temperature_c": temperature(),
            "cpu_mhz": mhz(max, *cpufreq("scaling_cur_freq")),
            "gpu_mhz": mhz(max, *GPU_HZ, per_mhz=1000000),
            "emc_mhz": mhz(max, *EMC_HZ, per_mhz=1000000),
            "load": load(),
        }
    )


def power_mode():
    """What decides how fast this process runs: the ``nvpmodel`` mode of a Jetson, else the governor of its cores."""
    mode = nvpmodel()
    return "nvpmodel " + mode if mode else governor() or "unknown"


def nvpmodel():
    """Name of a Jetson's power mode, or its number where it has none."""
    found = re.search(r"pmode:0*([0-9]+)", read("/var/lib/nvpmodel/status") or "")
    if not found:
        return None
    named = re.compile(r"<\s*POWER_MODEL\s+ID={}\s+NAME=(\S+)".format(found.group(1)))
    names = [match.group(1) for match in map(named.match, read_lines("/etc/nvpmodel.conf")) if match]
    return names[0] if names else found.group(1)


def governor():
    """How the clocks of this process's cores are governed; phones may govern kinds of cores differently."""
    names = {read(CPUFREQ.format(core, "scaling_governor")) for core in usable_cores() or [0]}
    return "+".join(sorted(name for name in names if name)) or None


def cpufreq(name):
    """The files of that name of all cores that this process may use."""
    return [CPUFREQ.format(core, name) for core in usable_cores() or [0]]


def mhz(pick, *patterns, per_mhz=1000):
    """One clock rate of many in MHz: the ``min`` or ``max`` of them; None where there is none."""
    rates = read_numbers(*patterns)
    return round(pick(rates) / per_mhz, 1) if rates else None


def turbo():
    """Whether the processor may exceed its nominal clock rate."""
    off, boost = read(CPU + "/intel_pstate/no_turbo"), read(CPU + "/cpufreq/boost")
    if off is not None:
        return off == "0"
    return None if boost is None else boost == "1"


def soc():
    """The chip: as its driver names it, or from the device tree."""
    compatible = read("/proc/device-tree/compatible")
    return read("/sys/devices/soc0/machine") or (compatible and ", ".join(compatible.split("\x00")))


def cpu_model():
    """The processor's name for people."""
    lines = dict(line.split(":", 1) for line in read_lines("/proc/cpuinfo") if ":" in line)
    names = {key.strip(): value.strip() for key, value in lines.items()}
    return names.get("model name") or names.get("Hardware") or platform.processor() or None


def cpu_quota():
    """How many cores' time a container may use, by version 2 or 1 of control groups; None for no limit."""
    quota = (read("/sys/fs/cgroup/cpu.max") or "").split()
    if not quota:
        quota = [read("/sys/fs/cgroup/cpu/cpu.cfs_{}_us".format(part)) or "" for part in ("quota", "period")]
    return round(int(quota[0]) / int(quota[1]), 3) if all(part.isdigit() for part in quota) else None


def memory_mb():
    """The memory of the whole device in MB (1e6 bytes)."""
    found = re.match(r"MemTotal:\s+([0-9]+) kB", read("/proc/meminfo") or "")
    return round(int(found.group(1)) * 1024 / 1e6) if found else None


def memory_limit():
    """Bytes of memory that this process's container, else the device, has; None where the system does not say."""
    container = read_numbers("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    device = [1000000 * memory_mb()] if memory_mb() else []
    return min(container + device, default=None)


def load():
    """Processes that wanted to run, averaged over the last minute."""
    found = re.match(r"[0-9.]+", read("/proc/loadavg") or "")
    return float(found.group(0)) if found else None


def core_ticks():
    """What the machine's cores have done since its start, by the kind of work, in ticks of the kernel's clock: all,
    idle, and stolen by other guests of the host; None where the system does not say."""
    words = (read("/proc/stat") or "").split()
    if len(words) < 9 or words[0] != "cpu" or not all(word.isdigit() for word in words[1:9]):
        return None
    user, nice, system, idle, waiting, irq, softirq, steal = map(int, words[1:9])
    return user + nice + system + idle + waiting + irq + softirq + steal, idle + waiting, steal


def shares(before, after):
    """Between two ``core_ticks``: how busy all cores were, and how much of their time other guests of the host took."""
    total = after[0] - before[0] if after else 0
    if total <= 0:
        return {}
    busy = 1 - (after[1] - before[1]) / total
    return {"cores_busy_pct": round(100 * busy, 1), "steal_pct": round(100 * (after[2] - before[2]) / total, 1)}


def os_release():
    """The operating system's name for people."""
    lines = [line for line in read_lines("/etc/os-release") if line.startswith("PRETTY_NAME=")]
    return lines[0].split("=", 1)[1].strip("\"'") or None if lines else None


def temperature():
    """The hottest thermal zone in degrees Celsius, or None."""
    readings = read_numbers("/sys/class/thermal/thermal_zone*/temp")
    return max(readings) / 1000.0 if readings else None


def usable_cores():
    """The cores this process may use now, or None where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


ALLOWED = usable_cores()  # before anything is pinned


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
