"""A target's latency model, ready for a search; no torch, so that a search by prediction alone starts without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_deploy.config import PUBLISHED, TargetProfile
from ofa_deploy.errors import OpNotProfiled, UsageError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.latency import LatencyModel, LatencyTable
from ofa_deploy.latency_models import has_blocks, load_model, load_table
from ofa_deploy.space import Family, PopulationCodec
from ofa_deploy.store import Workspace

if TYPE_CHECKING:
    from ofa_deploy.notices import Progress

NETWORKS = 20  # whole networks that are measured beside the blocks
OF_CELLS = 8  # beside whole cells, which tell more of a network than small blocks do


def ready_model(
    fleet: Fleet | None,
    workspace: Workspace,
    target: TargetProfile,
    space: Family,
    statistic: str = "p50",
    protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> tuple[LatencyModel, PopulationCodec]:
    """The target's latency model, and the part of a family that its table covers; profiles where nothing is covered.

    Args:
        fleet: None forbids to profile.

    Raises:
        OpNotProfiled: nothing is covered and profiling is forbidden.
        UsageError: the table is an imported one with a single value a block, and p90 or p99 is asked.
    """
    table = load_table(workspace, target)
    if statistic != "p50" and "statistic" in table.condition:
        raise UsageError(f"the imported table of {target.name} has one value a block, no {statistic}; use p50")
    covered = covered_in(table, space)
    if few := () if table.rows or has_blocks(workspace, target) else _measured_whole(table, space):
        few_space = space.with_resolutions(few)
        return load_model(workspace, target, few_space, statistic), PopulationCodec(few_space)
    if not covered:
        if fleet is None:
            if not table.rows and target.runtime != PUBLISHED:
                command = f"ofa-deploy profile --target {target.name} --precision {target.precision}"
                raise OpNotProfiled(f"{target.name} was never measured in {target.precision}; measure with: {command}")
            table.require(PopulationCodec(space, table.per_resolution).op_keys)
            raise OpNotProfiled(f"{target.name} has no latency table; run: ofa-deploy profile --target {target.name}")
        from ofa_deploy.fleet.profiling import profile  # and with it ONNX

        networks = NETWORKS if any(place.own for place in space.places) else OF_CELLS
        table = profile(fleet, workspace, target, space, networks, protocol=protocol, progress=progress)
        covered = list(space.resolutions)
    return LatencyModel(table, statistic=statistic), PopulationCodec(space.with_resolutions(tuple(covered)))


def covered_in(table: LatencyTable, space: Family) -> list[int]:
    """The resolutions at which all blocks of a family were measured."""
    return [resolution for resolution in space.resolutions if not _missing(table, space, resolution)]


def _measured_whole(table: LatencyTable, space: Family) -> tuple[int, ...]:
    """The resolutions at which only whole networks of a space were measured, by ``profile --few``."""
    known = [set(row.ops) for row in table.networks.values()]

    def some(resolution: int) -> bool:
        ops = {op.key for op in PopulationCodec(space.with_resolutions((resolution,))).ops}
        return any(network <= ops for network in known)

    return tuple(resolution for resolution in space.resolutions if some(resolution))


def _missing(table: LatencyTable, space: Family, resolution: int) -> list[str]:
    return table.missing(PopulationCodec(space.with_resolutions((resolution,)), table.per_resolution).op_keys)
