"""A base network becomes a search space whose largest subnet it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ofa_deploy.blocks.kinds import stage_kind
from ofa_deploy.config import ElasticDocument
from ofa_deploy.errors import UsageError
from ofa_deploy.space.chain_arch import ChainArch
from ofa_deploy.space.family import ArchLike
from ofa_deploy.space.search_space import SearchSpace
from ofa_deploy.space.stage_spec import StageSpec


def largest_alone(space: SearchSpace, name: str) -> SearchSpace:
    """A space of one subnet: the largest of another."""
    stages = tuple(
        replace(
            one,
            depths=(max(one.depths),),
            kernels=(_largest(one),),
            expands=(max(one.expands) if "expands" in one.meant(one.block) else 1,),
            widths=(),
            kinds=(),
            heads=tuple(sorted(one.heads)[-1:]),
            key_widths=tuple(sorted(one.key_widths)[-1:]),
        )
        for one in (stage.of_kind(stage.block) for stage in space.stages)
    )
    whole = replace(space, name=name, stages=stages, resolutions=(max(space.resolutions),))
    return replace(whole, widths=(max(space.widths),))


def frozen(space: SearchSpace, arch: ArchLike) -> SearchSpace:
    """A space of one subnet: any of another, block by block the same.

    Every block is a stage of its own, since a stage's blocks have the same choices: only their names differ.
    """
    arch = space.canonical(arch)
    stages = tuple(_block_alone(space, arch, *place) for place in space.active_slots(arch))
    name = f"{space.name}-{arch.key[:12]}"
    return replace(space, name=name, stages=stages, resolutions=(arch.resolution,), widths=(arch.width,))


def _block_alone(space: SearchSpace, arch: ChainArch, slot: int, stage: int, position: int) -> StageSpec:
    spec = space.stages[stage].of_kind(arch.kinds[stage] if arch.kinds else space.stages[stage].block)
    return replace(
        spec,
        width=arch.channels[stage] if arch.channels else spec.width,
        widths=(),
        kinds=(),
        stride=spec.stride if position == 0 else 1,
        depths=(1,),
        kernels=(arch.kernels[slot],),
        expands=(arch.expands[slot] if "expands" in spec.meant(spec.block) else 1,),
        heads=(arch.heads[slot],) if spec.heads else (),
        key_widths=(arch.key_widths[slot],) if spec.key_widths else (),
    )


def make_elastic(
    base: SearchSpace, elastic: ElasticDocument, line_of: Callable[[str], str] = lambda choice: ""
) -> SearchSpace:
    """Give a base's largest network choices that are no larger than its own, and those always.

    Args:
        elastic: ``depth``: blocks of every stage more than the base has, 0 or less, where at least one block stays;
            ``kernel``, ``expand``: choices of every block, of which each stage takes those up to its own; ``width``:
            multipliers up to 1; ``resolution``: pixels. What is None stays as the base has it.
        line_of: where a field of ``elastic`` is written, for messages.

    Raises:
        UsageError: a choice that is larger than any of the base's, or that it cannot have.
    """
    for field in elastic.model_fields_set:
        if wrong := _wrong(base, field, getattr(elastic, field) or ()):
            at = line_of(field) or f"space {base.name}"
            raise UsageError(f"{at}: elastic.{field}: {wrong}")
    stages = tuple(_stage(stage, elastic) for stage in base.stages)
    widths = base.widths if elastic.width is None else _up_to(elastic.width, 1.0)
    resolutions = base.resolutions
    if elastic.resolution is not None:
        resolutions = _up_to(elastic.resolution, max(base.resolutions))
    return replace(base, stages=stages, widths=widths, resolutions=resolutions)


def _stage(stage: StageSpec, elastic: ElasticDocument) -> StageSpec:
    chosen: dict[str, Any] = {}
    if elastic.depth is not None:
        deepest = max(stage.depths)
        chosen["depths"] = _up_to([max(1, deepest + fewer) for fewer in elastic.depth], deepest)
    if elastic.kernel is not None and not stage_kind(stage.block).pairs:
        chosen["kernels"] = _up_to(elastic.kernel, _largest(stage))
    if elastic.expand is not None:
        chosen["expands"] = _up_to(elastic.expand, max(stage.expands))
    return replace(stage, **chosen)


def _largest(stage: StageSpec) -> Any:
    """The largest kernel; of pairs, the one that has the largest of both."""
    return max(stage.kernels, key=lambda kernel: kernel if isinstance(kernel, int) else sum(kernel))


def _up_to(choices: Any, most: Any) -> tuple[Any, ...]:
    """The choices that are not larger than the base's own value, and that; smallest first."""
    return tuple(sorted({choice for choice in choices if choice <= most} | {most}))


def _wrong(base: SearchSpace, field: str, choices: Sequence[float]) -> str:
    """Why the base cannot have such choices; nothing where it can."""
    kernels = [kernel for stage in base.stages for kernel in stage.kernels if isinstance(kernel, int)]
    if field == "kernel" and choices and not kernels:
        return "all kernels of the base are pairs, which are given in its stages"
    if field == "width" and choices and base.widths != (1.0,):
        return f"the base must have the width 1.0 alone, not {list(base.widths)}"
    most = {
        "depth": 0,
        "kernel": max(kernels, default=0),
        "expand": max(max(stage.expands) for stage in base.stages),
        "width": 1.0,
        "resolution": max(base.resolutions),
    }[field]
    too_large = [choice for choice in choices if choice > most]
    return f"{too_large[0]:g} is larger than the base's {most:g}; the base is the largest subnet" if too_large else ""
