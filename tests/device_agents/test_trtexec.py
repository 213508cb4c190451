"""Driving ``trtexec``, by a script in its place that answers with what real ones published.

Sources, cut to the entries and the fields that are read:

* exported times: ``TREX``: NVIDIA/TensorRT, commit 922ec5ff, tools/experimental/trt-engine-explorer/tests/inputs/
  mobilenet.qat.onnx.engine.timing.json. ``FUZZY``: fuzzylabs/edge-vision-power-estimation, commit f5dc507e,
  desktop/torch_onnx_trtexec/results/mobilenet_v2/mobilenet_v2_fp16.timing.json. Neither says its version of TensorRT;
  the options that the first was made with are those of 8.2, of the second those of 10;
* ``OLD_PROFILE`` (without medians): NVIDIA/TensorRT, commit 26210e92, the same folder,
  mobilenet_v2_residuals.qat.onnx.engine.profile.json; ``NEW_PROFILE``: fuzzylabs, as above,
  mobilenet_v2_fp16.profile.json;
* ``GRAPH``: fuzzylabs, commit d9d0e5ba, mobilenet_v2_fp16.graph.json; ``NAMES``, of an engine built without detailed
  verbosity, has the form in issue 4020 of NVIDIA/TensorRT (the container 24.06);
* failures: 8.2.1: issue 493 of Tianxiaomo/pytorch-YOLOv4, and issue 1235 of OAID/Tengine for an op without importer;
  the engine that cannot be saved: issue 7902 of triton-inference-server/server (8.6);
* banners: 8.2.1 as above; 8.4.0: pull request 952 of OE4T/meta-tegra; 8.6.0: issue 60 of triple-mu/YOLOv8-TensorRT;
  10.3.0: issue 4494, 10.13.3: issue 4587 of NVIDIA/TensorRT; 10.16.2 on an Orin: pull request 2243 of OE4T/meta-tegra.

No exported times of a Jetson and nothing of TensorRT 11 was found: unverified.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_agents.runtimes import RuntimeRefused, engines, open_runtime
from device_agents.runtimes.layers import engine_details, read_inspector
from device_agents.runtimes.trtexec import build_flags, decode_version, read_times

ROOT = Path(__file__).parents[2]
TREX = [{"computeMs": ms, "latencyMs": ms} for ms in (0.459041, 0.442369, 0.444799, 0.900864)]
FUZZY = [{"computeMs": ms, "latencyMs": ms} for ms in (0.234375, 0.233398, 0.233398, 0.236816)]
OLD_PROFILE = """[
  { "count" : 7075 }
, { "name" : "QuantizeLinear_2", "timeMs" : 83.9859, "averageMs" : 0.0118708, "percentage" : 2.91082 }
, { "name" : "features.1.conv.1.weight + QuantizeLinear_35 + Conv_37", "timeMs" : 50.6791, "averageMs" : 0.00716312, \
"percentage" : 1.75645 }
, { "name" : "copied_squeeze_after_(Unnamed Layer* 803) [ElementWise]", "timeMs" : 0, "averageMs" : 0, \
"percentage" : 0 }
]
"""
NEW_PROFILE = """[
  { "count" : 18488 }
, { "name" : "/features/features.1/conv/conv.1/Conv", "timeMs" : 117.446, "averageMs" : 0.00635255, \
"medianMs" : 0.006144, "percentage" : 1.5446 }
, { "name" : "/GlobalAveragePool", "timeMs" : 100.721, "averageMs" : 0.00544793, "medianMs" : 0.00512, \
"percentage" : 1.32465 }
]
"""
TACTIC = "sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x16x32_stage1_warpsize4x1x1_g1_tensor16x8x16_alignc8"  # noqa: E501
GRAPH = json.dumps(
    {
        "Layers": [
            {
                "Name": "/features/features.1/conv/conv.1/Conv",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Dimensions": [1, 32, 112, 112]}],
                "TacticName": TACTIC,
            }
        ]
    }
)
NAMES = '{"Layers": ["resnetv15_stage1_conv0_fwd + resnetv15_stage1_batchnorm0_fwd + resnetv15_stage1_relu0_fwd"]}'
UNPARSED = "[12/07/2021-23:53:58] [E] [TRT] ModelImporter.cpp:735: Failed to parse ONNX model from file: ./m.onnx"
NO_IMPORTER = """\
[12/21/2021-10:09:47] [I] [TRT] No importer registered for op: HardSwish. Attempting to import as plugin.
[12/21/2021-10:09:47] [E] [TRT] 3: getPluginCreator could not find plugin: HardSwish version: 1
[12/21/2021-10:09:47] [E] [TRT] ModelImporter.cpp:720: While parsing node number 1 [HardSwish -> "407"]:"""
UNSAVED = "[12/19/2024-10:00:00] [E] Saving engine to file failed."
ASKED = {"runtime": "trtexec", "provider": "TensorRT", "precision": "fp16", "batch": 1, "threads": 1}
SCRIPT = """#!{python}
import json, os, sys, time
flags = dict(flag.partition("=")[::2] for flag in sys.argv[1:])
answers = json.load(open(os.path.join({folder!r}, "answers")))
print("&&&& RUNNING TensorRT.trtexec [TensorRT v" + answers["version"] + "] # trtexec " + " ".join(sys.argv[1:]))
with open(os.path.join({folder!r}, "calls"), "a") as file:
    file.write(json.dumps(flags) + chr(10))
