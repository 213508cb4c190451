"""The network that is searched: every edge of a cell is a weighted mixture of all operations (DARTS, Liu et al., ICLR
2019, §2.2), or of a part of the channels (PC-DARTS, Xu et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ofa_deploy.blocks import OpSpec
from ofa_deploy.space import Genotype
from ofa_deploy.space.cells import STEM, reductions
from ofa_deploy.space.genotype import KERNELS, SKIP, Cell
from ofa_deploy.supernet.execute import BlockModule

NONE = "none"
CANDIDATES = (NONE, SKIP, *KERNELS)  # in the order of the columns of the architecture's parameters
KINDS = ("normal", "reduce")


def edge_count(nodes: int) -> int:
    """Edges of a cell before derivation: every node reads the two inputs and all nodes before it."""
    return sum(range(2, nodes + 2))


@dataclass(frozen=True)
class Settings:
    """What a search network is made of.

    Attributes:
        alive: for each kind of cell the operations that are left, ``bool[edges, candidates]``.
        partial: one in so many channels is mixed.
        auxiliary_skip: whether every edge has a second skip connection.
        sigmoid: whether each operation has a weight of its own, instead of a share.
    """

    in_channels: int
    num_classes: int
    resolution: int
    channels: int
    cells: int
    nodes: int
    alive: dict[str, Tensor]
    partial: int = 1
    auxiliary_skip: bool = False
    sigmoid: bool = False


class Zero(nn.Module):
    """Nothing, in the shape of what an edge's operation gives."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``[N, c, h, w] -> [N, c, h / stride, w / stride]``."""
        return x[:, :, :: self.stride, :: self.stride] * 0.0


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


