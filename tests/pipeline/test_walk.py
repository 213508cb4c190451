"""The whole walk on a small supernet: real images, a real server, a real agent, real measurements.

The budget on this machine is one that no neighbour of its can make it miss; budgets that bind are a simulated device's.
"""

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ofa_deploy.export import verify_bundle

RECIPE = """
name: small
space:
  name: walk_16
  base: tiny_16
  resolutions: [16]
  widths: [1.0]
  stages:
    - {width: 16, stride: 1, depths: [1, 2], kernels: [3], expands: [2, 3]}
    - {width: 24, stride: 2, act: hswish, se: true, depths: [1, 2], kernels: [3, 5], expands: [2, 3]}
data: {name: digits, valid: 200}
epochs: 6
batch_size: 64
accuracy: {subnets: 10, heldout: 3, recalibration_images: 256, images: 200}
"""
SHORT = ("--se", "0.05", "--cap-s", "2")  # measuring no longer than a test needs
PIPELINE = """
name: walk
stages:
  - {stage: train, recipe: small.yaml}
  - {stage: profile, target: local, networks: 4}
  - {stage: extract, target: local, max_ms: [20], protocol: {cap_s: 5}}
  - {stage: extract, target: jetson_nano, spread: 2}
  - {stage: compare, title: Two devices}
"""


@pytest.fixture(scope="module")
def run(ofa_deploy):
    def command(folder: Path, *arguments: str, code: int = 0):
        done = ofa_deploy(*arguments, cwd=folder)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return command


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, run) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("walk")
    (folder / "small.yaml").write_text(RECIPE)
    (folder / "walk.yaml").write_text(PIPELINE)
    done = run(folder, "run", "walk.yaml", "--json")
    return folder, json.loads(done.stdout)


def test_every_bundle_runs_in_plain_onnxruntime_and_fits(walk: tuple[Path, dict]) -> None:
    folder, answer = walk
    assert [report["target"]["simulated"] for report in answer["reports"]] == [False, True, True]
    for report in answer["reports"]:
        bundle = folder / report["bundle"]
        written = json.loads((bundle / "report.json").read_text())
        assert {key: report[key] for key in written} == written
        assert report["latency"]["fits"] is True
        assert report["latency"]["measured_ms"]["p50"] <= report["budget"]["max_ms"]
        assert report["latency"]["upper_ms"] <= report["budget"]["max_ms"]
        assert report["accuracy"]["measured"] > 0.5
        assert report["accuracy"]["n"] == len(json.loads((bundle / "evidence.json").read_text())["test"]["labels"])
        assert report["parity"]["max_abs"] < 1e-4
        session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
        (node,) = session.get_inputs()
        assert node.shape == [1, 1, 16, 16]
        (logits,) = session.run(None, {node.name: np.zeros(node.shape, np.float32)})
        assert logits.shape == (1, 10)


def test_a_larger_budget_never_promises_less(walk: tuple[Path, dict]) -> None:
    simulated = [report for report in walk[1]["reports"] if report["target"]["simulated"]]
    small, large = sorted(simulated, key=lambda report: report["budget"]["max_ms"])
    assert small["budget"]["max_ms"] < large["budget"]["max_ms"]
    promised = [max(f["predicted_accuracy"] for f in report["finalists"]) for report in (small, large)]
    assert promised[0] <= promised[1]


