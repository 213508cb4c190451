"""A block as a graph of layers: what every interpreter reads, whatever kind of block it is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import NewType

from ofa_deploy.blocks import layers
from ofa_deploy.blocks.layers import Layer, Shape, read

Value = NewType("Value", int)  # a tensor of a block: the place of the layer that writes it, or -1, -2 … for an input
INPUT = Value(-1)  # a block's first input


@dataclass(frozen=True)
class Block:
    """A graph of layers. The last layer's output is the block's.

    Attributes:
        inputs: shapes of what it reads.
        layers: in an order in which they can be executed.
    """

    inputs: tuple[Shape, ...]
    layers: tuple[Layer, ...]

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.inputs, self.layers))  # once: interpreters look up what they prepared at every execution

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of every layer's output."""
        found: list[Shape] = []
        for layer in self.layers:
            found.append(layer.shape(*read(layer, self.inputs, found)))
        return tuple(found)

    @property
    def output(self) -> Shape:
        """Shape of its output."""
        return self.shapes[-1]

    def sources(self, layer: Layer) -> list[Shape]:
        """Shapes of what one of its layers reads."""
        return read(layer, self.inputs, self.shapes)

    def shape_of(self, place: int) -> Shape:
        """Shape of a tensor, by its place."""
        return self.inputs[-1 - place] if place < 0 else self.shapes[place]

    @property
    def same(self) -> bool:
        """Whether some convolution has other zeros around its input than half of its kernel on every side."""
        convolutions = (layer for layer in self.layers if isinstance(layer, layers.Conv))
        return any(set(layer.pads(*self.sources(layer))) != {layer.half} for layer in convolutions)

    @cached_property
    def readers(self) -> dict[int, tuple[int, ...]]:
        """For every tensor, by its place, the places of the layers that read it."""
        found: dict[int, list[int]] = {}
        for i, layer in enumerate(self.layers):
            for place in dict.fromkeys(layer.inputs):
                found.setdefault(place, []).append(i)
        return {place: tuple(places) for place, places in found.items()}

    @cached_property
    def weight_shapes(self) -> dict[str, Shape]:
        """Name and shape of every weight, in the order of the layers."""
        return {
            f"{layer.name}.{part}": shape
            for layer in self.layers
            for part, shape in layer.weights(*self.sources(layer)).items()
        }

    @cached_property
    def digest(self) -> str:
        """sha256 of the inputs and layers, but for what no latency depends on: the names, and how weights begin.

        A field at its default is left out, so that a primitive's new field changes no key of before.
        """
        free = ("name", "eps", "elastic", "identity", "small")
        layers = []
        for layer in self.layers:
            defaults = {field.name: field.default for field in fields(layer)}
            told = {k: v for k, v in asdict(layer).items() if k not in free and v != defaults[k]}
            layers.append([type(layer).__name__, told])
        return hashlib.sha256(json.dumps([self.inputs, layers], sort_keys=True).encode()).hexdigest()


