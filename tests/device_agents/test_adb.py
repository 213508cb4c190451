"""A phone on a cable, by a script in the place of ``adb`` that answers what people have published.

Sources: ``dumpsys battery``: gh0st.tistory.com/6; ``dumpsys thermalservice``: android.stackexchange.com, question
246774; both cut to the fields that are read. Lines of the result file: microsoft/onnxruntime, performance_runner.cc,
DumpToFile; their seconds are of the order that Arm published for resnet50v2 on a C1-Pro core. The messages are adb's.
"""

import json
import os

import pytest

from device_agents import __main__ as command_line
from device_agents.chunk import measure_chunk
from device_agents.protocol import Settings
from device_agents.runtimes import PHONE, DeviceLost, RuntimeRefused, open_runtime
from device_agents.runtimes.adb import BINARY, Phone, read_times

ASKED = {
    "runtime": "adb-onnxruntime",
    "provider": "CPUExecutionProvider",
    "precision": "fp32",
    "batch": 1,
    "threads": 1,
}
SHA = "ab" * 32
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Max charging current: 0
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4063
  temperature: 326
  technology: Li-ion
"""
THERMAL = "IsStatusOverride: false\nThermal Status: 1\nCached temperatures:\n"
GETPROP = """[ro.build.version.release]: [12]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[ro.soc.model]: []
[ro.board.platform]: [gs101]
"""
CORES = "".join(
    f"/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq {khz}\n"
    for core, khz in enumerate([1803000] * 4 + [2253000] * 2 + [2802000] * 2)
)
SCRIPT = """#!/usr/bin/env python3
import json, os, re, sys
answers = json.load(open(os.path.join({folder!r}, "answers")))
arguments = sys.argv[1:]
open(os.path.join({folder!r}, "calls"), "a").write(json.dumps(arguments) + chr(10))
assert arguments[:2] == ["-s", "R58M"], arguments
if answers.get("away"):
    sys.exit(answers["away"])  # on stderr, with code 1
if arguments[2] == "get-state":
    print("device")
elif arguments[2] == "push":
    open(os.path.join({folder!r}, "pushed"), "wb").write(open(arguments[3], "rb").read())
elif "onnxruntime_perf_test -e" in arguments[3]:
    if answers.get("log"):
        print(answers["log"])
        sys.exit(1)
    runs = int(re.search(r" -r ([0-9]+) ", arguments[3]).group(1))
    for run in range(runs):
        print("{{}},{{}},271122432,11,{{}}".format("m", answers["seconds"][run % len(answers["seconds"])], run))
else:
    print(next((said for begin, said in answers["shell"].items() if arguments[3].startswith(begin)), ""), end="")
