"""All subnets of a space in one set of weights (Once-for-All, Cai et al., ICLR 2020, §3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.space import Arch, OpSpec, SearchSpace, weight_shapes
from ofa_deploy.supernet.blocks import MBConv, make_block
from ofa_deploy.supernet.functional import run_op
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
        network = space.network(space.largest)
        for name, op in zip(network.names, network.ops, strict=True):
            self.add_module(name, make_block(op))
        for stage, position in space.slots:
            for layer in space.stages[stage].depthwise_sizes:
                for large, small in _steps(space, stage, layer):
                    transform = nn.Parameter(torch.eye(small * small))
                    depthwise = self.get_submodule(f"s{stage}b{position}.{layer}")
                    depthwise.register_parameter(_transform_name(large, small), transform)

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
        """Run one block of some subnet, by its name in networks; see ``run_op``."""
        return run_op(op, x, self._sliced(name, op), training)

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
        """Reorder every block's expanded channels, the most important first.

        Importance is the sum of absolute projection weights; squeezed channels are sorted by their expansion's
        (Once-for-All §3.3, elastic width). Where there is no expansion, channels keep their order, which is their
        input's: in a whole block, or in the part of it that trained subnets use so.

        Args:
            trained: a part of the space whose subnets keep their function, but for rounding: channels move only between
                the widths that its subnets have. Without it, the largest subnet alone does.
        """
        for name, block in self.named_children():
            if not isinstance(block, MBConv) or block.expand is None:
                continue
            ops = _trained_blocks(trained, name) if trained is not None else []
            direct = max((op.mid for op in ops if not op.expands), default=0)
            order = _importance(block.project.conv.weight, {op.mid for op in ops}, direct)
            for layer in filter(None, (block.expand, block.depthwise)):
                statistics = [layer.bn.running_mean, layer.bn.running_var]
                _permute([layer.conv.weight, *layer.bn.parameters(), *statistics], order)
            _permute([block.project.conv.weight], order, dim=1)
            if block.se is not None:
                _permute([block.se.expand.weight, block.se.expand.bias], order)
                _permute([block.se.reduce.weight], order, dim=1)
                squeezed = _importance(block.se.expand.weight, {op.se for op in ops})
                _permute([block.se.reduce.weight, block.se.reduce.bias], squeezed)
                _permute([block.se.expand.weight], squeezed, dim=1)

    def _sliced(self, name: str, op: OpSpec) -> dict[str, Tensor]:
        """The op's share of a block's weights: views, or results of the kernel transforms, that carry gradients."""
        block, sliced = self.get_submodule(name), {}
        for part, shape in weight_shapes(op).items():
            owner, _, leaf = part.rpartition(".")
            value = getattr(block.get_submodule(owner), leaf)
            if value.dim() == 4 and value.shape[-1] != shape[-1]:
                sliced[part] = self._kernel(name, owner.removesuffix(".conv"), value[: shape[0]], shape[-1])
            else:
                sliced[part] = value[tuple(map(slice, shape))]
        return sliced

    def _kernel(self, name: str, layer: str, weight: Tensor, kernel: int) -> Tensor:
        """``[C, 1, K, K] -> [C, 1, kernel, kernel]``: centre crop and transform, one kernel size after the other."""
        stage = int(name[1 : name.index("b")])
        depthwise = self.get_submodule(f"{name}.{layer}")
        for large, small in _steps(self.space, stage, layer):
            if small < kernel:
                break
            edge = (large - small) // 2
            centre = weight[:, :, edge : edge + small, edge : edge + small].reshape(-1, small * small)
            weight = F.linear(centre, getattr(depthwise, _transform_name(large, small))).view(-1, 1, small, small)
        return weight


def _steps(space: SearchSpace, stage: int, layer: str) -> list[tuple[int, int]]:
    """Neighbouring kernel sizes of a depthwise layer of a stage's blocks, largest first: ``[(7, 5), (5, 3)]``."""
    return list(pairwise(reversed(space.stages[stage].depthwise_sizes[layer])))


def _transform_name(large: int, small: int) -> str:
    return f"transform_{large}to{small}"


def _trained_blocks(space: SearchSpace, name: str) -> list[OpSpec]:
    """The block of that name in the subnets of a space, for every number of channels that it has there."""
    stage, position = map(int, name[1:].split("b"))
    spec, resolution = space.stages[stage], max(space.resolutions)
    choices = product(space.widths, spec.expands)
    return [space.block(stage, position, resolution, width, max(spec.kernels), expand) for width, expand in choices]


def _importance(weight: Tensor, bounds: Iterable[int], fixed: int = 0) -> Tensor:
    """Order of a convolution's input channels ``weight[out, in, 1, 1]``: those between two bounds stay between them,
    the most important first; the first ``fixed`` stay where they are."""
    magnitude = weight.abs().sum((0, 2, 3))
    inner = sorted({0, len(magnitude), *bounds})
    parts = [a + torch.argsort(magnitude[a:b], descending=True, stable=True) for a, b in pairwise(inner)]
    order = torch.cat(parts)
    order[:fixed] = torch.arange(fixed)
    return order


def _permute(tensors: Iterable[Tensor | None], order: Tensor, dim: int = 0) -> None:
    for tensor in tensors:
        assert tensor is not None  # noqa: S101 - torch's types call every bias and statistic optional
        tensor.copy_(tensor.index_select(dim, order))
