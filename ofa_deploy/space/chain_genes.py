"""The genes of a chain of stages, and the places where its blocks stand: how its subnets are encoded in populations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_deploy.blocks.kinds import stage_kind
from ofa_deploy.space.chain_arch import ChainArch
from ofa_deploy.space.family import ArchLike, Gene, Place

if TYPE_CHECKING:
    from ofa_deploy.space.search_space import SearchSpace


def genes_of(space: SearchSpace) -> tuple[Gene, ...]:
    """Everything that can be chosen: ``size_genes`` that change many blocks, then the depths of the stages, the
    kernels of all slots, their expand ratios, and their kinds."""
    slots = range(len(space.slots))
    return (
        Gene("resolution", space.resolutions),
        Gene("width", space.widths),
        *(Gene(f"channels[{s}]", space.stages[s].widths) for s in space.elastic_stages),
        *(Gene(f"depths[{s}]", stage.depths) for s, stage in enumerate(space.stages)),
        *(Gene(f"kernels[{i}]", space.kernels(i)) for i in slots),
        *(Gene(f"expands[{i}]", space.stages[space.slots[i][0]].expands) for i in slots),
        *(Gene(f"kinds[{i}]", space.stages[space.slots[i][0]].kinds) for i in space.mixed_slots),
    )


def places_of(space: SearchSpace) -> tuple[Place, ...]:
    """Where blocks stand: the slots of the stages, then what comes before and after them. ``op_at`` tells which."""
    of_stage = {stage: 2 + i for i, stage in enumerate(space.elastic_stages)}
    depth0, slots, last = space.size_genes, len(space.slots), len(space.stages) - 1
    kernel0 = depth0 + len(space.stages)
    found = []
    for i, (s, b) in enumerate(space.slots):
        read = (s if b else s - 1, s)  # the stages whose widths the block reads and writes
        size = (0, 1, *(of_stage[stage] for stage in dict.fromkeys(read) if stage in of_stage))
        present = tuple(b < depth for depth in space.stages[s].depths)
        own, silent = [kernel0 + i, kernel0 + slots + i], list[tuple[int, int, int]]()
        if i in space.mixed_slots:
            own.append(kernel0 + 2 * slots + space.mixed_slots.index(i))
            kinds = enumerate(map(stage_kind, space.stages[s].kinds))
            silent = [(own[2], choice, own[1]) for choice, kind in kinds if not kind.expands]
        found.append(Place(size, tuple(own), depth0 + s, present, tuple(silent)))
    before = (space.stem_width > 0) + space.first_block
    head = (0, 1, of_stage[last]) if last in of_stage else (0, 1)
    return (*found, *[Place((0, 1))] * before, Place(head), Place((0, 1) if space.head_width else head))


def values_of(space: SearchSpace, arch: ArchLike) -> list[Any]:
    """What a subnet chose of every gene."""
    arch = space.canonical(arch)
    channels = [arch.channels[s] for s in space.elastic_stages]
    kinds = [arch.kinds[i] for i in space.mixed_slots]
    return [arch.resolution, arch.width, *channels, *arch.depths, *arch.kernels, *arch.expands, *kinds]


def arch_of(space: SearchSpace, values: Sequence[Any]) -> ChainArch:
    """The subnet that chose so; genes of absent slots must hold their first choice."""
    slots = len(space.slots)
    counts = [2, len(space.elastic_stages), len(space.stages), slots, slots, len(space.mixed_slots)]
    chosen, depths, kernels, expands, mixed = (tuple(values[a:b]) for a, b in pairwise(np.cumsum(counts).tolist()))
    kinds = [space.stages[s].block for s, _ in space.slots] if mixed else []
    for slot, kind in zip(space.mixed_slots, mixed, strict=True):
        kinds[slot] = kind
    channels = [stage.width for stage in space.stages] if chosen else []
    for stage, count in zip(space.elastic_stages, chosen, strict=True):
        channels[stage] = count
    return ChainArch(space.name, values[0], values[1], depths, kernels, expands, tuple(channels), tuple(kinds))
