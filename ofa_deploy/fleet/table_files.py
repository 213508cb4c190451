"""Tables from files: kept as a target of the workspace, or read to be looked at."""

from __future__ import annotations

from pathlib import Path

from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.targets import new_table_name, resolve_target
from ofa_deploy.latency import LatencyTable, as_records, read_csv, read_table
from ofa_deploy.latency_models import export_table, load_table
from ofa_deploy.space import Family, PopulationCodec, SearchSpace
from ofa_deploy.store import Workspace


def import_table(workspace: Workspace, table: LatencyTable, name: str) -> LatencyTable:
    """Keep a table as that of a target; its rows count from now on, older ones stay.

    Returns:
        What the target's table is now, also exported to the workspace's ``tables`` folder.

    Raises:
        UsageError: the name is not free for it.
    """
    records = as_records(table, new_table_name(name, workspace))
    workspace.store.add_measurements([record.to_json() for record in records])
    kept = load_table(workspace, resolve_target(name, workspace))
    export_table(workspace, kept)
    return kept


def read_file(
    path: Path, space: SearchSpace | None, name: str | None = None, resolution: int | None = None
) -> LatencyTable:
    """A table from a file that ``lut export`` writes; its rows are checked.

    Args:
        space: whose blocks a CSV file's lines are.
        resolution: of the networks that a CSV file's latencies hold for, where they hold for no others.

    Raises:
        UsageError: the file is damaged, holds what cannot be a latency, or ends in neither .json nor .csv; or a CSV
            file is read without a space.
    """
    if path.suffix == ".json":
        if resolution:
            raise UsageError(f"{path} already says its resolutions; --resolution is for CSV files only")
        return read_table(path)
    if path.suffix != ".csv":
        raise UsageError(f"{path}: the name of a table's file must end in .json or .csv")
    if space is None:
        raise UsageError(f"{path}: a CSV file does not name its search space; give it with --space")
    return read_csv(path, name or path.stem, space, resolution)


def covered(table: LatencyTable, space: Family) -> dict[int, dict[str, float]]:
    """The resolutions at which a table has every block of a space, each with two sums in ms: a look at them shows a
    table in a wrong unit, which nothing inside the table can."""
    found = {}
    for resolution in space.resolutions:
        part = space.with_resolutions((resolution,))
        if not table.missing(PopulationCodec(part, table.per_resolution).op_keys):
            ends = {"smallest_ms": part.smallest, "largest_ms": part.largest}
            found[resolution] = {name: table.total(part.network(arch)) for name, arch in ends.items()}
    return found
