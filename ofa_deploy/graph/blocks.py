"""Every kind of block as ONNX nodes. A block is written by the same function alone and inside a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space import OpSpec
from ofa_deploy.space.weights import SEPARABLE

HARD_SWISH_OPSET = 14  # the first opset with a HardSwish op
HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}  # relu6(x + 3) / 6, as in MobileNetV3; ONNX's own default alpha is 0.2
PLAIN: dict[str, tuple[str, dict[str, float]]] = {  # activations that are one node
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "hsigmoid": ("HardSigmoid", HARD_SIGMOID),
}
GATED = {"silu": "sigmoid", "hswish": "hsigmoid"}  # those that are the product of their input and its gate


class NodeList:
    """The nodes and constants of a graph in the order of execution.

    A node's only output carries the node's name.

    Attributes:
        nodes, constants: what was written so far.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], target: TargetProfile) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._weights = weights
        self._target = target

    def add(self, op_type: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; returns its output."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Append a fp32 constant; returns its name.

        Raises:
            OfaDeployError: a value is NaN or infinite: such a network would answer nonsense.
        """
        with np.errstate(over="ignore"):
            value = np.asarray(value, dtype=np.float32)
        if not np.isfinite(value).all():
            raise OfaDeployError(f"weights of {name} contain NaN or infinity; train or recalibrate the supernet again")
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str) -> str:
        """Append a weight as it is; returns its name."""
        return self.constant(name, self._weights[name])

    def integers(self, name: str, values: list[int]) -> str:
        """Append a constant of whole numbers, as shapes and places need; returns its name."""
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name

    def conv_bn(self, x: str, name: str, eps: float, stride: int = 1, groups: int = 1) -> str:
        """A convolution with its batch norm folded in, in float64: ``w·s`` and ``beta − mean·s``, ``s = gamma/σ``."""
        kernel = self._weights[f"{name}conv.weight"].astype(np.float64)
        scale, bias = self._affine(name, eps)
        return self._folded(x, f"{name}conv", kernel, scale, bias, stride, groups)

    def halves_bn(self, inputs: list[str], name: str, eps: float) -> list[str]:
        """A factorized reduction's two convolutions of stride 2, each with its half of the batch norm folded in."""
        scale, bias = self._affine(name, eps)
        found, first = [], 0
        for x, part in zip(inputs, ("even", "odd"), strict=True):
            kernel = self._weights[f"{name}{part}.weight"].astype(np.float64)
            own, first = slice(first, first + len(kernel)), first + len(kernel)
            found.append(self._folded(x, f"{name}{part}", kernel, scale[own], bias[own], 2, 1))
        return found

    def _affine(self, name: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
        """What a batch norm multiplies with and then adds."""
        gamma, beta, mean, var = (
            self._weights[f"{name}bn.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        with np.errstate(invalid="ignore", over="ignore"):  # ``constant`` reports what is not finite
            scale = gamma / np.sqrt(var + eps)
            return scale, beta - mean * scale

    def _folded(
        self, x: str, name: str, kernel: np.ndarray, scale: np.ndarray, bias: np.ndarray, stride: int, groups: int
    ) -> str:
        with np.errstate(invalid="ignore", over="ignore"):
            folded = {"weight": kernel * scale[:, None, None, None], "bias": bias}
        inputs = [x, *(self.constant(f"{name}.{part}", value) for part, value in folded.items())]
        return self._conv(name, inputs, kernel.shape[2], stride, groups)

    def depthwise(self, x: str, name: str, stride: int, dilation: int) -> str:
        """A depthwise convolution without a bias."""
        shape = self._weights[f"{name}.weight"].shape
        return self._conv(name, [x, self.weight(f"{name}.weight")], shape[2], stride, shape[0], dilation)

    def conv_bias(self, x: str, name: str) -> str:
        """A 1×1 convolution with a bias."""
        return self._conv(name, [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")], 1, 1, 1)

    def _conv(self, name: str, inputs: list[str], kernel: int, stride: int, groups: int, dilation: int = 1) -> str:
        shape: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        shape |= {"pads": [dilation * (kernel // 2)] * 4, "group": groups}
        if dilation > 1:
            shape["dilations"] = [dilation] * 2
        return self.add("Conv", name, inputs, **shape)

    def activation(self, x: str, name: str, act: str) -> str:
        """An activation by its name in ``OpSpec``, a gate's sigmoid, or nothing for ``none``."""
        if act == "none":
            return x
        if act in PLAIN:
            op_type, attributes = PLAIN[act]
            return self.add(op_type, name, [x], **attributes)
        if act == "relu6":
            bounds = [self.constant(f"{name}.{k}", np.array(v)) for k, v in (("min", 0.0), ("max", 6.0))]
            return self.add("Clip", name, [x, *bounds])
        if act not in GATED:
            raise OfaDeployError(f"{name}: no ONNX form of activation {act!r} is known")
        if act == "hswish" and self._target.opset >= HARD_SWISH_OPSET and self._target.allows("HardSwish"):
            return self.add("HardSwish", name, [x])
        return self.add("Mul", name, [x, self.activation(x, f"{name}.gate", GATED[act])])


def _stem(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    x = out.conv_bn(x, f"{name}.", op.eps, op.stride)
    return out.activation(x, f"{name}.act", op.act)


def _mbconv(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    source = x
    if op.start:
        x = out.conv_bn(x, f"{name}.start.", op.eps, op.start_stride, groups=op.cin)
    if op.expands:
        x = out.conv_bn(x, f"{name}.expand.", op.eps)
        x = out.activation(x, f"{name}.expand.act", op.act)
    if op.kernel:
        x = out.conv_bn(x, f"{name}.depthwise.", op.eps, op.stride, groups=op.mid)
        x = out.activation(x, f"{name}.depthwise.act", op.act)
    if op.se:
        x = _squeeze_excitation(out, f"{name}.se", x, op.gate_acts)
    x = out.conv_bn(x, f"{name}.project.", op.eps)
    return out.add("Add", f"{name}.skip", [x, source]) if op.skip else x


def _squeeze_excitation(out: NodeList, name: str, x: str, acts: tuple[str, str]) -> str:
    gate = out.add("GlobalAveragePool", f"{name}.pool", [x])
    gate = out.conv_bias(gate, f"{name}.reduce")
    gate = out.activation(gate, f"{name}.act", acts[0])
    gate = out.conv_bias(gate, f"{name}.expand")
    gate = out.activation(gate, f"{name}.gate", acts[1])
    return out.add("Mul", f"{name}.scale", [x, gate])


def _head(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    x = out.conv_bn(x, f"{name}.", op.eps)
    x = out.activation(x, f"{name}.act", op.act)
    x = out.add("GlobalAveragePool", f"{name}.pool", [x])
    return out.add("Flatten", f"{name}.flatten", [x], axis=1)


def _classifier(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    if op.mid:
        x = out.add("Gemm", f"{name}.mix", [x, out.weight(f"{name}.mix.weight")], transB=1)
        x = out.activation(x, f"{name}.act", op.act)
    linear = [out.weight(f"{name}.linear.weight"), out.weight(f"{name}.linear.bias")]
    return out.add("Gemm", f"{name}.linear", [x, *linear], transB=1)


def _relu_conv(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    return out.conv_bn(out.activation(x, f"{name}.act", op.act), f"{name}.", op.eps)


def _separable(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    dilation, stride = 2 if op.kind == "dil_conv" else 1, op.stride
    for part in SEPARABLE[op.kind]:
        x = out.activation(x, f"{name}.{part}.act", op.act)
        x = out.depthwise(x, f"{name}.{part}.depthwise", stride, dilation)
        x, stride = out.conv_bn(x, f"{name}.{part}.", op.eps), 1
    return x


def _fact_reduce(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    x = out.activation(x, f"{name}.act", op.act)
    starts, ends, axes = (
        out.integers(f"{name}.{part}", values)
        for part, values in (("starts", [1, 1]), ("ends", [op.h, op.w]), ("axes", [2, 3]))
    )
    shifted = out.add("Slice", f"{name}.shift", [x, starts, ends, axes])
    return out.add("Concat", name, out.halves_bn([x, shifted], f"{name}.", op.eps), axis=1)


def _pool(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    window = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": [op.kernel // 2] * 4}
    return out.add({"avg_pool": "AveragePool", "max_pool": "MaxPool"}[op.kind], name, [x], **window)


def _global_pool(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    return out.add("Flatten", f"{name}.flatten", [out.add("GlobalAveragePool", f"{name}.pool", [x])], axis=1)


def _add(out: NodeList, op: OpSpec, name: str, *inputs: str) -> str:
    return out.add("Add", name, list(inputs))


def _concat(out: NodeList, op: OpSpec, name: str, *inputs: str) -> str:
    return out.add("Concat", name, list(inputs), axis=1)


_WRITERS: dict[str, Callable[..., str]] = {
    "stem": _stem,
    "mbconv": _mbconv,
    "uib": _mbconv,
    "head": _head,
    "classifier": _classifier,
    "relu_conv": _relu_conv,
    "sep_conv": _separable,
    "dil_conv": _separable,
    "fact_reduce": _fact_reduce,
    "avg_pool": _pool,
    "max_pool": _pool,
    "global_pool": _global_pool,
    "add": _add,
    "concat": _concat,
}


def write_block(out: NodeList, op: OpSpec, name: str, *inputs: str) -> str:
    """Append one block that reads the tensors ``inputs``; every node and constant starts with ``name``. Returns its
    output.

    Raises:
        OfaDeployError: no way to write this kind of block is known.
    """
    if op.kind not in _WRITERS:
        raise OfaDeployError(f"{name}: no ONNX form of block kind {op.kind!r} is known")
    return _WRITERS[op.kind](out, op, name, *inputs)
