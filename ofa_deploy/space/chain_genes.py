"""The genes of a chain of stages, and the places where its blocks stand: how its subnets are encoded in populations.

A stage that has a choice of its kind has one gene for that and its depth: both decide which blocks there are. Where a
block may be of several kinds, one place for each stands there, and the kinds share the genes that mean something to
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from ofa_deploy.space.chain_arch import ChainArch
from ofa_deploy.space.family import ArchLike, Gene, Place

if TYPE_CHECKING:
    from ofa_deploy.space.search_space import SearchSpace


def genes_of(space: SearchSpace) -> tuple[Gene, ...]:
    """Everything that can be chosen: ``size_genes`` that change many blocks, then the depths of the stages, the
    kernels of all slots, their expand ratios, and where there is a choice their heads and the widths of these."""
    return (
        Gene("resolution", space.resolutions),
        Gene("width", space.widths),
        *(Gene(f"channels[{s}]", space.stages[s].widths) for s in space.elastic_stages),
        *(
            Gene(f"stages[{s}]", tuple(product(stage.kinds, stage.depths)))
            if stage.kinds
            else Gene(f"depths[{s}]", stage.depths)
            for s, stage in enumerate(space.stages)
        ),
        *(Gene(f"{name}[{i}]", choices) for name, i, choices in _block_genes(space)),
    )


def _block_genes(space: SearchSpace) -> list[tuple[str, int, tuple[Any, ...]]]:
    """Field of an arch, slot and choices of every gene that is a block's own."""
    stages = [space.stages[s] for s, _ in space.slots]
    return [
        *(("kernels", i, space.kernels(i)) for i in range(len(stages))),
        *(("expands", i, stage.expands) for i, stage in enumerate(stages)),
        *(("heads", i, stage.heads) for i, stage in enumerate(stages) if stage.heads),
        *(("key_widths", i, stage.key_widths) for i, stage in enumerate(stages) if stage.key_widths),
    ]


def places_of(space: SearchSpace) -> tuple[Place, ...]:
    """Where blocks stand: those of ``space.blocks``, then what comes before and after the stages."""
    of_stage = {stage: 2 + i for i, stage in enumerate(space.elastic_stages)}
    depth0, last, found = space.size_genes, len(space.stages) - 1, list[Place]()
    for slot, (s, b) in enumerate(space.slots):
        stage = space.stages[s]
        read = (s if b else s - 1, s)  # the stages whose widths the block reads and writes
        size = (0, 1, *(of_stage[stage] for stage in dict.fromkeys(read) if stage in of_stage))
        for kind in stage.all_kinds:
            own = tuple(number for name, number in space.own_genes[slot].items() if name in stage.meant(kind))
            choices = product(stage.all_kinds, stage.depths)
            present = tuple(chosen == kind and b < depth for chosen, depth in choices)
            found.append(Place(size, own, depth0 + s, present))
    before = (space.stem_width > 0) + space.first_block
    head = (0, 1, of_stage[last]) if last in of_stage else (0, 1)
    return (*found, *[Place((0, 1))] * before, Place(head), Place((0, 1) if space.head_width else head))


def own_genes_of(space: SearchSpace) -> tuple[dict[str, int], ...]:
    """For every slot the numbers of its blocks' own genes, by their fields of an arch."""
    found: tuple[dict[str, int], ...] = tuple({} for _ in space.slots)
    for number, (name, slot, _) in enumerate(_block_genes(space), space.size_genes + len(space.stages)):
        found[slot][name] = number
    return found


def values_of(space: SearchSpace, arch: ArchLike) -> list[Any]:
    """What a subnet chose of every gene."""
    arch = space.canonical(arch)
    channels = [arch.channels[s] for s in space.elastic_stages]
    stages = [(arch.kinds[s], depth) if space.stages[s].kinds else depth for s, depth in enumerate(arch.depths)]
    blocks = [getattr(arch, name)[slot] for name, slot, _ in _block_genes(space)]
    return [arch.resolution, arch.width, *channels, *stages, *blocks]


def arch_of(space: SearchSpace, values: Sequence[Any]) -> ChainArch:
    """The subnet that chose so; genes that mean nothing must hold their first choice."""
    depth0, stages = space.size_genes, len(space.stages)
    channels = [stage.width for stage in space.stages] if space.elastic_stages else []
    for s, count in zip(space.elastic_stages, values[2:depth0], strict=True):
        channels[s] = count
    kinds, depths = [], []
    for stage, chosen in zip(space.stages, values[depth0 : depth0 + stages], strict=True):
        kind, depth = chosen if stage.kinds else (stage.block, chosen)
        kinds.append(kind)
        depths.append(depth)
    fields = {name: [0] * len(space.slots) for name, _, _ in _block_genes(space)}
    for (name, slot, _), value in zip(_block_genes(space), values[depth0 + stages :], strict=True):
        fields[name][slot] = value
    blocks = {name: tuple(found) for name, found in fields.items()}
    mixed = tuple(kinds) if any(stage.kinds for stage in space.stages) else ()
    return ChainArch(space.name, values[0], values[1], tuple(depths), channels=tuple(channels), kinds=mixed, **blocks)
