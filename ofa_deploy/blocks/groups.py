"""Channel groups: the axes of weights that a permutation of channels must reorder together.

Found by union-find over a block's layers: what a convolution writes is a group of its own, and sums, products and
whatever works channel by channel tie the groups of what they read to each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ofa_deploy.blocks import layers
from ofa_deploy.blocks.block import Block
from ofa_deploy.blocks.layers import Layer

Axis = tuple[str, int]  # a weight's name, and its dimension
# What puts channels to other places: which of its channels are whose is not followed any further.
MOVING = (layers.Concat, layers.Flatten, layers.MatMul, layers.Permute, layers.Reshape, layers.Slice, layers.Softmax)


@dataclass
class Group:
    """Channels that can change their order without changing what a block computes.

    Attributes:
        size: how many.
        axes: what must be reordered together.
        readers: of these the input axes of convolutions and linear layers that read the channels: the sum of their
            absolute weights says how much a channel matters.
        outer: whether they are the block's input or output, whose order others rely on.
    """

    size: int
    axes: list[Axis] = field(default_factory=list)
    readers: list[Axis] = field(default_factory=list)
    outer: bool = False


def channel_groups(block: Block) -> list[Group]:
    """A block's groups, in the order of their first layers."""
    groups: list[Group] = []
    parents: list[int] = []

    def new(size: int) -> int:
        groups.append(Group(size))
        parents.append(len(parents))
        return parents[-1]

    def find(group: int) -> int:
        while parents[group] != group:
            group = parents[group]
        return group

    of = {-1 - i: new(shape[0]) for i, shape in enumerate(block.inputs)}
    ends = list(of.values())
    for i, layer in enumerate(block.layers):
        source = of[layer.inputs[0]]
        if _mixes(layer):
            of[i] = new(block.shapes[i][0])
        else:
            of[i] = source
            if isinstance(layer, (layers.Add, layers.Multiply)):
                for place in layer.inputs[1:]:
                    parents[find(of[place])] = find(source)
        _write_axes(layer, groups[source], groups[of[i]], block)
        if isinstance(layer, MOVING):
            ends += [of[i], *(of[place] for place in layer.inputs)]
    ends.append(of[len(block.layers) - 1])
    outer = {find(group) for group in ends}
    merged: dict[int, Group] = {}
    for i, group in enumerate(groups):
        root = merged.setdefault(find(i), Group(groups[find(i)].size, outer=find(i) in outer))
        root.axes += group.axes
        root.readers += group.readers
    return list(merged.values())


def _mixes(layer: Layer) -> bool:
    """Whether the channels that it writes are others than those that it reads."""
    return isinstance(layer, (layers.Linear, *MOVING)) or (isinstance(layer, layers.Conv) and not layer.depthwise)


def _write_axes(layer: Layer, source: Group, target: Group, block: Block) -> None:
    if isinstance(layer, (layers.Conv, layers.Linear)):
        if _mixes(layer):
            source.axes.append((f"{layer.name}.weight", 1))
            source.readers.append((f"{layer.name}.weight", 1))
        target.axes.append((f"{layer.name}.weight", 0))
        if layer.bias:
            target.axes.append((f"{layer.name}.bias", 0))
    elif isinstance(layer, (layers.BatchNorm, layers.LayerNorm)):
        target.axes += [(f"{layer.name}.{part}", 0) for part in layer.weights(*block.sources(layer))]