def _unscaled(block: nn.Module) -> nn.Module:
    """A block whose batch norm has no scale of its own, which would undo the weights of the mixture (DARTS, §3.1.1)."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return block


def _through(kind: str, side: int, cin: int, cout: int) -> nn.Module:
    return _unscaled(BlockModule(OpSpec(kind, side, side, cin, 0, cout, 1, 2 if kind == "fact_reduce" else 1).block))


def _candidate(name: str, side: int, channels: int, stride: int) -> nn.Module:
    if name == NONE:
        return Zero(stride)
    if name == SKIP:
        return nn.Identity() if stride == 1 else _through("fact_reduce", side, channels, channels)
    kind, kernel = KERNELS[name]
    block = _unscaled(BlockModule(OpSpec(kind, side, side, channels, 0, channels, kernel, stride).block))
    return nn.Sequential(block, _norm(channels)) if kind.endswith("pool") else block


class MixedEdge(nn.Module):
    """The operations of an edge that are left, on the first ``1 / partial`` of its channels."""

    def __init__(self, settings: Settings, alive: Tensor, side: int, channels: int, stride: int) -> None:
        super().__init__()
        self.partial, self.stride = settings.partial, stride
        self.mixed = channels // settings.partial
        self.columns = alive.nonzero()[:, 0].tolist()
        self.operations = nn.ModuleList(
            _candidate(CANDIDATES[column], side, self.mixed, stride) for column in self.columns
        )
        self.second_skip = _candidate(SKIP, side, self.mixed, stride) if settings.auxiliary_skip else None

    def forward(self, x: Tensor, weights: Tensor, extra: float) -> Tensor:
        """The mixture.

        Args:
            weights: of the candidates, ``[candidates]``.
            extra: weight of the auxiliary skip connection.
        """
        own = x[:, : self.mixed]
        mixed = zip(self.columns, self.operations, strict=True)
        learned = weights.requires_grad  # a fixed weight of 0 needs no computation
        weighted = (weights[column] * run(own) for column, run in mixed if learned or weights[column])
        y = sum(weighted, torch.zeros((), device=x.device))
        if self.second_skip is not None and extra:
            y = y + extra * self.second_skip(own)
        if self.partial == 1:
            return y
        rest = x[:, self.mixed :]
        return _shuffled(torch.cat([y, F.max_pool2d(rest, 2) if self.stride == 2 else rest], 1), self.partial)


def _shuffled(x: Tensor, groups: int) -> Tensor:
    """Deal channels out, so that others are mixed by the next edge."""
    count, channels, h, w = x.shape
    return x.view(count, groups, channels // groups, h, w).transpose(1, 2).reshape(count, channels, h, w)


class MixedCell(nn.Module):
    """A cell with all of its edges."""

    def __init__(
        self,
        settings: Settings,
        kind: str,
        side: int,
        before: tuple[int, int],
        channels: int,
        reduced: bool,
    ) -> None:
        super().__init__()
        self.kind, self.nodes = kind, settings.nodes
        stride, early = (2 if kind == "reduce" else 1), side * (2 if reduced else 1)
        self.pre0 = _through("fact_reduce" if reduced else "relu_conv", early, before[0], channels)
        self.pre1 = _through("relu_conv", side, before[1], channels)
        sources = [source for node in range(settings.nodes) for source in range(node + 2)]
        self.edges = nn.ModuleList(
            MixedEdge(
                settings,
                alive,
                side if source < 2 else side // stride,
                channels,
                stride if source < 2 else 1,
            )
            for source, alive in zip(sources, settings.alive[kind], strict=True)
        )

    def forward(self, before: Tensor, last: Tensor, weights: Tensor, shares: Tensor, extra: float) -> Tensor:
        """The outputs of the two cells before it to its own.

        Args:
            weights: of the operations, ``[edges, candidates]``.
            shares: of the edges, ``[edges]``.
        """
        tensors, edge = [self.pre0(before), self.pre1(last)], 0
        for _ in range(self.nodes):
            total: Tensor | None = None
            for x in tensors:
                if weights.requires_grad or weights[edge].any():
                    y = shares[edge] * self.edges[edge](x, weights[edge], extra)
                    total = y if total is None else total + y
                edge += 1
            assert total is not None  # noqa: S101  a node has two edges at least
            tensors.append(total)
        return torch.cat(tensors[2:], 1)


class SearchNetwork(nn.Module):
    """The network that is searched.

    Attributes:
        alphas: architecture parameters of each kind of cell, ``[edges, candidates]``.
        betas: of the edges, ``[edges]``, which partial channels need (PC-DARTS, §3.3); None otherwise.
        extra: weight of the auxiliary skip connections, set by the search.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings, self.extra = settings, 0.0
        edges = edge_count(settings.nodes)
        self.alphas = nn.ParameterDict({kind: torch.zeros(edges, len(CANDIDATES)) for kind in KINDS})
        self.betas = nn.ParameterDict({kind: torch.zeros(edges) for kind in KINDS}) if settings.partial > 1 else None
        side, channels, width = settings.resolution, settings.channels, STEM * settings.channels
        self.stem = nn.Sequential(
            nn.Conv2d(settings.in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )
        before, reduced, made = (width, width), False, []
        for i in range(settings.cells):
            kind = "reduce" if i in reductions(settings.cells) else "normal"
            channels *= 2 if kind == "reduce" else 1
            made.append(MixedCell(settings, kind, side, before, channels, reduced))
            side, reduced = side // (2 if kind == "reduce" else 1), kind == "reduce"
            before = (before[1], channels * settings.nodes)
        self.cells = nn.ModuleList(made)
        self.classifier = nn.Linear(before[1], settings.num_classes)

    def forward(self, x: Tensor, cells: Genotype | None = None) -> Tensor:
        """``[N, channels, resolution, resolution] -> [N, classes]``: of the mixture, or of one genotype's operations
        with the weights that they share with all others'."""
        if cells is None:
            mixtures = {kind: (self.weights(kind), self.shares(kind)) for kind in KINDS}
        else:
            chosen = {kind: one_hot(getattr(cells, kind)).to(x.device) for kind in KINDS}
            mixtures = {kind: (weights, torch.ones_like(weights[:, 0])) for kind, weights in chosen.items()}
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last, *mixtures[str(cell.kind)], self.extra)
        return self.classifier(last.mean((2, 3)))

    def weights(self, kind: str) -> Tensor:
        """Of the operations of a kind of cell, ``[edges, candidates]``; 0 for those that are gone."""
        alphas, alive = self.alphas[kind], self.settings.alive[kind].to(self.alphas[kind].device)
        if self.settings.sigmoid:
            return alphas.sigmoid() * alive
        return alphas.masked_fill(~alive, -torch.inf).softmax(1)

    def shares(self, kind: str) -> Tensor:
        """Of the edges of a kind of cell in their nodes, ``[edges]``; 1 without partial channels."""
        if self.betas is None:
            return torch.ones(len(self.alphas[kind]), device=self.alphas[kind].device)
        parts = self.betas[kind].split([node + 2 for node in range(self.settings.nodes)])
        return torch.cat([part.softmax(0) for part in parts])

    @property
    def architecture(self) -> list[nn.Parameter]:
        """The parameters that say what the cells are."""
        return [p for name, p in self.named_parameters() if name.startswith(("alphas.", "betas."))]

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """All other parameters that learn, by name."""
        named = ((name, p) for name, p in self.named_parameters() if not name.startswith(("alphas.", "betas.")))
        return {name: p for name, p in named if p.requires_grad}


def one_hot(cell: Cell) -> Tensor:
    """The weights ``[edges, candidates]`` with which a mixed cell is a discrete one."""
    weights, first = torch.zeros(edge_count(len(cell)), len(CANDIDATES)), 0
    for node, edges in enumerate(cell):
        for operation, source in edges:
            weights[first + source, CANDIDATES.index(operation)] = 1.0
        first += node + 2
    return weights


def initialise(network: SearchNetwork, seed: int) -> None:
    """Draw all parameters from one seed: the architecture's near zero, so that the search starts undecided."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.architecture:
        nn.init.normal_(parameter, 0.0, 1e-3, generator=generator)
    draw: Callable[..., Tensor] = nn.init.kaiming_normal_
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
