"""What the weights of a supernet must serve: the sizes of its elastic kernels, and how many parameters it has."""

from __future__ import annotations

from functools import lru_cache

from ofa_deploy.blocks import Conv
from ofa_deploy.blocks.network_counts import network_params
from ofa_deploy.space.search_space import SearchSpace


@lru_cache(maxsize=1024)
def elastic_kernels(space: SearchSpace, block: str) -> dict[str, tuple[int, ...]]:
    """For every elastic convolution of a block, by its weights' name, the kernel sizes that it can have, largest first;
    that it may be absent does not count. Not to be written to.

    Args:
        block: its name, one of ``space.blocks``.
    """
    arch, sizes = space.largest, dict[str, set[int]]()
    stage, position, kind = space.blocks[block]
    expand = max(space.stages[stage].expands)
    for kernel in space.kernels(space.slot(stage, position)):
        op = space.block(stage, position, arch.resolution, arch.width, kernel, expand, (), kind)
        for layer in space.with_shortcut(stage, position, op).block.layers:
            if isinstance(layer, Conv) and layer.elastic:
                sizes.setdefault(layer.name, set()).add(layer.kernel)
    return {name: tuple(sorted(found, reverse=True)) for name, found in sizes.items()}


def supernet_params(space: SearchSpace) -> int:
    """Parameters of the supernet: the largest subnet with the weights of all others, and one kernel transform per
    elastic convolution and step (7→5, 5→3)."""
    elastic = [sizes for block in space.blocks for sizes in elastic_kernels(space, block).values()]
    return network_params(space.whole) + sum(small**4 for sizes in elastic for small in sizes[1:])