class Builder:
    """Writes a block, one layer after the other. Every method appends a layer and returns the tensor that it writes.

    Attributes:
        eps: what batch norm adds to the variance.
        same: whether convolutions are padded as TensorFlow's ``SAME`` is.
    """

    def __init__(self, eps: float = 1e-5, same: bool = False) -> None:
        self.eps, self.same = eps, same
        self._layers: list[Layer] = []

    def block(self, inputs: tuple[Shape, ...]) -> Block:
        """What was written so far."""
        return Block(inputs, tuple(self._layers))

    def _add(self, layer: Layer) -> Value:
        self._layers.append(layer)
        return Value(len(self._layers) - 1)

    def conv(
        self,
        x: Value,
        name: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = False,
        elastic: bool = False,
        identity: bool = False,
    ) -> Value:
        """A convolution."""
        same = self.same and stride > 1  # without a stride both paddings are half of the kernel
        return self._add(layers.Conv(name, (x,), out, kernel, stride, groups, dilation, bias, elastic, identity, same))

    def batch_norm(self, x: Value, name: str) -> Value:
        """A batch normalisation."""
        return self._add(layers.BatchNorm(name, (x,), self.eps))

    def layer_norm(self, x: Value, name: str) -> Value:
        """A layer normalisation over channels."""
        return self._add(layers.LayerNorm(name, (x,)))

    def conv_bn(
        self,
        x: Value,
        name: str,
        out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: str = "none",
        elastic: bool = False,
        identity: bool = False,
    ) -> Value:
        """A convolution without bias, batch norm and an activation: ``NAMEconv``, ``NAMEbn`` and ``NAMEact``."""
        x = self.conv(x, f"{name}conv", out, kernel, stride, groups, elastic=elastic, identity=identity)
        return self.activation(self.batch_norm(x, f"{name}bn"), f"{name}act", act)

    def linear(self, x: Value, name: str, out: int, bias: bool = True, small: bool = False) -> Value:
        """A linear layer."""
        return self._add(layers.Linear(name, (x,), out, bias, small))

    def activation(self, x: Value, name: str, function: str) -> Value:
        """An activation; ``none`` appends nothing."""
        return x if function == "none" else self._add(layers.Activation(name, (x,), function))

    def add(self, one: Value, other: Value, name: str = "") -> Value:
        """A sum."""
        return self._add(layers.Add(name, (one, other)))

    def multiply(self, one: Value, other: Value, name: str = "") -> Value:
        """A product."""
        return self._add(layers.Multiply(name, (one, other)))

    def concat(self, values: tuple[Value, ...], name: str = "") -> Value:
        """Channels side by side."""
        return self._add(layers.Concat(name, values))

    def slice(self, x: Value, name: str, first: int, end: int) -> Value:
        """The channels from ``first`` on, without ``end`` and those after it."""
        return self._add(layers.Slice(name, (x,), first, end))

    def pool(self, x: Value, how: str, kernel: int, stride: int, name: str = "") -> Value:
        """Average (``avg``) or maximum (``max``) pooling."""
        return self._add(layers.Pool(name, (x,), how, kernel, stride))

    def global_pool(self, x: Value, name: str) -> Value:
        """The mean of every channel, with a height and width of 1."""
        return self._add(layers.GlobalPool(name, (x,)))

    def flatten(self, x: Value, name: str) -> Value:
        """One vector."""
        return self._add(layers.Flatten(name, (x,)))

    def reshape(self, x: Value, to: Shape, name: str) -> Value:
        """The same values in another shape."""
        return self._add(layers.Reshape(name, (x,), to))

    def permute(self, x: Value, order: tuple[int, ...], name: str) -> Value:
        """Dimensions in another order."""
        return self._add(layers.Permute(name, (x,), order))

    def matmul(self, one: Value, other: Value, name: str, scale: float = 1.0) -> Value:
        """Products of matrices, times a number."""
        return self._add(layers.MatMul(name, (one, other), scale))

    def softmax(self, x: Value, name: str) -> Value:
        """Shares, over the last dimension."""
        return self._add(layers.Softmax(name, (x,)))

    def shift(self, x: Value, name: str) -> Value:
        """Without the first row and column."""
        return self._add(layers.Shift(name, (x,)))

    def layout(self, x: Value, images: Value) -> Value:
        """The memory format of all that follows, chosen by that of the images."""
        return self._add(layers.Layout("", (x, images)))

    def squeeze_excitation(self, x: Value, name: str, channels: int, squeezed: int, acts: tuple[str, str]) -> Value:
        """A channel gate (Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, §3): mean, 1×1 reduction, activation,
        1×1 expansion, sigmoid or hard sigmoid; the tensor times its gate."""
        gate = self.conv(self.global_pool(x, f"{name}.pool"), f"{name}.reduce", squeezed, bias=True)
        gate = self.activation(gate, f"{name}.act", acts[0])
        gate = self.activation(self.conv(gate, f"{name}.expand", channels, bias=True), f"{name}.gate", acts[1])
        return self.multiply(x, gate, f"{name}.scale")
