"""What serves a bundle's model without this package: labels, pre-processing, and a short program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODES = {1: "L", 3: "RGB"}  # Pillow's names

INFER = '''"""Classify images:  python infer.py IMAGE…   It needs {package}, NumPy and Pillow."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
HOW = json.loads((HERE / "preprocessing.json").read_text())
LABELS = json.loads((HERE / "labels.json").read_text())


def prepare(path):
    image = Image.open(path).convert(HOW["mode"]).resize((HOW["size"], HOW["size"]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float32).reshape(HOW["size"], HOW["size"], -1) / 255
    return ((pixels - np.float32(HOW["mean"])) / np.float32(HOW["std"])).transpose(2, 0, 1)


{load}

if __name__ == "__main__":
    for path in sys.argv[1:]:
        logits = run(np.repeat(prepare(path)[None], HOW["batch"], 0))[0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        print(f"{{path}}: {{LABELS[logits.argmax()]}} {{shares.max():.3f}}")
'''
ONNXRUNTIME = """def run(images):
    import onnxruntime

    there = onnxruntime.get_available_providers()
    wanted = [name for name in {providers} if name in there]
    session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=wanted)
    return session.run(None, {{"input": images}})[0]
"""
OPENVINO = """def run(images):
    import openvino

    return openvino.Core().compile_model(str(HERE / "model.onnx"), {device!r})([images])[0]
"""
GPU = ("TensorrtExecutionProvider", "CUDAExecutionProvider")
CPU = "CPUExecutionProvider"


def preprocessing(size: int, mean: Sequence[float], std: Sequence[float], batch: int) -> dict[str, Any]:
    """How an image becomes the model's input: read in ``mode``, resized to a square of ``size`` pixels (bilinear, with
    antialiasing when shrinking), scaled to 0…1, less ``mean``, over ``std``, per channel; ``layout`` and ``batch``."""
    return {
        "mode": MODES.get(len(mean), "RGB"),
        "size": size,
        "resize": "bilinear",
        "scale": "1/255",
        "mean": list(mean),
        "std": list(std),
        "layout": "NCHW",
        "dtype": "float32",
        "batch": batch,
    }


def serving_files(how: dict[str, Any], classes: Sequence[str], runtime: str, provider: str) -> dict[str, bytes]:
    """``preprocessing.json``, ``labels.json`` and ``infer.py``.

    Args:
        how: from ``preprocessing``.
        runtime, provider: the target's; what has no runtime of its own for this, such as a Jetson's TensorRT, is served
            by ONNX Runtime with the providers that are there.
    """
    if runtime == "openvino":
        package, load = "OpenVINO", OPENVINO.format(device=provider)
    else:
        gpu = GPU if "tensorrt" in runtime.lower() or runtime == "trtexec" else ()
        wanted = dict.fromkeys([*gpu, *([provider] if provider.endswith("ExecutionProvider") else []), CPU])
        package, load = "ONNX Runtime", ONNXRUNTIME.format(providers=list(wanted))
    return {
        "preprocessing.json": _json(how),
        "labels.json": _json(list(classes)),
        "infer.py": INFER.format(package=package, load=load).encode(),
    }


def with_preprocessing(model: bytes, how: dict[str, Any]) -> bytes:
    """The model with scaling, normalisation and layout inside: it takes ``pixels``, ``float32[batch, size, size,
    channels]`` from 0 to 255, as an image of that size has them. Parsers that lack bytes as an input take floats."""
    graph = onnx.load_from_string(model)
    inner, centre, width = graph.graph.input[0], *(np.array(how[name], np.float32) for name in ("mean", "std"))
    outer = helper.make_tensor_value_info(
        "pixels", TensorProto.FLOAT, [how["batch"], how["size"], how["size"], len(centre)]
    )
    constants = {"pixels_offset": 255 * centre, "pixels_scale": (1 / (255 * width)).astype(np.float32)}
    nodes = [
        helper.make_node("Sub", ["pixels", "pixels_offset"], ["pixels_centred"], name="preprocess/Sub"),
        helper.make_node("Mul", ["pixels_centred", "pixels_scale"], ["pixels_scaled"], name="preprocess/Mul"),
        helper.make_node("Transpose", ["pixels_scaled"], [inner.name], name="preprocess/Transpose", perm=[0, 3, 1, 2]),
    ]
    graph.graph.input.remove(inner)
    graph.graph.input.append(outer)
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    rest = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *rest])
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString(deterministic=True)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
