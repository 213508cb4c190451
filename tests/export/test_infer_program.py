"""The program in a bundle, in a process that has only the runtime; the pre-processing inside the graph."""

import io
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from ofa_deploy.blocks import random_weights
from ofa_deploy.errors import GateFailed
from ofa_deploy.export import described, embed, noise_image, preprocessing, program, run_onnx, smoke_run
from ofa_deploy.export.smoke import REFUSED
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.graph import model_file, onnx_bytes
from ofa_deploy.pixels import MODES, network_input
from ofa_deploy.space import PRESETS

SPACE = PRESETS["tiny_16"]
NETWORK = SPACE.network(SPACE.smallest)
CHANNELS, SIDE, _ = NETWORK.input_shape
MEAN, STD = [0.3] * CHANNELS, [0.2] * CHANNELS
HOW = {"mode": MODES[CHANNELS], "shorter_side": 20, "crop": 18, "height": SIDE, "width": SIDE, "mean": MEAN, "std": STD}
MODEL = model_file(NETWORK, random_weights(NETWORK), read_profile("local"))
LABELS = [f"class {i}" for i in range(SPACE.num_classes)]


def files(runtime="onnxruntime", batch=1):
    found = {"infer.py": program(runtime), "model.onnx": MODEL}
    facts = preprocessing(HOW, batch).to_json()
    return found | {
        "preprocessing.json": json.dumps(facts).encode(),
        "labels.json": json.dumps(LABELS).encode(),
    }


def png(image):
    content = io.BytesIO()
    Image.fromarray(image.squeeze()).save(content, "png")
    return content.getvalue()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_it_answers_what_the_model_answers(runtime):
    pytest.importorskip(runtime)
    images = {f"{h}.png": noise_image(h, w, CHANNELS) for h, w in ((SIDE, SIDE), (30, 70), (71, 31))}
    expected = run_onnx(MODEL, [np.stack([network_input(image, HOW) for image in images.values()])]).argmax(1)
    said = smoke_run(files(runtime), {name: png(image) for name, image in images.items()})
    assert said == [LABELS[answer] for answer in expected]


def test_it_needs_none_of_our_packages():
    broken = files() | {"infer.py": b"import torch"}
    with pytest.raises(GateFailed, match=r"only the runtime.*torch"):
        smoke_run(broken, {"noise.png": png(noise_image(SIDE, SIDE, CHANNELS))})
    assert {"torch", "ofa_deploy"} <= set(REFUSED)


def test_the_program_is_the_source_that_training_uses():
    text = program("onnxruntime").decode()
    assert "ofa_deploy" not in text.replace("``", "")
    assert "def framed(" in text
    assert "def upright(" in text


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_images_of_the_network_s_own_size_go_into_the_graph(kind):
    image = noise_image(SIDE, SIDE, CHANNELS)
    given = image[None] if kind == "uint8" else (image / 255).astype(np.float32)[None]
    session = onnxruntime.InferenceSession(onnx_bytes(embed(MODEL, HOW, kind)))
    seen = ((image / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    assert np.allclose(session.run(None, {"input": given})[0], run_onnx(MODEL, [seen]), atol=1e-4)


def test_the_file_says_how_images_are_prepared_for_it():
    props = {
        one.key: json.loads(one.value) for one in onnx.load_from_string(described(MODEL, HOW, LABELS)).metadata_props
    }
    assert props["ofa_deploy.preprocessing"] == HOW
    assert props["ofa_deploy.labels"] == LABELS
    assert any("20 pixels" in step for step in props["ofa_deploy.preprocessing_steps"])
    assert np.array_equal(
        run_onnx(described(MODEL, HOW, LABELS), [np.ones((1, CHANNELS, SIDE, SIDE), np.float32)]),
        run_onnx(MODEL, [np.ones((1, CHANNELS, SIDE, SIDE), np.float32)]),
    )


def test_export_writes_a_file_that_takes_any_size(ofa_deploy, tmp_path):
    (tmp_path / "arch.json").write_text(json.dumps(SPACE.smallest.to_json()))
    words = ("export", "--arch", "arch.json", "--random-weights", "--json", "-o", "model.onnx")
    plain = ofa_deploy(*words, cwd=tmp_path)
    how = json.loads(plain.stdout)["preprocessing"]
    network = (tmp_path / "model.onnx").read_bytes()
    done = ofa_deploy(*words, "--with-preprocessing", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["takes"]) == (0, "any size"), done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for height, width in ((30, 70), (90, 31)):
        image = np.tile(np.arange(width, dtype=np.uint8)[None, :, None], (height, 1, CHANNELS))
        expected = run_onnx(network, [network_input(image, how)[None]])
        assert np.allclose(session.run(None, {"input": image[None]})[0], expected, atol=0.05)


def test_where_the_runtime_cannot_resize_it_takes_the_network_s_own_size(ofa_deploy, tmp_path):
    (tmp_path / "arch.json").write_text(json.dumps(SPACE.smallest.to_json()))
    words = ("export", "--arch", "arch.json", "--random-weights", "--target", "jetson_nano", "--with-preprocessing")
    done = ofa_deploy(*words, "--json", "-o", "model.onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["takes"] in ("uint8", "float32")
    (node,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()
    assert node.shape[1:] == [SIDE, SIDE, CHANNELS]