if "--onnx" in flags:
    open(flags["--saveEngine"], "w").write("half")
    time.sleep(answers["build_s"])
    others = [name for name in os.listdir(os.path.dirname(flags["--saveEngine"])) if name.endswith(".engine")]
    full = answers["full"] and others
    if answers["fails"] or full:
        print(answers["fails"] or {unsaved!r})
        sys.exit(1)
    open(flags["--saveEngine"], "wb").write(b"engine of " + open(flags["--onnx"], "rb").read())
if "--exportTimes" in flags:
    times = answers["times"]
    times = times * (int(flags["--iterations"]) // len(times) + 1)
    json.dump(times[: int(flags["--iterations"])], open(flags["--exportTimes"], "w"))
if "--exportProfile" in flags:
    if answers["no_profile"]:
        sys.exit(1)
    open(flags["--exportProfile"], "w").write(answers["profile"])
if "--exportLayerInfo" in flags:
    open(flags["--exportLayerInfo"], "w").write(answers["graph"])
"""
QUIET = {
    "times": TREX,
    "build_s": 0,
    "fails": "",
    "full": False,
    "profile": NEW_PROFILE,
    "graph": GRAPH,
    "no_profile": 0,
}


class FakeTrtexec:
    def __init__(self, folder):
        self.folder, self.engines, self.answers = folder, folder / "engines", {**QUIET, "version": "8201"}
        script = folder / "trtexec"
        script.write_text(SCRIPT.format(python=sys.executable, folder=str(folder), unsaved=UNSAVED))
        script.chmod(0o755)
        self.says()

    def says(self, **answers):
        self.answers.update(answers)
        (self.folder / "answers").write_text(json.dumps(self.answers))
        return self

    def open(self, **asked):
        return open_runtime({**ASKED, **asked}, 0)

    def calls(self):
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def builds(self):
        return sum("--onnx" in call for call in self.calls())

    def kept(self, ending):
        return sorted(path for path in self.engines.iterdir() if path.name.endswith(ending))


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    before = os.sched_getaffinity(0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv(engines.FOLDER, str(tmp_path / "engines"))
    monkeypatch.setattr("device_agents.runtimes.trtexec.gpu_name", lambda: "NVIDIA Tegra X1 5.3")
    yield FakeTrtexec(tmp_path)
    os.sched_setaffinity(0, before)


def load(runtime, model=b"model", kind="op"):
    return runtime.load({"item": "0", "kind": kind}, lambda: model)


def test_a_visit_is_one_process_whose_inferences_are_handed_out(trtexec):
    session = load(trtexec.open())
    session.run()
    assert [session.elapsed_ns(1) for _ in TREX] == [459041, 442369, 444799, 900864]
    assert session.elapsed_ns(4) == 459041 + 442369 + 444799 + 900864
    assert len(trtexec.calls()) == 3  # --help, the build, one measurement
    session.elapsed_ns(4)
    assert int(trtexec.calls()[-1]["--iterations"]) == 6 * 4


def test_what_an_earlier_visit_left_over_is_forgotten(trtexec):
    runtime = trtexec.open()
    one, other = (load(runtime, model) for model in (b"a", b"b"))
    for session in (one, one, other, one):
        session.elapsed_ns(1)
    assert sum("--exportTimes" in call for call in trtexec.calls()) == 3


@pytest.mark.parametrize(
    ("version", "name", "flags"),
    [
        ("8201", "8.2.1", {"--buildOnly", "--workspace"}),
        ("8400", "8.4.0", {"--buildOnly", "--memPoolSize"}),
        ("8600", "8.6.0", {"--skipInference", "--memPoolSize"}),
        ("100300", "10.3.0", {"--skipInference", "--memPoolSize"}),
        ("101602", "10.16.2", {"--skipInference", "--memPoolSize"}),
    ],
)
def test_flags_and_condition_follow_the_version(trtexec, version, name, flags):
    runtime = trtexec.says(version=version, times=FUZZY).open()
    session = load(runtime)
    assert flags | {"--fp16", "--noTF32", "--profilingVerbosity"} == set(trtexec.calls()[-1]) - {
        "--onnx",
        "--saveEngine",
    }
    assert runtime.condition["runtime_version"] == name
    assert session.elapsed_ns(2) == 234375 + 233398
    assert {"--noDataTransfers", "--useSpinWait"} <= set(trtexec.calls()[-1])
    json.dumps([runtime.condition, runtime.facts])


def test_precision_decides_the_flags():
    assert "--fp16" not in build_flags((8, 2, 1), "fp32")
    assert "--fp16" not in build_flags((11, 0, 0), "fp16"), "there the model is made fp16"
    assert "--workspace=64" in build_flags((8, 2, 1), "fp16", 64)


def test_an_engine_is_built_once_for_a_model_a_version_a_gpu_and_flags(trtexec, monkeypatch):
    for _ in range(2):
        load(trtexec.open())
    assert trtexec.builds() == 1
    load(trtexec.open(), b"another")
    load(trtexec.open(precision="fp32"))
    trtexec.says(version="8205")
    load(trtexec.open())
    monkeypatch.setattr("device_agents.runtimes.trtexec.gpu_name", lambda: "Orin 8.7")
    load(trtexec.open())
    assert trtexec.builds() == 5
    assert [path.read_bytes() for path in trtexec.kept(".engine")].count(b"engine of model") == 4
    assert not trtexec.kept(".onnx")
    assert not trtexec.kept(".building")


def damage(trtexec):
    trtexec.kept(".engine")[0].write_bytes(b"engine of modeL")


def without_marker(trtexec):
    trtexec.kept(".json")[0].unlink()


def of_another_machine(trtexec):
    path = trtexec.kept(".json")[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "0" * 64}))


@pytest.mark.parametrize("spoil", [damage, without_marker, of_another_machine])
def test_an_engine_that_was_not_built_here_as_it_is_is_never_loaded(trtexec, spoil, capsys):
    load(trtexec.open())
    spoil(trtexec)
    load(trtexec.open())
    assert trtexec.builds() == 2
    assert "not built here" in capsys.readouterr().err
    assert trtexec.kept(".engine")[0].read_bytes() == b"engine of model"


@pytest.mark.parametrize(
    ("said", "reason"), [(UNPARSED, "malformed"), (NO_IMPORTER, "unsupported-op"), ("Killed", "failed")]
)
def test_a_build_that_fails_says_why_and_leaves_nothing(trtexec, said, reason):
    with pytest.raises(RuntimeRefused, match="trtexec ended with 1: ") as error:
        load(trtexec.says(fails=said).open())
    assert error.value.reason == reason
    assert said.splitlines()[-1].split("] ", 2)[-1] in str(error.value)
    assert list(trtexec.engines.iterdir()) == []


def test_a_full_disk_costs_the_engines_that_nobody_uses(trtexec):
    load(trtexec.open(), b"older")
    trtexec.says(full=True)
    load(trtexec.open())
    assert [path.read_bytes() for path in trtexec.kept(".engine")] == [b"engine of model"]
    with pytest.raises(RuntimeRefused, match="free space there"):
        load(trtexec.says(fails=UNSAVED).open(), b"newer")


def test_engines_beyond_the_limit_go_the_longest_unused_first(tmp_path):
    kept = engines.Engines(str(tmp_path), limit=250)
    for name in (b"a", b"b", b"c", b"d"):
        kept = engines.Engines(str(tmp_path), limit=250)  # none of the others in use
        kept.get(kept.key(name, "8.2.1", "gpu", []), lambda path: Path(path).write_bytes(bytes(100)))
        time.sleep(0.01)
    assert len(list(tmp_path.glob("*.engine"))) == 3, "250 bytes before the next is built"


def test_a_folder_that_cannot_be_written_only_costs_the_cache(trtexec, monkeypatch, capsys):
    (trtexec.folder / "file").write_text("no folder")
    monkeypatch.setenv(engines.FOLDER, str(trtexec.folder / "file" / "engines"))
    load(trtexec.open()).elapsed_ns(1)
    assert "going on without" in capsys.readouterr().err


def test_killed_in_the_middle_of_a_build_the_next_one_starts_anew(trtexec):
    code = (
        "from device_agents.runtimes import open_runtime, trtexec; trtexec.gpu_name = lambda: 'NVIDIA Tegra X1 5.3'; "
    )
    code += f"open_runtime({ASKED!r}, 0).load({{'item': '0', 'kind': 'op'}}, lambda: b'model')"
    trtexec.says(build_s=60)
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True)
    while not (trtexec.engines.is_dir() and trtexec.kept(".building")):
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    load(trtexec.says(build_s=0).open()).elapsed_ns(1)
    assert [path.read_bytes() for path in trtexec.kept(".engine")] == [b"engine of model"]
    for path in (*trtexec.kept(".building"), *trtexec.kept(".onnx")):
        os.utime(path, (0, 0))
    trtexec.open()  # much later
    assert not trtexec.kept(".building")
    assert not trtexec.kept(".onnx")


def test_a_networks_profile_and_inspection_come_with_it_and_are_kept(trtexec):
    session = load(trtexec.open(), kind="network")
    layers = session.details["layers"]
    assert [layer["ms"] for layer in layers] == [0.00635255, 0.00544793]
    assert sum(layer["share"] for layer in layers) == pytest.approx(1)
    assert session.details["inspector"]["Layers"][0]["TacticName"].startswith("sm80_xmma_fprop")
    asked = len(trtexec.calls())
    assert load(trtexec.open(), kind="network").details == session.details
    assert len(trtexec.calls()) == asked + 1, "--help alone"
    assert load(trtexec.open()).details is None, "of a block"


def test_a_profile_that_fails_costs_no_measurement(trtexec, capsys):
    session = load(trtexec.says(no_profile=1).open(), kind="network")
    assert (session.details, session.elapsed_ns(1)) == ({}, 459041)
    assert "no profile" in capsys.readouterr().err


def test_profiles_of_old_versions_and_names_alone_are_read():
    found = engine_details(OLD_PROFILE, NAMES)
    assert [layer["ms"] for layer in found["layers"]] == [0.0118708, 0.00716312, 0]
    assert found["inspector"]["Layers"][0].startswith("resnetv15_stage1_conv0_fwd")
    assert engine_details("", "{") == engine_details("[3]", "[]") == engine_details('[{"averageMs": -1}]', "") == {}
    long = json.dumps({"Layers": [{"Name": "n" * 300000, "TacticName": "t", "Inputs": []}]})
    assert set(read_inspector(long)["Layers"][0]) == {"Name", "TacticName"}


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
