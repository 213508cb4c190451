"""`lut`: show, compare, export and import latency tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import json_option, option, output_option
from ofa_deploy.cli.output import SIMULATED, emit, shout

if TYPE_CHECKING:
    from ofa_deploy.latency import LatencyTable, Row
    from ofa_deploy.latency.changes import TableChanges
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.store import Workspace

FILES = (".json", ".csv")
space_option = option("--space", "space_name", help="Search space whose blocks a CSV file lists: preset or YAML file.")
resolution_type = click.IntRange(16, 320)


def the_table(workspace: Workspace, source: str, space_name: str | None) -> LatencyTable:
    """The table of a target, or the one in a file."""
    from ofa_deploy.fleet import resolve_target
    from ofa_deploy.fleet.table_files import read_file
    from ofa_deploy.latency_models import load_table

    if source.endswith(FILES):
        return read_file(Path(source), optional_space(space_name))
    return load_table(workspace, resolve_target(source, workspace))


def optional_space(name: str | None) -> SearchSpace | None:
    """The space, if one was named."""
    from ofa_deploy.space import load_space

    return load_space(name) if name else None


@click.group()
def lut() -> None:
    """Show, compare, export or import latency tables.

    \b
    Example:
      ofa-deploy lut show local
    """


@lut.command("show")
@click.argument("sources", nargs=-1, metavar="[TARGET|FILE]…")
@space_option
@json_option
@click.pass_obj
def show(workspace: Path | None, sources: tuple[str, ...], space_name: str | None, as_json: bool) -> None:
    """Show latency tables, one line per block.

    A table comes from a target or a file; the default is the target local. Several tables are columns side by side.

    \b
    Example:
      ofa-deploy lut show local note10
    """
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    tables = [the_table(opened, source, space_name) for source in sources or ("local",)]
    if as_json:
        documents = [table.to_json() for table in tables]
        emit(documents[0] if len(documents) == 1 else documents)
        return
    click.echo("\n".join(_one_table(tables[0]) if len(tables) == 1 else _many_tables(tables)))


def _one_table(table: LatencyTable) -> list[str]:
    rows = [*table.rows.values(), *table.networks.values()]
    width = max((len(_name(row)) for row in rows), default=5)
    lines = [f"{SIMULATED}{table.device}"] if table.simulated else []
    lines += _throttled(rows)
    lines.append(f"{'ms':{width}}  {'p50':>9} {'p90':>9} {'p99':>9}  {'±':>6}  {'n':>5}")
    for row in rows:
        times = " ".join(f"{value:9.4f}" for value in (row.p50, row.p90, row.p99))
        error = f"{100 * row.se:4.1f} %" if row.n else f"{'–':>6}"
        lines.append(f"{_name(row):{width}}  {times}  {error}  {row.n or '–':>5}  {' '.join(row.flags)}".rstrip())
    return [*lines, "", _summary(table)]


def _throttled(rows: list[Row]) -> list[str]:
    count = sum("throttled" in row.flags for row in rows)
    warning = f"⚠ the device was throttled while it measured {count} of {len(rows)} rows"
    return [warning] if count else []


def _many_tables(tables: list[LatencyTable]) -> list[str]:
    from ofa_deploy.latency import aligned

    rows = aligned(tables)
    names = {key: _name(next(row for row in found if row), key) for key, found in rows.items()}
    width = max(map(len, names.values()), default=5)
    titles = [f"{shout(table.simulated)}{table.device}" for table in tables]
    columns = [max(10, len(title)) for title in titles]
    heads = "  ".join(f"{title:>{wide}} " for title, wide in zip(titles, columns, strict=True))
    lines = [f"{'p50, ms':{width}}  {heads}".rstrip()]
    for key, found in rows.items():
        cells = "  ".join(f"{_cell(row):>{wide + 1}}" for row, wide in zip(found, columns, strict=True))
        lines.append(f"{names[key]:{width}}  {cells}".rstrip())
    return [*lines, "", *map(_summary, tables), "* flagged, see lut show of that table   – not in this table"]


def _cell(row: Row | None) -> str:
    return "– " if row is None else f"{row.p50:.4f}{'*' if row.flags else ' '}"


def _name(row: Row, key: str | None = None) -> str:
    return key or row.key if len(row.ops) == 1 else f"network {row.key[:12]}"


def _summary(table: LatencyTable) -> str:
    flagged = sum(bool(row.flags) for row in [*table.rows.values(), *table.networks.values()])
    condition = ", ".join(
        f"{name} {value}" for name, value in table.condition.items() if name != "simulated" and value != "unknown"
    )
    counts = f"{len(table.rows)} blocks, {len(table.networks)} networks, {flagged} flagged"
    return f"{shout(table.simulated)}{table.device}: {counts}; {condition or 'nothing was measured'}"


@lut.command("diff")
@click.argument("old", metavar="TARGET|FILE")
@click.argument("new", metavar="[TARGET|FILE]", required=False)
@space_option
@json_option
@click.pass_obj
def diff(workspace: Path | None, old: str, new: str | None, space_name: str | None, as_json: bool) -> None:
    """Compare two latency tables, and tell changes from noise.

    With one target, the command compares its newest measurements with the ones before.

    \b
    Examples:
      ofa-deploy lut diff local
      ofa-deploy lut diff before.json local
    """
    from ofa_deploy.fleet import resolve_target
    from ofa_deploy.latency import difference, difference_in_time
    from ofa_deploy.latency_models import measurements
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    if new is None:
        records = measurements(opened, resolve_target(old, opened))
        answer = difference_in_time(old, records)
        simulated = records[-1].simulated
        names = Sides.of(f"{old}, previous measurement", f"{old}, last measurement", simulated, simulated)
    else:
        tables = [the_table(opened, old, space_name), the_table(opened, new, space_name)]
        answer = difference(*tables)
        names = Sides.of(old, new, tables[0].simulated, tables[1].simulated)
    if as_json:
        emit({**vars(names), **answer.to_json()})
    else:
        click.echo("\n".join(_difference(names, answer)))


@dataclass(frozen=True)
class Sides:
    """The names of what is compared, marked if simulated, and whether one of them is simulated."""

    old: str
    new: str
    simulated: bool

    @classmethod
    def of(cls, old: str, new: str, old_simulated: bool, new_simulated: bool) -> Sides:
        """Two names, and whether each is simulated."""
        return cls(f"{shout(old_simulated)}{old}", f"{shout(new_simulated)}{new}", old_simulated or new_simulated)


def _difference(sides: Sides, found: TableChanges) -> list[str]:
    rows = sorted(found.rows, key=lambda row: -abs(row.change))
    names = [f"network {row.key[:12]}" if row.network else row.key for row in rows]
    width = max(map(len, names))
    says = {True: "changed", False: "noise", None: "unknown"}
    lines = [SIMULATED.strip()] if sides.simulated else []
    lines.append(f"{'ms':{width}}  {'old':>10}  {'new':>10}  {'change':>9}")
    lines += [
        f"{name:{width}}  {row.old_ms:10.4f}  {row.new_ms:10.4f}  {_percent(row.change):>9}  {says[row.beyond_noise]}"
        for name, row in zip(names, rows, strict=True)
    ]
    lines += ["", f"from {sides.old} to {sides.new}"]
    for field, change in found.conditions.items():
        before, after = (
            ", ".join("unknown" if value is None else str(value) for value in side) for side in (change.old, change.new)
        )
        lines.append(f"the conditions differ: {field} was {before}, is {after}")
    alone = f"; only old: {len(found.only_old)}, only new: {len(found.only_new)}"
    lines.append(f"{len(rows)} rows in common, median change {_percent(found.median_change)}{alone}")
    if found.changed is None:
        return [*lines, "the noise is unknown: no row has a standard error in both tables"]
    lines.append(
        f"changed beyond noise: {100 * found.changed:.0f} % of rows (by more than {found.threshold_sigmas:.1f} "
        f"standard errors of the difference, the most that chance explains among {len(rows)} rows)"
    )
    return lines


def _percent(change: float) -> str:
    return f"{round(100 * change, 1) + 0.0:+.1f} %"  # 0.0: no -0.0


@lut.command("export")
@click.argument("target")
@output_option("File to write: .csv or .json.", required=True)
@option("--resolution", type=resolution_type, help="Input size to export to CSV, if the table has several.")
@json_option
@click.pass_obj
def export(workspace: Path | None, target: str, output: Path, resolution: int | None, as_json: bool) -> None:
    """Write a latency table to a JSON or CSV file.

    JSON keeps everything; CSV keeps the blocks only.

    \b
    Example:
      ofa-deploy lut export local -o local.csv
    """
    from ofa_deploy.errors import UsageError
    from ofa_deploy.files import write_atomic
    from ofa_deploy.latency import write_csv
    from ofa_deploy.store import Workspace

    if output.suffix not in FILES or (resolution and output.suffix != ".csv"):
        raise UsageError(f"{output}: the file name must end in .json or .csv, and only .csv takes --resolution")
    table = the_table(Workspace.open(workspace), target, None)
    if not table.rows and not table.networks:
        raise UsageError(f"{target} has no latency table yet; measure it with: ofa-deploy profile --target {target}")
    if output.suffix == ".json":
        table.save(output)
    else:
        write_atomic(output, write_csv(table, resolution).encode())
        if table.networks:
            click.echo(f"left out {len(table.networks)} whole networks: CSV holds blocks only", err=True)
    if as_json:
        counts = {"blocks": len(table.rows), "networks": len(table.networks)}
        emit({"target": target, "simulated": table.simulated, "file": str(output), **counts})
    else:
        click.echo(f"{shout(table.simulated)}{output}: the table of {target}")


@lut.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@option("--name", required=True, help="Name of the new target.")
@space_option
@option("--resolution", type=resolution_type, help="Input size of the networks whose blocks a CSV file lists.")
@json_option
@click.pass_obj
def import_file(
    workspace: Path | None, file: Path, name: str, space_name: str | None, resolution: int | None, as_json: bool
) -> None:
    """Import a latency table from a JSON or CSV file.

    The file comes from `lut export`, or from another tool with the same columns.

    \b
    Example:
      ofa-deploy lut import phone.csv --name phone --space ofa_mbv3_w1.0
    """
    from ofa_deploy.fleet.table_files import read_file
    from ofa_deploy.store import Workspace

    space = optional_space(space_name)
    keep_table(Workspace.open(workspace), read_file(file, space, name, resolution), name, space, as_json)


def keep_table(workspace: Workspace, table: LatencyTable, name: str, space: SearchSpace | None, as_json: bool) -> None:
    """Keep an imported table as that of a new target, and print what it covers."""
    from ofa_deploy.fleet.table_files import covered, import_table

    kept = import_table(workspace, table, name)
    found = covered(kept, space) if space else {}
    if as_json:
        counts = {"blocks": len(kept.rows), "networks": len(kept.networks)}
        emit({"target": name, "condition": dict(kept.condition), **counts, "covers": found})
        return
    click.echo(_summary(kept))
    for resolution, ends in found.items():
        click.echo(
            f"resolution {resolution}: from {ends['smallest_ms']:.4g} ms (smallest subnet) to "
            f"{ends['largest_ms']:.4g} ms (largest)"
        )
    if space and not found:
        click.echo(
            f"the table lacks blocks of {space.name} at every resolution: you can show it, but not search with it",
            err=True,
        )
    click.echo(f"next: ofa-deploy search --target {name} --max-ms …, or ofa-deploy predict --target {name} ARCH.json")


COMMANDS = (lut,)
