"""The primitives of which blocks are made. Each knows the shape of its output, its weights and its work.

A shape is one image's, without the batch dimension: ``(channels, height, width)``, or ``(features,)`` of a vector.
Weights have torch's layouts: a convolution's ``[out, in / groups, k, k]``, a linear layer's ``[out, in]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One primitive of a block.

    Attributes:
        name: under which its weights are stored, ``NAME.weight``, and its nodes are written; it may be empty where the
            block has nothing else.
        inputs: places of the layers that it reads; -1 is the block's first input, -2 its second one.
    """

    name: str
    inputs: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        """Shape of the output; that of the first input, if a primitive does not say otherwise."""
        return inputs[0]

    def weights(self, *inputs: Shape) -> dict[str, Shape]:
        """Shapes of its weights, by the last part of their names."""
        return {}

    def macs(self, *inputs: Shape) -> int:
        """Multiply-accumulates for one image."""
        return 0


@dataclass(frozen=True)
class Conv(Layer):
    """A convolution, zero-padded by half of its (odd) kernel.

    Attributes:
        out: channels of the output.
        same: whether it is padded as TensorFlow's ``SAME`` is: with a stride that may be less above and on the left
            than below and on the right, so that as few zeros as possible are read.
        elastic: whether a smaller kernel is the centre of a larger one, multiplied by a kernel transform
            (Once-for-All, Cai et al., ICLR 2020, §3.3).
        identity: whether it starts as the identity, so that subnets with and without it begin as nearly the same.
    """

    out: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    dilation: int = 1
    bias: bool = False
    elastic: bool = False
    identity: bool = False
    same: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        _, h, w = inputs[0]
        return self.out, (h - 1) // self.stride + 1, (w - 1) // self.stride + 1

    def weights(self, *inputs: Shape) -> dict[str, Shape]:
        kernel = {"weight": (self.out, inputs[0][0] // self.groups, self.kernel, self.kernel)}
        return kernel | ({"bias": (self.out,)} if self.bias else {})

    def macs(self, *inputs: Shape) -> int:
        return prod(self.shape(*inputs)) * inputs[0][0] // self.groups * self.kernel**2

    @property
    def depthwise(self) -> bool:
        """Whether every channel has a kernel of its own."""
        return self.groups > 1 and self.groups == self.out

    @property
    def half(self) -> int:
        """Half of the kernel: with that many zeros on each side, an output has the size of its input."""
        return self.dilation * (self.kernel // 2)

    def pads(self, source: Shape) -> tuple[int, int, int, int]:
        """Zeros above, on the left, below and on the right of an input of that shape."""
        if not self.same:
            return self.half, self.half, self.half, self.half
        (top, bottom), (left, right) = map(self._split, source[1:])
        return top, left, bottom, right

    def _split(self, side: int) -> tuple[int, int]:
        """Of the zeros that ``SAME`` adds to a side, those before and those after it."""
        end = (side - 1) // self.stride * self.stride + self.dilation * (self.kernel - 1) + 1
        total = max(end - side, 0)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation over channels; ``eps`` is added to the variance."""

    eps: float = 1e-5

    def weights(self, *inputs: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (inputs[0][0],))


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Normalisation over the channels of each place (Ba, Kiros & Hinton, 2016), as ConvNeXt and ViT have it; ``eps`` is
    added to the variance."""

    eps: float = 1e-6

    def weights(self, *inputs: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("weight", "bias"), (inputs[0][0],))


@dataclass(frozen=True)
class Linear(Layer):
    """A linear layer over the last dimension.

    Attributes:
        out: features of the output.
        small: whether it starts with small weights, as the last layer of a classifier does.
    """

    out: int
    bias: bool = True
    small: bool = False

    def shape(self, *inputs: Shape) -> Shape:
        return *inputs[0][:-1], self.out

    def weights(self, *inputs: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, inputs[0][-1])} | ({"bias": (self.out,)} if self.bias else {})

    def macs(self, *inputs: Shape) -> int:
        return prod(inputs[0]) * self.out


@dataclass(frozen=True)
class Activation(Layer):
    """An element-wise function: ``relu``, ``relu6``, ``hswish``, ``silu``, ``gelu``, ``sigmoid`` or ``hsigmoid``."""

    function: str


@dataclass(frozen=True)
class Add(Layer):
    """The sum of two tensors of one shape."""


@dataclass(frozen=True)
class Multiply(Layer):
    """The product of a tensor and another, which may have one value a channel."""


@dataclass(frozen=True)
class Concat(Layer):
    """Tensors with their channels side by side."""

    def shape(self, *inputs: Shape) -> Shape:
        return sum(shape[0] for shape in inputs), *inputs[0][1:]


@dataclass(frozen=True)
class Slice(Layer):
    """The channels from ``first`` on, without ``end`` and those after it."""

    first: int
    end: int

    def shape(self, *inputs: Shape) -> Shape:
        return self.end - self.first, *inputs[0][1:]


@dataclass(frozen=True)
class Pool(Layer):
    """Average or maximum pooling, padded by half of an odd kernel; one of 2 pads the end of an odd height or width.
    Padding counts in no mean."""

    how: str
    kernel: int
    stride: int

    def shape(self, *inputs: Shape) -> Shape:
        channels, h, w = inputs[0]
        return channels, (h - 1) // self.stride + 1, (w - 1) // self.stride + 1


@dataclass(frozen=True)
class GlobalPool(Layer):
    """The mean of every channel: ``(c, h, w) -> (c, 1, 1)``."""

    def shape(self, *inputs: Shape) -> Shape:
        return inputs[0][0], 1, 1


@dataclass(frozen=True)
class Flatten(Layer):
    """All values as one vector."""

    def shape(self, *inputs: Shape) -> Shape:
        return (prod(inputs[0]),)


@dataclass(frozen=True)
class Reshape(Layer):
    """The same values, in the same order, in another shape."""

    to: Shape

    def shape(self, *inputs: Shape) -> Shape:
        return self.to


@dataclass(frozen=True)
class Permute(Layer):
    """Dimensions in another order: ``order`` has the place of each in the input, without the batch dimension."""

    order: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        return tuple(inputs[0][place] for place in self.order)


@dataclass(frozen=True)
class MatMul(Layer):
    """Products of matrices ``[n, a, b] · [n, b, c] -> [n, a, c]``, times ``scale``."""

    scale: float = 1.0

    def shape(self, *inputs: Shape) -> Shape:
        return *inputs[0][:-1], inputs[1][-1]

    def macs(self, *inputs: Shape) -> int:
        return prod(inputs[0]) * inputs[1][-1]


@dataclass(frozen=True)
class Softmax(Layer):
    """Exponentials as shares of their sum, over the last dimension."""


@dataclass(frozen=True)
class Shift(Layer):
    """A tensor without its first row and column, so that a stride of 2 reads its odd places.

    Its shape counts as unchanged, as if a row and a column of zeros followed: a convolution of stride 2 writes as much
    of an even height and width either way.
    """


@dataclass(frozen=True)
class Layout(Layer):
    """The memory format that all tensors after it have; it changes no value. It reads a tensor and the images.

    In training that is channels last: the gradients of depthwise convolutions are 2 to 6 times faster so on a CPU.
    """


def read(layer: Layer, inputs: Sequence[Shape], outputs: Sequence[Shape]) -> list[Shape]:
    """What a layer reads, given a block's inputs and what the layers before it write."""
    return [inputs[-1 - place] if place < 0 else outputs[place] for place in layer.inputs]
