"""How a device is powered, clocked and cooled, and what it draws: read where the system says so, left out where not.

Sources of the paths: Linux's documentation of powercap, power_supply, hwmon and thermal_throttle; NVIDIA's Jetson Linux
Developer Guide, power management, for INA3221 rails, EMC and over-current events.
"""

import glob
import os
import re
import time

from device_agents import facts
from device_agents.facts import CPU, cpufreq, known, nvpmodel, read, read_numbers

THROTTLES = (
    CPU + "/cpu*/thermal_throttle/*_throttle_count",  # Intel
    "/sys/class/hwmon/hwmon*/oc*_event_cnt",  # Jetson Orin: over-current
)
GPU_BOUNDS = ("/sys/devices/gpu.0/devfreq/*/{}_freq", "/sys/class/devfreq/*gpu*/{}_freq")
EMC_LOCKED = ("/sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked", "/sys/kernel/debug/clk/override.emc/clk_state")
PI_THROTTLED = "/sys/devices/platform/soc/soc:firmware/get_throttled"
RAPL = "/sys/class/powercap/intel-rapl:*/energy_uj"
INA3221 = ("/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*", "/sys/bus/i2c/drivers/ina3221*/*/iio:device*")
WHOLE = re.compile(r"_IN$")  # the rail that feeds all others: VDD_IN, POM_5V_IN
SAMPLE_S = 1.0


def power_state():
    """What a chunk is watched for: clocks that are held, battery, and how often the device has slowed itself down."""
    counts = read_numbers(*THROTTLES)
    return known(
        dict(
            battery(),
            jetson_clocks=jetson_clocks(),
            throttles=sum(counts) if counts else None,
            pi_throttled=read(PI_THROTTLED),  # the firmware's bits
        )
    )


def battery():
    """Charge in percent, whether it is being charged, and degrees Celsius of the first battery."""
    for folder in _folders("/sys/class/power_supply/*"):
        if read(folder + "/type") == "Battery":
            level, tenths = read_numbers(folder + "/capacity"), read_numbers(folder + "/temp")
            return known(
                {
                    "battery_pct": level[0] if level else None,
                    "battery_status": read(folder + "/status"),
                    "battery_c": tenths[0] / 10 if tenths else None,
                }
            )
    return {}


def jetson_clocks():
    """Whether a Jetson's clocks are held at their highest, as ``jetson_clocks`` does; None for other devices."""
    if nvpmodel() is None:
        return None
    low, high = (read_numbers(*cpufreq("scaling_{}_freq".format(end))) for end in ("min", "max"))
    low_gpu, high_gpu = (read_numbers(*[path.format(end) for path in GPU_BOUNDS]) for end in ("min", "max"))
    held = low + low_gpu == high + high_gpu
    return held and bool(low) and 0 not in read_numbers(*EMC_LOCKED)


def _folders(*patterns):
    """All folders that match, without the root."""
    return [path[len(facts.ROOT) :] for pattern in patterns for path in sorted(glob.glob(facts.ROOT + pattern))]


class PowerMeter:
    """The mean power of a device over a stretch of time, from its own counters: RAPL's, or an INA3221's.

    It is of everything that the device did, and of a whole chunk. What one inference takes cannot be told from it: a
    visit is shorter than what RAPL's steps of a millisecond or an INA3221's averages resolve, and items take turns.
    """

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._zones = [os.path.dirname(path) for path in _folders(RAPL)]
        self._began = self._sampled = clock()
        self._counters = {zone: read_numbers(zone + "/energy_uj") for zone in self._zones}
        self._joules = 0.0
        self._watts = []
        self._sample_rails()

    def sample(self):
        """Look at the counters, once a second at most: often enough to see each of them wrap around."""
        if self._clock() - self._sampled >= SAMPLE_S:
            self._sample()

    def _sample(self):
        self._sampled = self._clock()
        for zone, before in self._counters.items():
            now = read_numbers(zone + "/energy_uj")
            if before and now:
                self._joules += _risen(before[0], now[0], read_numbers(zone + "/max_energy_range_uj")) / 1e6
            self._counters[zone] = now
        self._sample_rails()

    def _sample_rails(self):
        watts = board_watts()
        if watts is not None:
            self._watts.append(watts)

    def facts(self):
        """``power_w``, the mean since the beginning, and ``power_source``; empty where nothing can be read."""
        self._sample()
        if self._watts:
            return {"power_w": round(sum(self._watts) / len(self._watts), 3), "power_source": "INA3221"}
        spent = self._sampled - self._began
        if self._joules <= 0 or spent <= 0:  # counters that only root may read
            return {}
        return {"power_w": round(self._joules / spent, 3), "power_source": "RAPL"}


def _risen(before, now, ranges):
    """By how much a counter has risen, that begins anew at the end of its range."""
    return now - before if now >= before else now - before + (ranges[0] if ranges else 0)


def board_watts():
    """What a Jetson's power monitors say now, of the rail that feeds the board, else of all; None without monitors."""
    rails = {}
    for folder in _folders(*INA3221):
        for channel in range(4):
            name = read("{}/in{}_label".format(folder, channel)) or read("{}/rail_name_{}".format(folder, channel))
            milliwatts = _milliwatts(folder, channel)
            if name and milliwatts is not None:
                rails[name] = milliwatts / 1000
    whole = [watts for name, watts in rails.items() if WHOLE.search(name)]
    return sum(whole or rails.values()) if rails else None


def _milliwatts(folder, channel):
    iio = read_numbers("{}/in_power{}_input".format(folder, channel))
    if iio:
        return iio[0]
    parts = read_numbers("{}/in{}_input".format(folder, channel), "{}/curr{}_input".format(folder, channel))
    return parts[0] * parts[1] / 1000 if len(parts) == 2 else None  # mV and mA
