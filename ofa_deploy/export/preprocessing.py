"""What happens to an image before the network sees it: as facts for a program, and as nodes of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names, by the number of channels
PREFIX = "preprocessing."  # how names of nodes and constants begin that are no part of the network
Kind = Literal["uint8", "float32"]


def preprocessing(
    shape: Sequence[int], mean: Sequence[float], std: Sequence[float], batch: int, embedded: Kind | None = None
) -> dict[str, Any]:
    """The facts that a program needs to feed a model.

    Args:
        shape: channels, height and width of the network's input.
        mean, std: per channel, of values from 0 to 1.
        embedded: None where the program normalises and transposes; else what the graph takes instead, NHWC: bytes, or
            floats from 0 to 1.
    """
    channels, height, width = shape
    return {
        "model": "model_with_preprocessing.onnx" if embedded else "model.onnx",
        "input": "input",
        "type": embedded or "float32",
        "layout": "NHWC" if embedded else "NCHW",
        "batch": batch,
        "mode": MODES.get(channels, str(channels)),
        "height": height,
        "width": width,
        "resize": "bilinear, antialiased, to height × width",
        "range": [0, 255] if embedded == "uint8" else [0, 1],
        "mean": list(mean),
        "std": list(std),
        "normalised_by": "the graph" if embedded else "the program",
    }


def embed(model: bytes, mean: Sequence[float], std: Sequence[float], kind: Kind) -> onnx.ModelProto:
    """A model that takes images as they are read: NHWC, ``uint8`` from 0 to 255 or ``float32`` from 0 to 1."""
    made = onnx.load_from_string(model)
    graph, scale = made.graph, 255.0 if kind == "uint8" else 1.0
    batch, channels, height, width = (side.dim_value for side in graph.input[0].type.tensor_type.shape.dim)
    names = {part: f"{PREFIX}{part}" for part in ("float", "nchw", "mean", "centred", "std", "normalised")}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "input":
                node.input[place] = names["normalised"]
    steps = [
        ("Transpose", "input", "nchw", [], {"perm": [0, 3, 1, 2]}),
        ("Cast", "nchw", "float", [], {"to": TensorProto.FLOAT}),
        ("Sub", "float", "centred", ["mean"], {}),
        ("Div", "centred", "normalised", ["std"], {}),
    ]
    if kind == "float32":
        steps = [steps[0], ("Sub", "nchw", "centred", ["mean"], {}), steps[3]]
    nodes = [
        helper.make_node(op, [names.get(source, source), *map(names.get, more)], [names[result]], names[result], **how)
        for op, source, result, more, how in steps
    ]
    old = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *old])
    element = TensorProto.UINT8 if kind == "uint8" else TensorProto.FLOAT
    graph.input.append(helper.make_tensor_value_info("input", element, [batch, height, width, channels]))
    for part, values in (("mean", mean), ("std", std)):
        array = (np.asarray(values, np.float64) * scale).astype(np.float32).reshape(1, channels, 1, 1)
        graph.initializer.append(numpy_helper.from_array(array, names[part]))
    return made
