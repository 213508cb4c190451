"""What a bundle needs to be served: run in processes that have the runtime only."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import run_onnx
from ofa_deploy.export.clean import CleanRuntime, runtime_here, smoke
from ofa_deploy.export.provenance import git_commit, statement
from ofa_deploy.export.serving import preprocessing, serving_files, with_preprocessing
from ofa_deploy.graph import onnx_bytes, write_onnx
from ofa_deploy.space import load_space, random_weights

MEAN, STD = (0.48, 0.45, 0.4), (0.22, 0.23, 0.25)
SPACE = load_space(
    {
        "name": "served",
        "base": "tiny_16",
        "resolutions": [16],
        "stages": [{"width": 16, "stride": 1, "depths": [1], "kernels": [3], "expands": [2]}],
    }
)


def model(batch: int = 1) -> tuple[bytes, int]:
    network = SPACE.network(SPACE.smallest)
    target = TargetProfile(name="t", description="", runtime="onnxruntime", batch=batch)
    return onnx_bytes(write_onnx(network, random_weights(network), target)), network.input_shape[0]


def images(count: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, 16, 16), dtype=np.uint8)


def prepared(pixels: np.ndarray) -> np.ndarray:
    mean, std = (np.array(values[: pixels.shape[1]], np.float32).reshape(-1, 1, 1) for values in (MEAN, STD))
    return ((pixels / np.float32(255) - mean) / std).astype(np.float32)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_process_without_us_answers_alike(runtime: str, batch: int) -> None:
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    content, channels = model(batch)
    x = prepared(images(6, channels))
    with CleanRuntime(content, runtime) as served:
        assert served.version.startswith(runtime)
        first, rest = served(x[:2]), served(x[2:])
    np.testing.assert_allclose(np.concatenate([first, rest]), run_onnx(content, [x]), atol=1e-4)


def test_what_does_not_run_there_is_said() -> None:
    with pytest.raises(GateFailed, match="does not run in a clean process"):
        CleanRuntime(b"no model", "onnxruntime")
    content, channels = model()
    with CleanRuntime(content, "onnxruntime") as served, pytest.raises(GateFailed, match="does not run in a clean"):
        served(np.zeros((1, channels, 8, 8), np.float32))
    assert runtime_here("tensorrt") == "onnxruntime"


@pytest.mark.parametrize(
    ("runtime", "provider"),
    [("onnxruntime", "CPUExecutionProvider"), ("openvino", "CPU"), ("trtexec", "TensorRT"), ("tensorrt", "TensorRT")],
)
def test_infer_py_classifies_where_only_the_runtime_is(runtime: str, provider: str) -> None:
    if runtime == "openvino":
        pytest.importorskip(runtime, reason="openvino is not installed")
    content, channels = model(batch=2)
    how = preprocessing(16, MEAN[:channels], STD[:channels], 2)
    classes = [f"class {i}" for i in range(SPACE.num_classes)]
    files = {"model.onnx": content, **serving_files(how, classes, runtime, provider)}
    (pixels,) = images(1, channels)
    logits = run_onnx(content, [prepared(pixels[None])])[0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    found = smoke(files, pixels)
    assert found == {"label": classes[int(logits.argmax())], "share": pytest.approx(float(shares.max()), abs=1e-3)}
    assert files["infer.py"].count(b"\n") <= 42
    compile(files["infer.py"], "infer.py", "exec")


def test_a_broken_infer_py_is_said() -> None:
    content, channels = model()
    how = preprocessing(16, MEAN[:channels], STD[:channels], 1)
    files = {"model.onnx": content, **serving_files(how, ["a"] * 10, "onnxruntime", "CPUExecutionProvider")}
    broken = {**files, "infer.py": files["infer.py"].replace(b"import json", b"import torch, json", 1)}
    with pytest.raises(GateFailed, match=r"infer.py does not run where only the runtime is: .*torch"):
        smoke(broken, images(1, channels)[0])


def test_preprocessing_inside_the_graph_is_the_same() -> None:
    content, channels = model()
    inside = with_preprocessing(content, preprocessing(16, MEAN[:channels], STD[:channels], 1))
    pixels = images(3, channels)
    graph = onnx.load_from_string(inside)
    assert [value.name for value in graph.graph.input] == ["pixels"]
    assert graph.opset_import[0].version == onnx.load_from_string(content).opset_import[0].version
    shown = np.moveaxis(pixels, 1, -1).astype(np.float32)
    np.testing.assert_allclose(run_onnx(inside, [shown]), run_onnx(content, [prepared(pixels)]), atol=1e-4)


def test_a_statement_names_every_file_and_what_it_was_made_from() -> None:
    files = {"model.onnx": b"m", "arch.json": b"{}"}
    found = statement(files, {"command": "x"}, {"supernet": "ab", "audit": None}, {"python": "3"}, "c0ffee")
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert {s["name"]: s["digest"]["sha256"] for s in found["subject"]} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    made_from = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert made_from == [
        {"name": "supernet", "digest": {"sha256": "ab"}},
        {"name": "repository", "digest": {"gitCommit": "c0ffee"}},
    ]
    assert json.dumps(found)


def test_no_commit_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
