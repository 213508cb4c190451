"""All subnets of a space in one set of weights (Once-for-All, Cai et al., ICLR 2020, §3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, product
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.blocks import Block, OpSpec
from ofa_deploy.blocks.groups import Group, channel_groups
from ofa_deploy.space import Arch, SearchSpace, elastic_kernels
from ofa_deploy.supernet.execute import BlockModule, run_block
from ofa_deploy.supernet.subnet import Subnet


class Supernet(nn.Module):
    """The largest subnet's modules, and one kernel transform per depthwise and pair of neighbouring kernel sizes.

    A subnet uses the leading blocks of every stage, the leading channels of every layer, and the centre of every
    depthwise kernel, multiplied by the transforms on the way to its size. Which subnet runs is an argument: nothing
    is switched, so threads may run different subnets at once.

    Attributes:
        space: what can be extracted.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        network = space.whole
        self._whole = dict(zip(network.names, network.ops, strict=True))
        for name, op in self._whole.items():
            self.add_module(name, BlockModule(op.block))
        self._sizes = {block: elastic_kernels(space, block) for block in space.blocks}
        for block, layers in self._sizes.items():
            for layer, sizes in layers.items():
                owner, prefix = _transform_place(layer)
                for large, small in pairwise(sizes):
                    transform = nn.Parameter(torch.eye(small * small))
                    place = self.get_submodule(f"{block}.{owner}".removesuffix("."))
                    place.register_parameter(f"{prefix}transform_{large}to{small}", transform)

    def forward(self, x: Tensor, arch: Arch) -> Tensor:
        """Run one subnet.

        In training mode batch norm uses the batch's statistics; in evaluation mode the leading part of the running
        statistics, which fit a subnet only after recalibration (``training.specialise``). Neither mode changes them.

        Args:
            x: images ``[N, channels, resolution, resolution]``.
            arch: the subnet.

        Returns:
            Logits ``[N, classes]``.
        """
        network = self.space.network(arch)
        for name, op in zip(network.names, network.ops, strict=True):
            x = self.run(name, op, x, self.training)
        return x

    def run(self, name: str, op: OpSpec, x: Tensor, training: bool) -> Tensor:
        """Run one block of some subnet, by its name in networks; see ``run_block``."""
        return run_block(op.block, (x,), self._sliced(name, op), training)

    def extract(self, arch: Arch) -> Subnet:
        """A static module with copies of one subnet's weights; in evaluation mode its output is identical."""
        subnet = Subnet(self.space.network(arch))
        with torch.no_grad():
            state = {
                f"{name}.{part}": value.clone()
                for name, op in zip(subnet.network.names, subnet.network.ops, strict=True)
                for part, value in self._sliced(name, op).items()
            }
        subnet.load_state_dict(state, strict=False)
        return subnet.train(self.training)

    @torch.no_grad()
    def sort_channels(self, trained: SearchSpace | None = None) -> None:
        """Reorder the channels inside of every stage's blocks, the most important first.

        Importance is the sum of the absolute weights that read a channel last: the projection's for expanded channels,
        the expansion's for squeezed ones (Once-for-All §3.3, elastic width). Channels whose order a block's input
        decides keep it: in a whole block, or in the part of it that trained subnets use so, without an expansion. Heads
        of attention move as a whole.

        Args:
            trained: a part of the space whose subnets keep their function, but for rounding: channels move only between
                the widths that its subnets have. Without it, the largest subnet alone does.
        """
        for name in self._sizes:
            module = cast(BlockModule, self.get_submodule(name))
            variants = _trained_blocks(trained, name) if trained is not None else []
            for group in channel_groups(module.block):
                if group.outer:
                    continue
                there = [found for block in variants for found in _same_group(block, group)]
                fixed = max((size for size, outer in there if outer), default=0)
                *_, (reader, _) = group.readers
                order = _order(_magnitude(_tensor(module, reader)), {size for size, _ in there}, fixed)
                for weight, dim in group.axes:
                    value = _tensor(module, weight)
                    value.copy_(value.index_select(dim, order))
            self._sort_heads(name, trained)

    def _sort_heads(self, name: str, trained: SearchSpace | None) -> None:
        """Reorder the heads of a block's attention, where their number is a choice: the most important first."""
        module, op = self.get_submodule(name), self._whole[name]
        stage, _, _ = self.space.blocks[name]
        axes = op.definition.head_axes(op)
        if not axes or len(self.space.stages[stage].heads) < 2:
            return
        reader = next(_tensor(module, part) for part, axis in axes.items() if axis == 1)
        importance = _magnitude(reader).view(op.heads, op.key_width).sum(1)
        order = _order(importance, trained.stages[stage].heads if trained else ())
        for part, axis in axes.items():
            value = _tensor(module, part)
            heads = value.unflatten(axis, (op.heads, op.key_width))
            value.copy_(heads.index_select(axis, order).flatten(axis, axis + 1))

    def _sliced(self, name: str, op: OpSpec) -> dict[str, Tensor]:
        """A subnet's share of a block's weights: views, copies of what is not in one piece, or results of the kernel
        transforms, that carry gradients. Narrower heads use the first channels of every head."""
        module, whole, sliced = self.get_submodule(name), self._whole[name], dict[str, Tensor]()
        narrower = op.definition.head_axes(op) if op.key_width < whole.key_width else {}
        for part, shape in op.block.weight_shapes.items():
            value = _tensor(module, part)
            if part in narrower:
                each = value.unflatten(narrower[part], (whole.heads, whole.key_width))
                value = each.narrow(narrower[part] + 1, 0, op.key_width).flatten(narrower[part], narrower[part] + 1)
            if value.dim() == 4 and value.shape[-1] != shape[-1]:
                sliced[part] = self._kernel(
                    name, part.removesuffix(".weight"), value[: shape[0], : shape[1]], shape[-1]
                )
            else:
                sliced[part] = value[tuple(map(slice, shape))]
        return sliced

    def _kernel(self, name: str, layer: str, weight: Tensor, kernel: int) -> Tensor:
        """``[out, in, K, K] -> [out, in, k, k]``: centre crop and transform, one kernel size after the other."""
        owner, prefix = _transform_place(layer)
        place = self.get_submodule(f"{name}.{owner}".removesuffix("."))
        shape = weight.shape[:2]
        for large, small in pairwise(self._sizes[name][layer]):
            if small < kernel:
                break
            edge = (large - small) // 2
            centre = weight[:, :, edge : edge + small, edge : edge + small].reshape(-1, small * small)
            transform = getattr(place, f"{prefix}transform_{large}to{small}")
            weight = F.linear(centre, transform).view(*shape, small, small)
        return weight


