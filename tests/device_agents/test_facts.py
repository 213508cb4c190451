"""What a device says of itself, read from made-up system files."""

import os

import pytest

from device_agents import facts
from device_agents.chunk import start_and_end

CORE = "sys/devices/system/cpu/cpu{}/cpufreq/{}"


JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3450-0000\0nvidia,jetson-nano\0nvidia,tegra210\0",
    "proc/meminfo": "MemTotal:        4059252 kB\nMemFree:          100 kB\n",
    "proc/loadavg": "1.25 0.40 0.20 1/180 4242\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 18.04.6 LTS"\n',
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE CORE_1 1\n< POWER_MODEL ID=1 NAME=5W >\n",
    "var/lib/nvpmodel/status": "pmode:0001 fmode:quiet\n",
    "sys/devices/gpu.0/devfreq/57000000.gpu/cur_freq": "921600000\n",
    "sys/kernel/debug/clk/emc/clk_rate": "1600000000\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/thermal/thermal_zone1/temp": "50000\n",
    CORE.format(2, "scaling_governor"): "schedutil\n",
    CORE.format(2, "scaling_cur_freq"): "1428000\n",
    CORE.format(2, "scaling_min_freq"): "102000\n",
    CORE.format(2, "scaling_max_freq"): "1479000\n",
    CORE.format(0, "scaling_governor"): "performance\n",
    CORE.format(0, "scaling_max_freq"): "2000000\n",
}


def test_a_jetson(system):
    system(JETSON)
    found = facts.device_facts()
    expected = {
        "model": "NVIDIA Jetson Nano Developer Kit",
        "soc": "nvidia,p3450-0000, nvidia,jetson-nano, nvidia,tegra210",
        "nvpmodel": "5W",
        "governor": "schedutil",
        "cpu_mhz_min": 102.0,
        "cpu_mhz_max": 1479.0,
        "memory_mb": 4157,
        "os_release": "Ubuntu 18.04.6 LTS",
    }
    assert {key: found.get(key) for key in expected} == expected
    assert "turbo" not in found
    state = {"temperature_c": 50.0, "cpu_mhz": 1428.0, "gpu_mhz": 921.6, "emc_mhz": 1600.0, "load": 1.25}
    assert facts.device_state() == state
    assert facts.power_mode() == "nvpmodel 5W"


def test_a_container_on_a_server(system):
    system(
        {
            "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
            CORE.format(2, "scaling_governor"): "powersave\n",
        }
    )
    found = facts.device_facts()
    assert (found["turbo"], found["cpu_quota_cores"], facts.power_mode()) == (False, 1.5, "powersave")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({}, None),
    ],
)
def test_quotas(system, files, quota):
    system(files)
    assert facts.cpu_quota() == quota


def test_turbo_by_boost(system):
    system({"sys/devices/system/cpu/cpufreq/boost": "1\n"})
    assert facts.turbo() is True


def test_a_mode_without_a_name_is_its_number(system):
    system({"var/lib/nvpmodel/status": "pmode:0003\n", "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n"})
    assert facts.power_mode() == "nvpmodel 3"


def test_cores_that_are_governed_differently(system, monkeypatch):
    system(JETSON)
    monkeypatch.setattr(facts, "usable_cores", lambda: [0, 2])
    assert facts.governor() == "performance+schedutil"


def test_a_machine_that_says_nothing(system):
    found = facts.device_facts()
    assert found["cores"] == os.cpu_count()
    assert None not in found.values()
    assert (facts.device_state(), facts.power_mode()) == ({}, "unknown")


@pytest.mark.parametrize("text", ["", "\n", "nonsense\n", "-\n", "\xff\xfe\n", "1 2 3 4\n"])
def test_files_that_hold_something_else(system, text):
    system(dict.fromkeys([*JETSON, "sys/fs/cgroup/cpu.max", "sys/devices/system/cpu/cpufreq/boost"], text))
    facts.device_facts()
    facts.device_state()
    assert facts.power_mode()


def test_readings_come_from_the_start_and_the_end():
    assert start_and_end({"load": 0.1, "gone": 1}, {"load": 0.9, "new": 2}) == {"load": [0.1, 0.9], "gone": [1, None]}


def test_how_busy_the_cores_were_and_what_other_guests_took():
    assert facts.shares((1000, 600, 10), (2000, 700, 60)) == {"cores_busy_pct": 90.0, "steal_pct": 5.0}
    assert facts.shares((1000, 600, 10), None) == {}
    assert facts.shares((1000, 600, 10), (1000, 600, 10)) == {}
    before, after = facts.core_ticks(), facts.core_ticks()
    assert before is None or after[0] >= before[0] >= before[1]
