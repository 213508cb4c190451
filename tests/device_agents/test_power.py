"""Battery, throttling and power, read from made-up system files; a chunk across a change of the power mode."""

import pytest

from device_agents import chunk, power
from device_agents.chunk import measure_chunk
from device_agents.protocol import Settings
from device_agents.runtimes import DeviceLost, RuntimeRefused

CORE = "sys/devices/system/cpu/cpu2/cpufreq/scaling_{}_freq"
ZONE = "sys/class/powercap/intel-rapl:{}/{}"
HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/"
IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
NANO = {
    "var/lib/nvpmodel/status": "pmode:0000\n",
    CORE.format("min"): "1479000\n",
    CORE.format("max"): "1479000\n",
    "sys/devices/gpu.0/devfreq/57000000.gpu/min_freq": "921600000\n",
    "sys/devices/gpu.0/devfreq/57000000.gpu/max_freq": "921600000\n",
}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_phone_on_a_charger(system):
    folder = "sys/class/power_supply/battery/"
    files = {"type": "Battery", "capacity": "84", "status": "Charging", "temp": "326"}
    system({"sys/class/power_supply/ac/type": "Mains\n", **{folder + name: text for name, text in files.items()}})
    assert power.power_state() == {"battery_pct": 84, "battery_status": "Charging", "battery_c": 32.6}


def test_jetson_clocks_hold_cpu_and_gpu(system):
    system(NANO)
    assert power.jetson_clocks() is True
    system({"sys/kernel/debug/clk/override.emc/clk_state": "0\n"})
    assert power.jetson_clocks() is False
    system({"sys/kernel/debug/clk/override.emc/clk_state": "1\n"})
    assert power.jetson_clocks() is True
    system({"sys/devices/gpu.0/devfreq/57000000.gpu/min_freq": "76800000\n"})
    assert power.power_state() == {"jetson_clocks": False}


def test_throttle_counters_are_added_up(system):
    system(
        {
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
            "sys/class/hwmon/hwmon2/oc1_event_cnt": "2\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        }
    )
    assert power.power_state() == {"throttles": 9, "pi_throttled": "50005"}


def test_rapl_counts_joules_and_wraps_around(system):
    system({ZONE.format(0, "energy_uj"): "9000000\n", ZONE.format(0, "max_energy_range_uj"): "10000000\n"})
    system({ZONE.format("0:0", "energy_uj"): "5\n"})  # a part of the first
    clock = Clock()
    meter = power.PowerMeter(clock)
    clock.now += 2
    system({ZONE.format(0, "energy_uj"): "4000000\n", ZONE.format("0:0", "energy_uj"): "5\n"})
    assert meter.facts() == {"power_w": 2.5, "power_source": "RAPL"}


def test_a_meter_looks_once_a_second(system, monkeypatch):
    clock, looks = Clock(), []
    meter = power.PowerMeter(clock)
    monkeypatch.setattr(power, "board_watts", lambda: looks.append(1))
    for _ in range(30):
        clock.now += 0.1
        meter.sample()
    assert len(looks) in (2, 3)


@pytest.mark.parametrize(
    ("files", "watts"),
    [
        ({HWMON + "in1_label": "VDD_IN", HWMON + "in1_input": "5000", HWMON + "curr1_input": "1200"}, 6.0),
        ({IIO + "rail_name_0": "POM_5V_IN", IIO + "in_power0_input": "2500"}, 2.5),
        ({}, None),
        ({HWMON + "in1_label": "VDD_IN", HWMON + "in1_input": "garbage", HWMON + "curr1_input": "1"}, None),
    ],
)
def test_the_rail_that_feeds_a_jetson(system, files, watts):
    parts = {HWMON + "in2_label": "VDD_SOC", HWMON + "in2_input": "5000", HWMON + "curr2_input": "100"}
    system({**files, **(parts if watts == 6.0 else {})})
    assert power.board_watts() == watts


def test_the_rails_of_a_board_without_a_common_one_are_added_up(system):
    for channel, name in ((1, "VDD_GPU_SOC"), (2, "VDD_CPU_CV")):
        files = {"in{}_label": name, "in{}_input": "5000", "curr{}_input": "1000"}
        system({HWMON + key.format(channel): value for key, value in files.items()})
    assert power.board_watts() == 10.0
    clock = Clock()
    meter = power.PowerMeter(clock)
    clock.now += 1
    assert meter.facts() == {"power_w": 10.0, "power_source": "INA3221"}


def test_a_machine_that_says_nothing(system):
    assert (power.power_state(), power.PowerMeter(Clock()).facts()) == ({}, {})


class Runtime:
    """Its sessions sleep not at all; what it is given to do happens at its first timed call."""

    real = True

    def __init__(self, happening=lambda: None):
        self.facts, self.happening, self.calls = {}, happening, 0
        self.condition = {"power_mode": "5W"}

    def load(self, item, fetch):
        return self

    def run(self):
        self.calls += 1
        if self.calls > 20:
            self.happening()


def measure(monkeypatch, runtime):
    monkeypatch.setattr(chunk, "open_runtime", lambda asked, seed: runtime)
    quick = {"rounds_min": 3, "rounds_max": 3, "min_s": 0, "warmup_ms": 0, "burst_ms": 0.001}
    items = [{"item": "a", "blob": "b", "key": "k"}]
    settings = Settings(**quick)._asdict()
    run = {"runtime": {"runtime": "made-up"}, "settings": settings, "items": items, "sentinels": items}
    return measure_chunk(run, models=None, report=lambda progress: None)


def test_a_chunk_across_a_change_of_the_power_mode_is_worth_nothing(monkeypatch):
    modes = {"now": "5W"}
    monkeypatch.setattr(chunk.ThisMachine, "power_mode", lambda: modes["now"])
    facts = measure(monkeypatch, Runtime())["facts"]
    assert len(facts["load"]) == 2, "before and after"
    with pytest.raises(RuntimeRefused, match="power mode changed from 5W to MAXN") as error:
        measure(monkeypatch, Runtime(lambda: modes.update(now="MAXN")))
    assert error.value.reason == "failed"


def test_a_device_that_is_lost_costs_the_chunk_not_its_items(monkeypatch):
    def lose():
        raise DeviceLost("unplugged")

    monkeypatch.setattr(chunk.ThisMachine, "power_mode", lambda: "5W")
    with pytest.raises(DeviceLost):
        measure(monkeypatch, Runtime(lose))
