"""What a block does for one image: multiply-accumulates, weights, memory, and the kernels that a runtime launches."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ofa_deploy.blocks import layers
from ofa_deploy.blocks.block import Block
from ofa_deploy.blocks.folding import foldings, folds
from ofa_deploy.blocks.layers import Layer

# What is no kernel of its own: a shift is where the convolution that reads it begins, and a vector or another shape is
# the memory of the tensor that it is made of.
FREE = (layers.Flatten, layers.Layout, layers.Reshape, layers.Shift)
# Activations that runtimes compute where a convolution writes or reads. Any other is a pass of its own.
FUSED = ("relu", "relu6", "sigmoid", "hsigmoid")

# What can write over a tensor that nothing reads any more.
IN_PLACE = (layers.Activation, layers.Add, layers.BatchNorm, layers.Multiply, layers.Softmax)


@dataclass
class Kernel:
    """One launch of a runtime.

    Attributes:
        first: place of the layer that does the work.
        last: place of the last layer that is fused into it, whose output it writes.
    """

    first: int
    last: int


def macs(block: Block) -> int:
    """Multiply-accumulates of convolutions, linear layers and matrix products; batch norm folds away."""
    return sum(layer.macs(*block.sources(layer)) for layer in block.layers)


def depthwise_macs(block: Block) -> int:
    """Those of the depthwise convolutions among them."""
    return sum(layer.macs(*block.sources(layer)) for layer in block.layers if _is_depthwise(layer))


def _is_depthwise(layer: Layer) -> bool:
    return isinstance(layer, layers.Conv) and layer.depthwise


def params(block: Block) -> int:
    """Learned parameters, with batch norm's scale and shift, without its running statistics."""
    return sum(prod(shape) for name, shape in block.weight_shapes.items() if not name.endswith(("mean", "var")))


def shipped_weights(block: Block) -> int:
    """Weights as they ship: batch norm folded away, which leaves its convolution one bias a channel."""
    folded = foldings(block)
    total = 0
    for i, layer in enumerate(block.layers):
        if folds(block, layer):
            continue
        total += sum(map(prod, layer.weights(*block.sources(layer)).values()))
        if i in folded and isinstance(layer, layers.Conv) and not layer.bias:
            total += layer.out
    return total


def values_read(block: Block) -> int:
    """Values that it reads of its inputs, each time that a layer reads them."""
    read = (
        place for layer in block.layers for place in layer.inputs if place < 0 and not isinstance(layer, layers.Layout)
    )
    return sum(prod(block.shape_of(place)) for place in read)


def values_moved(block: Block) -> int:
    """Values that its kernels read and write: its inputs, its output, and twice what they leave for each other."""
    return values_read(block) + 2 * sum(values_inside(block)) + prod(block.output)


def kernels(block: Block) -> list[Kernel]:
    """What a runtime launches, in order."""
    found: list[Kernel] = []
    of: dict[int, Kernel] = {}  # which kernel writes a layer's output; none where it is part of what reads it
    for i, layer in enumerate(block.layers):
        kernel = of.get(layer.inputs[0])
        if isinstance(layer, layers.Add):
            kernel = _adding(block, layer, of)
        elif not (isinstance(layer, FREE) or folds(block, layer) or _fuses(block, layer)):
            kernel = None
        elif kernel is None:
            continue
        if kernel is None:
            kernel = Kernel(i, i)
            found.append(kernel)
        of[i], kernel.last = kernel, i
    return found


def _fuses(block: Block, layer: Layer) -> bool:
    """Whether it is an activation that is computed where its tensor is written or, of a block's input, read."""
    if not isinstance(layer, layers.Activation) or layer.function not in FUSED:
        return False
    (source,) = layer.inputs
    return source < 0 or len(block.readers[source]) == 1


def _adding(block: Block, layer: Layer, of: dict[int, Kernel]) -> Kernel | None:
    """The kernel that computes a sum as it writes: that of its latest operand, where nothing else reads that."""
    latest = max(layer.inputs)
    return of.get(latest) if latest >= 0 and len(block.readers[latest]) == 1 else None


def values_inside(block: Block) -> list[int]:
    """Values in each of the tensors that its kernels leave for each other: of all kernels but the last."""
    return [prod(block.shapes[kernel.last]) for kernel in kernels(block)][:-1]


def peak_activations(block: Block) -> int:
    """Values that must be in memory at once to run it, its weights not counted.

    The largest sum, over the layers that write a tensor of their own, of what is alive then. Activations, sums and
    gates are done in place, as runtimes do that fuse them.
    """
    tensor = _tensors(block)
    last = {tensor[place]: i for i, layer in enumerate(block.layers) for place in layer.inputs}
    alive, most = {-1 - i for i in range(len(block.inputs))}, 0
    for i in range(len(block.layers)):
        alive.add(tensor[i])
        if tensor[i] == i:
            most = max(most, sum(prod(block.shape_of(place)) for place in alive))
        alive = {place for place in alive if last.get(place, -1) > i or place == tensor[i]}
    return most


def _tensors(block: Block) -> dict[int, int]:
    """For every place, the place that first wrote its memory."""
    found = {-1 - i: -1 - i for i in range(len(block.inputs))}
    for i, layer in enumerate(block.layers):
        shared = _written_over(block, i, layer)
        found[i] = i if shared is None else found[shared]
    return found


def _written_over(block: Block, i: int, layer: Layer) -> int | None:
    """Of what a layer reads, that into whose memory it writes; None where it needs memory of its own."""
    if isinstance(layer, FREE):
        return layer.inputs[0]
    if isinstance(layer, IN_PLACE):
        place = max(layer.inputs) if isinstance(layer, layers.Add) else layer.inputs[0]
        never_again = max(block.readers[place]) <= i
        return place if never_again and (place >= 0 or not isinstance(layer, layers.Add)) else None
    return None