def test_bundles_verify_and_a_flipped_bit_does_not(walk: tuple[Path, dict], run, tmp_path: Path) -> None:
    folder, answer = walk
    bundle = folder / answer["reports"][0]["bundle"]
    assert "every figure follows from the evidence" in run(folder, "verify", str(bundle)).stdout
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = bytearray((copy / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "model.onnx").write_bytes(content)
    assert "model.onnx" in run(folder, "verify", str(copy), code=4).stderr


def test_a_flipped_bit_in_any_file_is_found(walk: tuple[Path, dict], tmp_path: Path) -> None:
    folder, answer = walk
    bundle = folder / answer["reports"][1]["bundle"]
    names = sorted(path.name for path in bundle.iterdir())
    assert {"infer.py", "labels.json", "preprocessing.json", "provenance.json", "manifest.sha256"} <= {*names}
    for place, name in enumerate(names):
        copy = shutil.copytree(bundle, tmp_path / name)
        content = bytearray((copy / name).read_bytes())
        content[(place * 7919) % len(content)] ^= 1 << place % 8
        (copy / name).write_bytes(content)
        assert verify_bundle(copy), name


def test_predictions_can_be_recomputed_from_the_bundle(walk: tuple[Path, dict]) -> None:
    """From the files beside the report alone: the latency model, the accuracy predictor and the subnet."""
    from ofa_deploy.accuracy import AccuracyPredictor
    from ofa_deploy.latency import LatencyModel
    from ofa_deploy.space import PopulationCodec, load_space, network_macs, network_params

    folder, answer = walk
    assert answer["reports"]
    for report in answer["reports"]:
        bundle = folder / report["bundle"]
        space = load_space(report["provenance"]["space"])
        arch = space.canonical(json.loads((bundle / "arch.json").read_text()))
        network = space.network(arch)
        evidence = json.loads((bundle / "evidence.json").read_text())
        mean, std = LatencyModel.from_json(evidence["latency_model"]).predict([network])
        assert mean[0] == pytest.approx(report["latency"]["predicted_ms"])
        assert std[0] == pytest.approx(report["latency"]["std_ms"])
        codec = PopulationCodec(space)
        predictor = AccuracyPredictor.from_bytes(codec, (bundle / "accuracy_predictor.safetensors").read_bytes())
        accuracy = predictor.predict(codec.encode([arch]))[0][0]
        assert accuracy == pytest.approx(report["accuracy"]["predicted"], abs=1e-6)
        assert (network_macs(network), network_params(network)) == (
            report["subnet"]["macs"],
            report["subnet"]["params"],
        )
        assert arch.key == report["subnet"]["key"]


def test_a_second_run_skips_everything(walk: tuple[Path, dict], run) -> None:
    folder, answer = walk
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.onnx")}
    again = json.loads(run(folder, "run", "walk.yaml", "--json").stdout)
    bundles = [f"extract {answer['reports'][0]['folder']}", *(f"extract jetson_nano {i} of 2" for i in (1, 2))]
    assert again["skipped"] == ["train", "profile local", *bundles]
    assert again["reports"] == answer["reports"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.onnx")} == before


def test_the_page_is_whole_and_needs_no_network(walk: tuple[Path, dict]) -> None:
    folder, answer = walk
    page = (folder / answer["page"]).read_text()

    found: list[str] = []

    class Resources(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list) -> None:
            found.extend(value for name, value in attrs if name in ("src", "href") and value)

    Resources().feed(page)
    assert not [resource for resource in found if "://" in resource]
    for report in answer["reports"]:
        assert f"{report['folder']}/report.html" in found
        assert (folder / answer["page"]).parent.joinpath(report["folder"], "report.html").is_file()


def test_search_predict_and_table_answer_in_json(walk: tuple[Path, dict], run, tmp_path: Path) -> None:
    folder, answer = walk
    budget = str(answer["reports"][0]["budget"]["max_ms"])
    found = json.loads(run(folder, "search", "--target", "local", "--max-ms", budget, "--json").stdout)
    assert found["upper_ms"] <= float(budget)
    arch = tmp_path / "arch.json"
    arch.write_text(json.dumps(found["arch"]))
    (predicted,) = json.loads(run(folder, "predict", "--target", "local", str(arch), "--json").stdout)
    assert predicted["mean_ms"] == pytest.approx(found["latency_ms"], rel=1e-6)
    table = json.loads(run(folder, "lut", "show", "local", "--json").stdout)
    assert len(table["rows"]) > 10
    assert len(table["networks"]) >= 4
    exported = json.loads((folder / ".ofa" / "tables" / "local-fp32.json").read_text())
    assert {row["key"] for row in exported["rows"]} == {row["key"] for row in table["rows"]}


def test_infeasible_budgets_name_the_fastest_and_write_nothing(walk: tuple[Path, dict], run) -> None:
    folder, _ = walk
    before = sorted((folder / ".ofa" / "bundles").rglob("*"))
    done = run(folder, "extract", "--target", "local", "--max-ms", "0.0001", code=3)
    assert "the fastest needs" in done.stderr
    assert done.stdout == ""
    assert sorted((folder / ".ofa" / "bundles").rglob("*")) == before


def test_max_macs_alone_needs_no_latency_budget(walk: tuple[Path, dict], run) -> None:
    folder, _ = walk
    done = run(folder, "extract", "--target", "local", "--max-macs", "4e5", *SHORT, "--json")
    report = json.loads(done.stdout)
    assert report["subnet"]["macs"] <= 4e5
    assert report["budget"]["max_ms"] is None
    assert report["latency"]["fits"] is None
    assert report["latency"]["measured_ms"]["p50"] > 0
    assert not run(folder, "report", report["bundle"]).stderr


def test_memory_alone_is_a_budget_too(walk: tuple[Path, dict], run) -> None:
    folder, answer = walk
    bound = round(1.1 * answer["reports"][0]["subnet"]["memory_mb"], 4)
    stage = f"{{stage: extract, max_memory_mb: {bound}, statistic: p90, protocol: {{cap_s: 2}}}}"
    (folder / "memory.yaml").write_text(f"name: memory\nstages: [{{stage: train, recipe: small.yaml}}, {stage}]\n")
    (report,) = json.loads(run(folder, "run", "memory.yaml", "--json").stdout)["reports"]
    assert report["subnet"]["memory_mb"] <= bound == report["constraints"]["max_memory_mb"]
    assert report["budget"]["statistic"] == "p90"
    assert report["budget"]["max_ms"] is None
    assert f"--max-memory-mb {bound:g} " in report["command"]
    run(folder, "verify", report["bundle"])
    assert "none" in run(folder, "run", "memory.yaml").stdout
    done = run(folder, "search", "--max-memory-mb", "0.001", code=3)
    assert "MB of memory (bound 0.001)" in done.stderr


def test_random_weights_study_latency_and_claim_no_accuracy(walk: tuple[Path, dict], run) -> None:
    folder, _ = walk
    (folder / "space.yaml").write_text("name: other\nbase: tiny_16\nresolutions: [16]\nwidths: [0.5]\n")
    words = ["extract", "--space", "space.yaml", "--random-weights", "--max-ms", "5", *SHORT]
    assert "ofa-deploy profile" in run(folder, *words, "--no-profile", code=2).stderr
    report = json.loads(run(folder, *words, "--json").stdout)
    assert report["accuracy"]["measured"] is None
    assert report["accuracy"]["predicted"] is None
    assert report["latency"]["fits"] is True
    text = run(folder, "report", report["bundle"]).stdout
    assert "not measured" in text
    assert "None" not in text
    run(folder, "verify", report["bundle"])


def test_export_writes_one_subnet(walk: tuple[Path, dict], run, tmp_path: Path) -> None:
    folder, answer = walk
    file = tmp_path / "arch.json"
    file.write_text(json.dumps(answer["reports"][0]["subnet"]["arch"]))
    done = json.loads(run(folder, "export", "--arch", str(file), "-o", str(tmp_path / "m.onnx"), "--json").stdout)
    assert done["bytes"] == (tmp_path / "m.onnx").stat().st_size
    assert done["max_abs"] < 1e-4
    options = ("--arch", str(file), "--precision", "int8", "-o", str(tmp_path / "int8.onnx"), "--json")
    assert json.loads(run(folder, "export", *options).stdout)["precision"] == "int8"
    assert b"DequantizeLinear" in (tmp_path / "int8.onnx").read_bytes()
    big = tmp_path / "ofa.json"
    arch = {"space": "ofa_mbv3_w1.0", "resolution": 64, "depths": [2] * 5, "kernels": [3] * 20, "expands": [3] * 20}
    big.write_text(json.dumps(arch))
    run(folder, "export", "--arch", str(big), "--random-weights", "-o", str(tmp_path / "big.onnx"))
    assert (tmp_path / "big.onnx").stat().st_size > 1e7


def test_a_damaged_predictor_is_named_and_comes_back(walk: tuple[Path, dict], run) -> None:
    folder, _ = walk
    budget = ("--max-macs", "1e9")
    file = folder / ".ofa" / "supernets" / "small" / "predictor.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert f"{file}: the accuracy predictor's file is truncated" in run(folder, "search", *budget, code=2).stderr
    file.unlink()
    run(folder, "search", *budget)
    assert file.read_bytes() == whole
