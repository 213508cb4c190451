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

    def conv_bn(self, x: str, name: str, eps: float, stride: int = 1, groups: int = 1) -> str:
        """A convolution with its batch norm folded in, in float64: ``w·s`` and ``beta − mean·s``, ``s = gamma/σ``."""
        kernel = self._weights[f"{name}conv.weight"].astype(np.float64)
        gamma, beta, mean, var = (
            self._weights[f"{name}bn.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        with np.errstate(invalid="ignore", over="ignore"):  # ``constant`` reports what is not finite
            scale = gamma / np.sqrt(var + eps)
            folded = {"weight": kernel * scale[:, None, None, None], "bias": beta - mean * scale}
        inputs = [x, *(self.constant(f"{name}conv.{part}", value) for part, value in folded.items())]
        return self._conv(f"{name}conv", inputs, kernel.shape[2], stride, groups)

    def conv_bias(self, x: str, name: str) -> str:
        """A 1×1 convolution with a bias."""
        return self._conv(name, [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")], 1, 1, 1)

    def _conv(self, name: str, inputs: list[str], kernel: int, stride: int, groups: int) -> str:
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": groups}
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
        if act == "hswish" and self._target.opset >= HARD_SWISH_OPSET and "HardSwish" not in self._target.forbidden_ops:
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


_WRITERS: dict[str, Callable[[NodeList, OpSpec, str, str], str]] = {
    "stem": _stem,
    "mbconv": _mbconv,
    "uib": _mbconv,
    "head": _head,
    "classifier": _classifier,
}


def write_block(out: NodeList, op: OpSpec, name: str, x: str) -> str:
    """Append one block that reads tensor ``x``; every node and constant starts with ``name``. Returns its output.

    Raises:
        OfaDeployError: no way to write this kind of block is known.
    """
    if op.kind not in _WRITERS:
        raise OfaDeployError(f"{name}: no ONNX form of block kind {op.kind!r} is known")
    return _WRITERS[op.kind](out, op, name, x)