"""
SHELL = {
    "getprop": GETPROP,
    "cat /proc/meminfo": "MemTotal:        7731664 kB\nMemFree:   1 kB\n",
    "dumpsys battery": BATTERY,
    "dumpsys thermalservice": THERMAL,
    "cat /sys/devices/system/cpu": "sched_pixel\n" * 8,
    "settings get global low_power": "0\n",
    "for f in": CORES,
    "sha256sum": SHA + "  /data/local/tmp/onnxruntime_perf_test\n",
}


class FakeAdb:
    def __init__(self, folder):
        self.folder, self.answers = folder, {"shell": dict(SHELL), "seconds": [0.0958204, 0.0995086, 0.101519]}
        script = folder / "adb"
        script.write_text(SCRIPT.format(folder=str(folder)))
        script.chmod(0o755)
        self.says()

    def says(self, **answers):
        self.answers.update(answers)
        (self.folder / "answers").write_text(json.dumps(self.answers))

    def calls(self, words):
        calls = [json.loads(line)[2:] for line in (self.folder / "calls").read_text().splitlines()]
        return [" ".join(call) for call in calls if words in " ".join(call)]


@pytest.fixture
def adb(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(PHONE, "R58M")
    monkeypatch.delenv(BINARY, raising=False)
    return FakeAdb(tmp_path)


def test_a_visit_is_one_process_on_the_fastest_core(adb):
    runtime = open_runtime(ASKED, 3)
    session = runtime.load({"item": "0"}, lambda: b"a model")
    assert (adb.folder / "pushed").read_bytes() == b"a model"
    assert [session.elapsed_ns(1) for _ in range(6)] == [95820400, 99508600, 101519000] * 2
    [command] = adb.calls("onnxruntime_perf_test -e")
    assert "taskset 80 " in command, "core 7"
    assert " -e cpu -m times -x 1 -y 1 -I -S 3 -r 8 " in command
    assert runtime.facts == {"cores_used": [7]}
    session.close()
    assert adb.calls("rm -f /data/local/tmp/ofa-agent/")


def test_what_an_earlier_visit_left_over_is_forgotten(adb):
    runtime = open_runtime(ASKED, 0)
    one, other = (runtime.load({"item": name}, name.encode) for name in "ab")
    for session in (one, one, other, one):
        session.elapsed_ns(2)
    assert len(adb.calls("onnxruntime_perf_test -e")) == 2 + 3


def test_tiny_models_are_measured_often_enough_to_pay_for_a_process(adb):
    adb.says(seconds=[1e-5])
    session = open_runtime(ASKED, 0).load({"item": "0"}, lambda: b"m")
    for _ in range(9):
        session.elapsed_ns(1)
    assert " -r 5000 " in adb.calls("onnxruntime_perf_test -e")[-1]


def test_the_condition_and_the_facts_are_the_phones(adb):
    runtime = open_runtime(ASKED, 0)
    assert runtime.condition == {
        **ASKED,
        "runtime_version": "perf_test-abababababab",
        "simulated": False,
        "power_mode": "sched_pixel",
    }
    facts = {"manufacturer": "Google", "model": "Pixel 6", "soc": "gs101", "android": "12"}
    assert Phone().facts() == {**facts, "machine": "arm64-v8a", "memory_mb": 7917, "adb": True}
    state = {"battery_pct": 84, "battery_status": "Charging", "battery_c": 32.6, "thermal_status": 1}
    assert Phone().state() == state
    adb.says(shell={**SHELL, "settings get global low_power": "1\n"})
    assert Phone().power_mode() == "sched_pixel battery-saver"


def a_run():
    item = {"item": "a", "blob": "b", "key": "k"}
    settings = Settings(rounds_min=3, rounds_max=3, min_s=0)._asdict()
    return {"runtime": ASKED, "settings": settings, "items": [item], "sentinels": [item]}


def test_a_chunk(adb):
    result = measure_chunk(a_run(), lambda sha256: b"model", lambda progress: None)
    assert result["facts"]["model"] == "Pixel 6"
    assert result["facts"]["battery_c"] == [32.6, 32.6]
    assert "hostname" not in result["facts"], "nothing of this machine"
    assert len(result["items"][0]["timings"]) == 3


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("error: device 'R58M' not found", "plug it in"),
        ("error: no devices/emulators found", "plug it in"),
        ("error: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", "allow USB debugging"),
        ("error: device offline", "plug it in again"),
        ("error: more than one device/emulator", "--adb SERIAL"),
    ],
)
def test_a_phone_that_is_away_is_worth_a_retry(adb, said, remedy):
    adb.says(away=said)
    with pytest.raises(DeviceLost, match=remedy) as error:
        open_runtime(ASKED, 0)
    assert (error.value.reason, "\n" in str(error.value)) == ("failed", False)


def test_a_phone_that_is_unplugged_while_it_measures_costs_the_chunk_not_an_item(adb):
    def report(progress):
        if progress["phase"] == "rounds":
            adb.says(away="error: device 'R58M' not found")

    with pytest.raises(DeviceLost):
        measure_chunk(a_run(), lambda sha256: b"model", report)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("Load model failed: [ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Protobuf parsing failed.", "malformed"),
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Foo(1)", "unsupported-op"),
        ("terminating with uncaught exception of type std::bad_alloc: std::bad_alloc", "out-of-memory"),
        ("Segmentation fault", "failed"),
    ],
)
def test_what_the_program_complains_of(adb, log, reason):
    runtime = open_runtime(ASKED, 0)
    adb.says(log=log)
    with pytest.raises(RuntimeRefused) as error:
        runtime.load({"item": "0"}, lambda: b"m")
    assert (error.value.reason, log[-20:] in str(error.value)) == (reason, True)


@pytest.mark.parametrize("text", ["", "m,0.1,1,1,0\n", "m,x,1,1,0\nm,0.1,1,1,1\n", "m,0,1,1,0\nm,1,1,1,1\n"])
def test_result_files_that_are_none(text):
    with pytest.raises(RuntimeRefused, match="result file"):
        read_times(text, 2)


def test_the_program_is_copied_once(adb, monkeypatch):
    adb.says(shell={**SHELL, "sha256sum": "sha256sum: not found\n"})
    with pytest.raises(RuntimeRefused, match="--adb-binary"):
        open_runtime(ASKED, 0)
    (adb.folder / "program").write_bytes(b"program")
    monkeypatch.setenv(BINARY, str(adb.folder / "program"))
    version = open_runtime(ASKED, 0).condition["runtime_version"]
    assert (adb.folder / "pushed").read_bytes() == b"program"
    adb.says(shell={**SHELL, "sha256sum": "0c2d3a17e7a8fdc5f1b1a6b9c22a8a0f" * 2 + "  x\n"})
    assert open_runtime(ASKED, 0).condition["runtime_version"] == version
    assert len(adb.calls("push")) == 2
    monkeypatch.setenv(BINARY, "/nowhere")
    with pytest.raises(RuntimeRefused, match="cannot read /nowhere"):
        open_runtime(ASKED, 0)


def test_no_adb_or_no_phone_asked_for(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(PHONE, "x")
    with pytest.raises(RuntimeRefused, match="platform-tools"):
        open_runtime(ASKED, 0)
    with pytest.raises(RuntimeRefused, match="drives the phone x"):
        open_runtime({**ASKED, "runtime": "onnxruntime"}, 0)
    monkeypatch.delenv(PHONE)
    with pytest.raises(RuntimeRefused, match="--adb SERIAL"):
        open_runtime(ASKED, 0)


def test_the_command_line_names_the_phone(monkeypatch):
    monkeypatch.setenv(PHONE, "")
    monkeypatch.setenv(BINARY, "")
    assert command_line.drive_phone(None, None) is None
    command_line.drive_phone("R58M", "/the/program")
    assert (os.environ[PHONE], os.environ[BINARY]) == ("R58M", "/the/program")
