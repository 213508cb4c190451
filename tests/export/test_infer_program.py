"""The program in a bundle, in a process that has only the runtime; the pre-processing inside the graph."""

import json
from pathlib import Path

import numpy as np
import pytest

from ofa_deploy.errors import GateFailed
from ofa_deploy.export import embed, noise_image, preprocessing, run_onnx, smoke_run, standalone
from ofa_deploy.export.smoke import REFUSED
from ofa_deploy.fleet.targets import read_profile
from ofa_deploy.graph import model_file, onnx_bytes
from ofa_deploy.space import PRESETS, random_weights

SPACE = PRESETS["tiny_16"]
NETWORK = SPACE.network(SPACE.smallest)
SHAPE, MEAN, STD = NETWORK.input_shape, [0.3] * SPACE.in_channels, [0.2] * SPACE.in_channels
MODEL = model_file(NETWORK, random_weights(NETWORK), read_profile("local"))
LABELS = [f"class {i}" for i in range(SPACE.num_classes)]


def files(kind=None, runtime="onnxruntime"):
    how = preprocessing(SHAPE, MEAN, STD, 1, kind)
    program = Path(standalone.__file__).with_name(f"with_{runtime}.py")
    found = {"infer.py": program.read_bytes(), "model.onnx": MODEL}
    found |= {"preprocessing.json": json.dumps(how).encode(), "labels.json": json.dumps(LABELS).encode()}
    return found | ({how["model"]: onnx_bytes(embed(MODEL, MEAN, STD, kind))} if kind else {})


@pytest.mark.parametrize("kind", [None, "uint8", "float32"])
def test_it_answers_what_the_model_answers(kind):
    image = noise_image(SHAPE[1], SHAPE[2], SHAPE[0])
    seen = ((image / 255 - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    assert smoke_run(files(kind), image) == LABELS[int(run_onnx(MODEL, [seen]).argmax())]


def test_it_needs_none_of_our_packages():
    broken = files() | {"infer.py": b"import torch"}
    with pytest.raises(GateFailed, match=r"only the runtime.*torch"):
        smoke_run(broken, noise_image(SHAPE[1], SHAPE[2], SHAPE[0]))
    assert {"torch", "ofa_deploy"} <= set(REFUSED)


def test_the_program_is_short():
    assert len(files()["infer.py"].splitlines()) <= 31
