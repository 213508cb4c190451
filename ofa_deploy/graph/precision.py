"""A written graph in the precision of its target: fp16 inside with fp32 inputs and outputs, or int8 by QDQ nodes.

Both conversions are ONNX Runtime's own tools. Where a device's builder makes fp16 of an fp32 file, the file stays fp32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ofa_deploy.blocks import Network
from ofa_deploy.config import TargetProfile
from ofa_deploy.graph.rules import check_graph
from ofa_deploy.graph.writer import onnx_bytes, write_onnx

CALIBRATION_IMAGES = 128  # of the training split: always the same ones
NOISE = 4  # random inputs that a block with random weights is calibrated on: only its latency matters
# What int8 leaves as it is: attention, norms and GELU. Their values are far from evenly spread, and TensorRT multiplies
# two computed matrices in floating point only (onnx-tensorrt, docs/operators.md, MatMul).
FLOAT_OPS = (
    *("BatchNormalization", "Div", "Erf", "LayerNormalization", "MatMul", "ReduceMean", "Reshape", "Softmax", "Sqrt"),
    *("Sub", "Transpose"),
)
BUILDERS = ("tensorrt", "trtexec")  # take symmetric int8 only, and make fp16 of fp32 themselves


def model_file(
    network: Network,
    weights: Mapping[str, np.ndarray],
    target: TargetProfile,
    images: np.ndarray | None = None,
) -> bytes:
    """The file that a target runs: written, converted to its precision, and checked by its rules.

    Args:
        images: ``float32[N, C, R, R]`` to calibrate int8 with; noise by default.

    Raises:
        UsageError: the graph breaks a rule of the target's.
    """
    model = write_onnx(network, weights, target)
    if target.precision == "fp16" and target.fp16_in_graph:
        model = to_fp16(model)
    elif target.precision == "int8":
        if images is None:
            images = _noise(network)
        model = to_int8(model, images, symmetric=target.provider == "TensorRT" or target.runtime in BUILDERS)
    else:
        return onnx_bytes(model)
    check_graph(model, target)
    return onnx_bytes(model)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with fp16 weights and values between fp32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    halved = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    halved.topological_sort(is_deterministic=True)  # the converter appends its casts at the end
    return halved.model


def to_int8(model: onnx.ModelProto, images: np.ndarray, symmetric: bool = False) -> onnx.ModelProto:
    """The graph with QDQ nodes: int8 weights with a scale per channel, int8 values with ranges seen on ``images``.

    Args:
        symmetric: whether zero points are all zero and biases stay fp32, as TensorRT wants them.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    sides = model.graph.input[0].type.tensor_type.shape.dim
    reader = _Reader(images, sides[0].dim_value)
    logger = logging.getLogger()
    before, quiet = logger.level, logging.NullHandler()
    logger.setLevel(logging.ERROR)  # its advice to fuse first: nothing is left to fuse
    logger.addHandler(quiet)  # without any, it would give the whole program one that prints
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "int8.onnx"
            quantize_static(
                model,
                file,
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_floating(model),
                extra_options={"ActivationSymmetric": symmetric, "QuantizeBias": not symmetric},
            )
            found = onnx.load(file)
    finally:
        logger.setLevel(before)
        logger.removeHandler(quiet)
    found.ir_version = model.ir_version
    del found.metadata_props[:]
    return found


def _floating(model: onnx.ModelProto) -> list[str]:
    """Nodes that compute in floating point: those of ``FLOAT_OPS``, and those that read a single number."""
    numbers = {constant.name for constant in model.graph.initializer if not constant.dims}
    binary = ("Add", "Mul")
    return [
        node.name
        for node in model.graph.node
        if node.op_type in FLOAT_OPS or (node.op_type in binary and numbers & set(node.input))
    ]


class _Reader:
    """Calibration inputs as ONNX Runtime's calibrator asks for them."""

    def __init__(self, images: np.ndarray, batch: int) -> None:
        self._batches: Iterator[np.ndarray] = iter(_batches(images, batch))

    def get_next(self) -> dict[str, Any] | None:
        """The next input; None after the last."""
        images = next(self._batches, None)
        return None if images is None else {"input": images}

    def __iter__(self) -> _Reader:
        return self

    def __next__(self) -> dict[str, Any]:
        found = self.get_next()
        if found is None:
            raise StopIteration
        return found


def _batches(images: np.ndarray, size: int) -> Sequence[np.ndarray]:
    """Images ``size`` at a time; the first ones again where the last batch is not full."""
    full = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))
    return np.split(full.astype(np.float32), len(full) // size)


def _noise(network: Network) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((NOISE, *network.input_shape)).astype(np.float32)