def _transform_place(layer: str) -> tuple[str, str]:
    """Where the kernel transforms of a convolution are stored: the module, and how their names begin."""
    owner, _, last = layer.rpartition(".")
    return owner, "" if last == "conv" else f"{last}_"


def _tensor(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer, by its dotted name."""
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf)


def _trained_blocks(space: SearchSpace, name: str) -> list[Block]:
    """The block of that name in the subnets of a space, for every number of channels that it has there; none where the
    space lacks that kind of block."""
    if name not in space.blocks:
        return []
    stage, position, kind = space.blocks[name]
    spec, resolution = space.stages[stage], max(space.resolutions)
    channels = [one.all_widths if abs(s - stage) < 2 else (one.width,) for s, one in enumerate(space.stages)]
    size = product(space.widths, spec.expands, product(*channels))
    attention = [*product(*spec.attention_choices.values())]
    return [
        space.block(stage, position, resolution, width, max(spec.kernels), expand, widths, kind, *heads).block
        for width, expand, widths in size
        for heads in attention
    ]


def _same_group(block: Block, group: Group) -> list[tuple[int, bool]]:
    """In a narrower variant of a block, the group of the same channels: how many it has, and whether their order is
    that of the input."""
    axes = set(group.axes)
    return [(found.size, found.outer) for found in channel_groups(block) if axes & set(found.axes)]


def _magnitude(weight: Tensor) -> Tensor:
    """How much each input channel of a convolution ``weight[out, in, 1, 1]`` matters."""
    return weight.abs().sum((0, 2, 3))


def _order(magnitude: Tensor, bounds: Iterable[int], fixed: int = 0) -> Tensor:
    """Order by importance: what is between two bounds stays between them, the most important first; the first ``fixed``
    stay where they are."""
    inner = sorted({0, len(magnitude), *bounds})
    parts = [a + torch.argsort(magnitude[a:b], descending=True, stable=True) for a, b in pairwise(inner)]
    order = torch.cat(parts)
    order[:fixed] = torch.arange(fixed)
    return order
