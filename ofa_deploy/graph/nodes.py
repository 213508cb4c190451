"""Layers as ONNX nodes, a rule for each primitive. A block is written by the same function alone and in a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ofa_deploy.blocks import Block, Layer, Shape, layers
from ofa_deploy.blocks.folding import foldings, folds
from ofa_deploy.config import TargetProfile
from ofa_deploy.errors import OfaDeployError

HARD_SWISH_OPSET = 14  # the first opset with a HardSwish op
HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}  # relu6(x + 3) / 6, as in MobileNetV3; ONNX's own default alpha is 0.2
PLAIN: dict[str, tuple[str, dict[str, float]]] = {  # activations that are one node
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
    "hsigmoid": ("HardSigmoid", HARD_SIGMOID),
}
AXES_AS_INPUT = 18  # the opset from which ReduceMean reads its axes as a tensor
LAYER_NORM_OPSET = 17  # the first opset with a LayerNormalization op
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

    def affine(self, name: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
        """What a batch norm multiplies with and then adds, in float64: ``s = gamma / σ``, ``beta − mean · s``."""
        gamma, beta, mean, var = (
            self._weights[f"{name}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        with np.errstate(invalid="ignore", over="ignore"):  # ``constant`` reports what is not finite
            scale = gamma / np.sqrt(var + eps)
            return scale, beta - mean * scale

    def conv(
        self, x: str, name: str, layer: layers.Conv, source: Shape, affine: tuple[np.ndarray, np.ndarray] | None
    ) -> str:
        """A convolution of what has the shape ``source``; with what a batch norm after it multiplies with and adds
        folded in, in float64."""
        constants = {"weight": self._weights[f"{name}.weight"]}
        if layer.bias:
            constants["bias"] = self._weights[f"{name}.bias"]
        if affine is not None:
            scale, bias = affine
            with np.errstate(invalid="ignore", over="ignore"):
                if layer.bias:
                    bias = bias + constants["bias"].astype(np.float64) * scale
                kernel = constants["weight"].astype(np.float64) * scale[:, None, None, None]
            constants = {"weight": kernel, "bias": bias}
        inputs = [x, *(self.constant(f"{name}.{part}", value) for part, value in constants.items())]
        shape: dict[str, Any] = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
        shape |= {"pads": list(layer.pads(source)), "group": layer.groups}
        if layer.dilation > 1:
            shape["dilations"] = [layer.dilation] * 2
        return self.add("Conv", name, inputs, **shape)

    def activation(self, x: str, name: str, act: str) -> str:
        """An activation by its name."""
        if act in PLAIN:
            op_type, attributes = PLAIN[act]
            return self.add(op_type, name, [x], **attributes)
        if act == "relu6":
            bounds = [self.constant(f"{name}.{k}", np.array(v)) for k, v in (("min", 0.0), ("max", 6.0))]
            return self.add("Clip", name, [x, *bounds])
        if act == "gelu":
            return self._gelu(x, name)
        if act not in GATED:
            raise OfaDeployError(f"{name}: no ONNX form of activation {act!r} is known")
        if act == "hswish" and self._target.opset >= HARD_SWISH_OPSET and self._target.allows("HardSwish"):
            return self.add("HardSwish", name, [x])
        return self.add("Mul", name, [x, self.activation(x, f"{name}.gate", GATED[act])])

    def _gelu(self, x: str, name: str) -> str:
        """``x · (1 + erf(x / √2)) / 2``; a Gelu op is only in opset 20."""
        values = (("sqrt2", 2**0.5), ("one", 1.0), ("half", 0.5))
        root, one, half = (self.constant(f"{name}.{part}", np.array(value)) for part, value in values)
        erf = self.add("Erf", f"{name}.erf", [self.add("Div", f"{name}.scaled", [x, root])])
        gate = self.add("Mul", f"{name}.gate", [self.add("Add", f"{name}.above", [erf, one]), half])
        return self.add("Mul", name, [x, gate])

    def layer_norm(self, x: str, name: str, eps: float) -> str:
        """A layer norm over channels: one op on the last dimension where the target has it, else its parts."""
        scale, shift = (self._weights[f"{name}.{part}"] for part in ("weight", "bias"))
        if self._target.opset >= LAYER_NORM_OPSET and self._target.allows("LayerNormalization"):
            last = self.add("Transpose", f"{name}.last", [x], perm=[0, 2, 3, 1])
            weights = [self.constant(f"{name}.weight", scale), self.constant(f"{name}.bias", shift)]
            y = self.add("LayerNormalization", f"{name}.normal", [last, *weights], axis=-1, epsilon=eps)
            return self.add("Transpose", name, [y], perm=[0, 3, 1, 2])
        apart = self.add("Sub", f"{name}.apart", [x, self._mean(x, f"{name}.mean")])
        var = self._mean(self.add("Mul", f"{name}.square", [apart, apart]), f"{name}.var")
        above = self.add("Add", f"{name}.above", [var, self.constant(f"{name}.eps", np.array(eps))])
        normal = self.add("Div", f"{name}.normal", [apart, self.add("Sqrt", f"{name}.std", [above])])
        weight = self.constant(f"{name}.weight", scale[:, None, None])
        scaled = self.add("Mul", f"{name}.scaled", [normal, weight])
        return self.add("Add", name, [scaled, self.constant(f"{name}.bias", shift[:, None, None])])

    def _mean(self, x: str, name: str) -> str:
        """Over the channels."""
        if self._target.opset >= AXES_AS_INPUT:
            return self.add("ReduceMean", name, [x, self.integers(f"{name}.axes", [1])], keepdims=1)
        return self.add("ReduceMean", name, [x], axes=[1], keepdims=1)

    def cut(
        self, x: str, name: str, starts: list[int], ends: list[int], axes: list[int], within: str | None = None
    ) -> str:
        """A part of a tensor.

        Args:
            within: how the names of the constants begin; by default as the node is called.
        """
        places = (("starts", starts), ("ends", ends), ("axes", axes))
        constants = [self.integers(f"{within or name}.{part}", values) for part, values in places]
        return self.add("Slice", name, [x, *constants])

    def reshape(self, x: str, name: str, to: Shape) -> str:
        """The same values in another shape, the batch first."""
        return self.add("Reshape", name, [x, self.integers(f"{name}.shape", [self._target.batch, *to])])


def write_block(out: NodeList, block: Block, name: str, *inputs: str) -> str:
    """Append one block that reads the tensors ``inputs``; every node and constant starts with ``name``. Returns its
    output.

    Raises:
        OfaDeployError: no way to write one of its layers is known.
    """
    folded = foldings(block)
    values = {-1 - i: x for i, x in enumerate(inputs)}
    for i, layer in enumerate(block.layers):
        read = [values[place] for place in layer.inputs]
        full = f"{name}.{layer.name}" if layer.name else name
        if isinstance(layer, layers.Conv):
            affine = None
            if (folding := folded.get(i)) is not None:
                scale, bias = out.affine(f"{name}.{folding.norm.name}", folding.norm.eps)
                affine = scale[folding.channels], bias[folding.channels]
            values[i] = out.conv(read[0], full, layer, block.sources(layer)[0], affine)
        elif folds(block, layer):
            values[i] = read[0]
        elif (rule := _RULES.get(type(layer))) is not None:
            values[i] = rule(out, layer, full, read, block.sources(layer))
        else:
            raise OfaDeployError(f"{full}: no ONNX form of a {type(layer).__name__} layer is known")
    return values[len(block.layers) - 1]


def _batch_norm(out: NodeList, layer: layers.BatchNorm, name: str, read: list[str], sources: list[Shape]) -> str:
    """One that folds into no convolution."""
    parts = [out.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
    return out.add("BatchNormalization", name, [*read, *parts], epsilon=layer.eps)


def _linear(out: NodeList, layer: layers.Linear, name: str, read: list[str], sources: list[Shape]) -> str:
    weights = [out.weight(f"{name}.{part}") for part in layer.weights(*sources)]
    return out.add("Gemm", name, [*read, *weights], transB=1)


def _pool(out: NodeList, layer: layers.Pool, name: str, read: list[str], sources: list[Shape]) -> str:
    _, h, w = sources[0]
    pads = [layer.kernel // 2] * 4 if layer.kernel % 2 else [0, 0, h % layer.stride, w % layer.stride]
    window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": pads}
    return out.add({"avg": "AveragePool", "max": "MaxPool"}[layer.how], name, read, **window)


def _shift(out: NodeList, layer: layers.Shift, name: str, read: list[str], sources: list[Shape]) -> str:
    _, h, w = sources[0]
    within = name.removesuffix(f".{layer.name}")
    return out.cut(read[0], name, [1, 1], [h, w], [2, 3], within)


def _matmul(out: NodeList, layer: layers.MatMul, name: str, read: list[str], sources: list[Shape]) -> str:
    one, other = read
    if layer.scale != 1:
        one = out.add("Mul", f"{name}.scaled", [one, out.constant(f"{name}.scale", np.array(layer.scale))])
    return out.add("MatMul", name, [one, other])


def _permute(out: NodeList, layer: layers.Permute, name: str, read: list[str], sources: list[Shape]) -> str:
    return out.add("Transpose", name, read, perm=[0, *(1 + place for place in layer.order)])


_RULES: dict[type[Layer], Callable[[NodeList, Any, str, list[str], list[Shape]], str]] = {
    layers.Activation: lambda out, layer, name, read, sources: out.activation(read[0], name, layer.function),
    layers.Add: lambda out, layer, name, read, sources: out.add("Add", name, read),
    layers.BatchNorm: _batch_norm,
    layers.Concat: lambda out, layer, name, read, sources: out.add("Concat", name, read, axis=1),
    layers.Flatten: lambda out, layer, name, read, sources: out.add("Flatten", name, read, axis=1),
    layers.GlobalPool: lambda out, layer, name, read, sources: out.add("GlobalAveragePool", name, read),
    layers.LayerNorm: lambda out, layer, name, read, sources: out.layer_norm(read[0], name, layer.eps),
    layers.Layout: lambda out, layer, name, read, sources: read[0],
    layers.Linear: _linear,
    layers.MatMul: _matmul,
    layers.Multiply: lambda out, layer, name, read, sources: out.add("Mul", name, read),
    layers.Permute: _permute,
    layers.Pool: _pool,
    layers.Reshape: lambda out, layer, name, read, sources: out.reshape(read[0], name, layer.to),
    layers.Shift: _shift,
    layers.Slice: lambda out, layer, name, read, sources: out.cut(read[0], name, [layer.first], [layer.end], [1]),
    layers.Softmax: lambda out, layer, name, read, sources: out.add("Softmax", name, read, axis=-1),
}
