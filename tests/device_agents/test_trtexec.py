"""Driving ``trtexec``, by a script in its place that answers with what real ones published.

Sources of the exported times (cut to four inferences and the fields that are read, or that an older format has):
``TREX``: NVIDIA/TensorRT, commit 922ec5ff, tools/experimental/trt-engine-explorer/tests/inputs/
mobilenet.qat.onnx.engine.timing.json. ``FUZZY``: fuzzylabs/edge-vision-power-estimation, commit f5dc507e,
desktop/torch_onnx_trtexec/results/mobilenet_v2/mobilenet_v2_fp16.timing.json. Neither says its version of TensorRT.
Of 8.2 no exported times were found: unverified. The banners are of 8.2 and 10.5, from people's logs.
"""

import json
import os

import pytest

from device_agents.runtimes import RuntimeRefused, open_runtime
from device_agents.runtimes.trtexec import decode_version, read_times

TREX = [{"computeMs": ms, "latencyMs": ms} for ms in (0.459041, 0.442369, 0.444799, 0.900864)]
FUZZY = [{"computeMs": ms, "latencyMs": ms} for ms in (0.234375, 0.233398, 0.233398, 0.236816)]
ASKED = {"runtime": "trtexec", "provider": "TensorRT", "precision": "fp16", "batch": 1, "threads": 1}
SCRIPT = """#!/usr/bin/env python3
import json, os, sys
flags = dict(flag.partition("=")[::2] for flag in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec " + " ".join(sys.argv[1:]))
with open(os.path.join({folder!r}, "calls"), "a") as file:
    file.write(json.dumps(flags) + chr(10))
if "--onnx" in flags:
    if open(flags["--onnx"], "rb").read() != b"model":
        print("[11/22/2026-10:00:00] [E] Failed to parse onnx file")
        sys.exit(1)
    open(flags["--saveEngine"], "w").close()
if "--loadEngine" in flags:
    times = {times!r}
    times = times * (int(flags["--iterations"]) // len(times) + 1)
    json.dump(times, open(flags["--exportTimes"], "w"))
"""


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    before = os.sched_getaffinity(0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def make(version="8201", times=TREX):
        script = tmp_path / "trtexec"
        script.write_text(SCRIPT.format(version=version, folder=str(tmp_path), times=times))
        script.chmod(0o755)
        return open_runtime(ASKED, 0), lambda: [
            json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()
        ]

    yield make
    os.sched_setaffinity(0, before)


def load(runtime, model=b"model"):
    return runtime.load({"item": "0"}, lambda: model)


def test_a_visit_is_one_process_whose_inferences_are_handed_out(trtexec):
    runtime, calls = trtexec()
    session = load(runtime)
    session.run()
    assert [session.elapsed_ns(1) for _ in TREX] == [459041, 442369, 444799, 900864]
    assert session.elapsed_ns(4) == 459041 + 442369 + 444799 + 900864
    assert len(calls()) == 3  # --help, the build, one measurement
    session.run()  # forgets the rest
    assert int(calls()[-1]["--iterations"]) >= 6 * 4
    session.close()


def test_flags_and_condition_follow_the_version(trtexec):
    runtime, calls = trtexec("8201")
    load(runtime)
    assert {"--buildOnly", "--fp16", "--noTF32"} <= set(calls()[-1])
    assert runtime.condition["runtime_version"] == "8.2.1"
    runtime, calls = trtexec("100500", FUZZY)
    session = load(runtime)
    assert {"--skipInference", "--fp16", "--noTF32"} <= set(calls()[-1])
    assert runtime.condition["runtime_version"] == "10.5.0"
    assert session.elapsed_ns(2) == 234375 + 233398
    assert {"--noDataTransfers", "--useSpinWait"} <= set(calls()[-1])
    json.dumps([runtime.condition, runtime.facts])


def test_a_model_that_cannot_be_built_says_why(trtexec):
    runtime, _ = trtexec()
    with pytest.raises(RuntimeRefused, match=r"\[E\] Failed to parse") as error:
        load(runtime, b"garbage")
    assert error.value.reason == "malformed"


def test_without_trtexec_or_with_another_program_of_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("device_agents.runtimes.trtexec.FOLDERS", (str(tmp_path),))
    with pytest.raises(RuntimeRefused, match="libnvinfer-bin"):
        open_runtime(ASKED, 0)
    (tmp_path / "trtexec").write_text("#!/bin/sh\necho hello\n")
    (tmp_path / "trtexec").chmod(0o755)
    with pytest.raises(RuntimeRefused, match="does not say which TensorRT"):
        open_runtime(ASKED, 0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '[{"computeMs": -1}]', '[{"computeMs": NaN}]', '[{"x": 1}]', "[3]"])
def test_exported_times_that_make_no_sense_are_refused(text):
    with pytest.raises(RuntimeRefused, match="trtexec"):
        read_times(text)


@pytest.mark.parametrize(("number", "version"), [(8201, (8, 2, 1)), (8503, (8, 5, 3)), (101600, (10, 16, 0))])
def test_versions(number, version):
    assert decode_version(number) == version
