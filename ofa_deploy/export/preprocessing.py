"""What happens to an image before the network sees it: as facts for a program, in words, and as nodes of the graph."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from ofa_deploy.documents.preprocessing_document import Embedded, Framing, Preprocessing
from ofa_deploy.pixels import LONGEST

PREFIX = "preprocessing."  # how names of nodes and constants begin that are no part of the network
METADATA = "ofa_deploy."  # how the keys of an ONNX file's metadata begin
EMBEDDED = "model_with_preprocessing.onnx"  # the file that takes images as they are read
RESIZE_OPSET = 18  # the first one whose Resize is antialiased
Kind = Literal["any size", "uint8", "float32"]


def preprocessing(how: Framing, batch: int, embedded: Kind | None = None) -> Preprocessing:
    """The facts that a program needs to feed a model.

    Args:
        embedded: what the model takes, NHWC, that has the pre-processing inside; None where there is no such model.
    """
    return Preprocessing(
        schema=2,
        model="model.onnx",
        input="input",
        type="float32",
        layout="NCHW",
        batch=batch,
        range=[0, 1],
        normalised_by="the program",
        **how,
        steps=steps(how),
        embedded=embedded and _embedded(how, batch, embedded),
    )


def steps(how: Framing) -> list[str]:
    """The pre-processing in words, a step each."""
    said = ["decode the file, and turn the image as its EXIF orientation says"]
    said += [f"convert it to {how['mode']} with 8 bits a channel; divide 16-bit grey levels by 257; drop transparency"]
    if how["shorter_side"]:
        size = f"{how['shorter_side']} pixels"
        said += [f"cut off the ends where the longer side is more than {LONGEST} times the shorter one"]
        said += [f"resize it until the shorter side has {size} (Pillow's bilinear, antialiased, in 8 bits)"]
        said += [f"cut out the {how['crop']} × {how['crop']} pixels in its centre"]
    height, width = how["height"], how["width"]
    if (how["crop"], how["crop"]) != (height, width):
        said += [f"resize it to {height} × {width} pixels (height × width; bilinear, antialiased, in floating point)"]
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (how["mean"], how["std"]))
    return [*said, f"divide by 255, subtract the mean ({mean}), divide by the standard deviation ({std}), per channel"]


def _embedded(how: Framing, batch: int, kind: Kind) -> Embedded:
    free = kind == "any size"
    return Embedded(
        model=EMBEDDED,
        input="input",
        type="float32" if kind == "float32" else "uint8",
        layout="NHWC",
        batch=batch,
        range=[0, 1] if kind == "float32" else [0, 255],
        mode=how["mode"],
        height=None if free else how["height"],
        width=None if free else how["width"],
        left_to_the_program=steps(how)[: 2 if free else -1],
    )


def described(model: bytes, how: Framing, labels: Sequence[str]) -> bytes:
    """An ONNX file with its pre-processing and the names of its classes in its metadata."""
    made = onnx.load_from_string(model)
    found = {"preprocessing": dict(how), "preprocessing_steps": steps(how), "labels": list(labels)}
    helper.set_model_props(made, {METADATA + name: json.dumps(value) for name, value in found.items()})
    return made.SerializeToString(deterministic=True)


def embed(model: bytes, how: Framing, kind: Kind) -> onnx.ModelProto:
    """A model that takes images as they are read.

    Args:
        kind: ``uint8`` or ``float32`` (from 0 to 1) are images of the network's own size, NHWC; ``any size`` is
            ``uint8[N, H, W, C]`` of any height and width, resized and cropped in the graph, which is then at least of
            opset 18.
    """
    made = onnx.load_from_string(model)
    if kind == "any size":
        if max(entry.version for entry in made.opset_import if entry.domain == "") < RESIZE_OPSET:
            made = version_converter.convert_version(made, RESIZE_OPSET)
        made.ir_version = max(made.ir_version, helper.find_min_ir_version_for(list(made.opset_import)))
    graph, nodes = made.graph, Steps()
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "input":
                node.input[place] = PREFIX + "normalised"
    x = nodes.add("Transpose", "nchw", "input", perm=[0, 3, 1, 2])
    if kind != "float32":
        x = nodes.add("Cast", "float", x, to=TensorProto.FLOAT)
    size: list[int | str] = [how["height"], how["width"]]
    if kind == "any size":
        x, size = _fit(nodes, x, how), ["height", "width"]
    scale = 1.0 if kind == "float32" else 255.0
    centre, std = (np.asarray(values, np.float64) * scale for values in (how["mean"], how["std"]))
    shape = (1, len(centre), 1, 1)
    x = nodes.add("Sub", "centred", x, nodes.constant("mean", centre.astype(np.float32).reshape(shape)))
    nodes.add("Div", "normalised", x, nodes.constant("std", std.astype(np.float32).reshape(shape)))
    old = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes.made, *old])
    element = TensorProto.FLOAT if kind == "float32" else TensorProto.UINT8
    graph.input.append(helper.make_tensor_value_info("input", element, [batch, *size, len(centre)]))
    graph.initializer.extend(nodes.constants)
    return made


class Steps:
    """Nodes one after the other, and the constants that they take."""

    def __init__(self) -> None:
        self.made: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: np.ndarray | Sequence[int]) -> str:
        """A named constant: an array, or integers as int64."""
        array = values if isinstance(values, np.ndarray) else np.array(values, np.int64)
        if all(known.name != PREFIX + name for known in self.constants):
            self.constants.append(numpy_helper.from_array(array, PREFIX + name))
        return PREFIX + name

    def add(self, op: str, name: str, *inputs: str, **attributes: int | str | Sequence[int]) -> str:
        """A node; returns the name of its result."""
        self.made.append(helper.make_node(op, list(inputs), [PREFIX + name], PREFIX + name, **attributes))
        return PREFIX + name


def _fit(nodes: Steps, x: str, how: Framing) -> str:
    """Resize by the shorter side, cut out the centre, resize to the network's input: ``pixels.framed`` as nodes."""
    if how["shorter_side"] and how["crop"]:
        size = _size(nodes, "given", x)
        turned = nodes.add("Gather", "given.turned", size, nodes.constant("turned", [1, 0]))
        most = nodes.add("Mul", "given.most", turned, nodes.constant("longest", [LONGEST]))
        x = _centre(nodes, "within", x, size, nodes.add("Min", "within.wanted", size, most))
        size = _size(nodes, "whole", x)
        shortest = nodes.add("ReduceMin", "whole.shortest", size, keepdims=1)
        grown = nodes.add("Mul", "scaled.grown", size, nodes.constant("side", [how["shorter_side"]]))
        wanted = nodes.add("Div", "scaled.size", grown, shortest)  # of integers: rounded down
        x = nodes.add("Round", "scaled.rounded", _resize(nodes, "scaled", x, wanted))  # Pillow's are bytes
        x = _centre(nodes, "crop", x, wanted, nodes.constant("crop.size", [how["crop"], how["crop"]]))
    if (how["crop"], how["crop"]) != (how["height"], how["width"]):
        x = _resize(nodes, "final", x, nodes.constant("final.size", [how["height"], how["width"]]))
    return x


def _size(nodes: Steps, name: str, x: str) -> str:
    shape = nodes.add("Shape", f"{name}.shape", x)
    return nodes.add("Slice", f"{name}.size", shape, nodes.constant("two", [2]), nodes.constant("four", [4]))


def _resize(nodes: Steps, name: str, x: str, size: str) -> str:
    edges = {"antialias": 1, "exclude_outside": 1}  # as Pillow
    return nodes.add("Resize", name, x, "", "", size, axes=[2, 3], mode="linear", **edges)


def _centre(nodes: Steps, name: str, x: str, size: str, wanted: str) -> str:
    """The centre of an image that is large enough; half a pixel is rounded to an even place, as Python does."""
    around = nodes.add("Cast", f"{name}.around", nodes.add("Sub", f"{name}.rest", size, wanted), to=TensorProto.FLOAT)
    half = nodes.add("Mul", f"{name}.half", around, nodes.constant("half", np.array([0.5], np.float32)))
    start = nodes.add("Cast", f"{name}.start", nodes.add("Round", f"{name}.even", half), to=TensorProto.INT64)
    end = nodes.add("Add", f"{name}.end", start, wanted)
    return nodes.add("Slice", name, x, start, end, nodes.constant("sides", [2, 3]))
