"""`lut`: latency tables to look at, to compare, and to take from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.output import SIMULATED, emit, shout

if TYPE_CHECKING:
    from ofa_deploy.latency import LatencyTable, Row
    from ofa_deploy.space import SearchSpace
    from ofa_deploy.store import Workspace

FILES = (".json", ".csv")
space_option = click.option("--space", "space_name", help="Preset or YAML file: whose blocks a CSV file's lines are.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
resolution_type = click.IntRange(16, 320)


def the_table(workspace: Workspace, source: str, space_name: str | None) -> LatencyTable:
    """The table of a target, or in a file."""
    from ofa_deploy.fleet import resolve_target
    from ofa_deploy.fleet.importing import read_file
    from ofa_deploy.fleet.models import load_table

    if source.endswith(FILES):
        return read_file(Path(source), optional_space(space_name))
    return load_table(workspace, resolve_target(source, workspace))


def optional_space(name: str | None) -> SearchSpace | None:
    """A space where one was named."""
    from ofa_deploy.space import load_space

    return load_space(name) if name else None


@click.group()
def lut() -> None:
    """Latency tables."""


@lut.command("show")
@click.argument("sources", nargs=-1, metavar="[TARGET|FILE]…")
@space_option
@json_option
@click.pass_obj
def show(workspace: Path | None, sources: tuple[str, ...], space_name: str | None, as_json: bool) -> None:
    """Print the tables of targets or files: a line for each block, a column for each device.  [default: local]

    Example: ofa-deploy lut show local note10
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
    warning = f"⚠ {count} of {len(rows)} rows were measured while the device was slowed down for long (throttled)"
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
    return [*lines, "", *map(_summary, tables), "* flagged   – not in this table"]


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
    """Say what changed from one table to another, or in one target since the time before, and what of it is noise.

    Example: ofa-deploy lut diff local
    """
    from ofa_deploy.fleet import resolve_target
    from ofa_deploy.fleet.models import measurements
    from ofa_deploy.latency import difference, difference_in_time
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    if new is None:
        records = measurements(opened, resolve_target(old, opened))
        answer = difference_in_time(old, records)
        names = {"old": f"{old}, the time before", "new": f"{old}, the last time"}
        names = _marked(names, [record["condition"].get("simulated", False) for record in records[-1:] * 2])
    else:
        tables = [the_table(opened, old, space_name), the_table(opened, new, space_name)]
        answer = difference(*tables)
        names = _marked({"old": old, "new": new}, [table.simulated for table in tables])
    if as_json:
        emit({**names, **answer})
    else:
        click.echo("\n".join(_difference({**names, **answer})))


def _marked(names: dict[str, str], simulated: list[bool]) -> dict[str, Any]:
    """The names of the sides, shouting of a simulation, and whether one is."""
    sides = zip(names.items(), simulated, strict=True)
    return {side: f"{shout(is_one)}{name}" for (side, name), is_one in sides} | {"simulated": any(simulated)}


def _difference(answer: dict[str, Any]) -> list[str]:
    rows = sorted(answer["rows"], key=lambda row: -abs(row["change"]))
    names = [f"network {row['key'][:12]}" if row["network"] else row["key"] for row in rows]
    width = max(map(len, names))
    says = {True: "changed", False: "noise", None: "unknown"}
    lines = [SIMULATED.strip()] if answer["simulated"] else []
    lines.append(f"{'ms':{width}}  {'old':>10}  {'new':>10}  {'change':>9}")
    lines += [
        f"{name:{width}}  {row['old_ms']:10.4f}  {row['new_ms']:10.4f}  {_percent(row['change']):>9}  "
        f"{says[row['beyond_noise']]}"
        for name, row in zip(names, rows, strict=True)
    ]
    lines += ["", f"from {answer['old']} to {answer['new']}"]
    for field, sides in answer["conditions"].items():
        before, after = (
            ", ".join("not said" if value is None else str(value) for value in sides[side]) for side in ("old", "new")
        )
        lines.append(f"other condition: {field} was {before}, is {after}")
    alone = f"; only old: {len(answer['only_old'])}, only new: {len(answer['only_new'])}"
    lines.append(f"{len(rows)} rows in common, median change {_percent(answer['median_change'])}{alone}")
    if answer["changed"] is None:
        return [*lines, "what is noise is not known: no row says on both sides how exact it is"]
    lines.append(
        f"changed beyond noise: {100 * answer['changed']:.0f} % of rows (by more than {answer['threshold_sigmas']:.1f} "
        f"standard errors of both together: as much as chance can do among {len(rows)} rows)"
    )
    return lines


def _percent(change: float) -> str:
    return f"{round(100 * change, 1) + 0.0:+.1f} %"  # 0.0: no -0.0


@lut.command("export")
@click.argument("target")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write: .csv or .json.")
@click.option("--resolution", type=resolution_type, help="Which, where a CSV cannot hold a table's several.")
@json_option
@click.pass_obj
def export(workspace: Path | None, target: str, output: Path, resolution: int | None, as_json: bool) -> None:
    """Write a target's table as JSON, without loss, or its blocks as CSV.

    Example: ofa-deploy lut export local -o local.csv
    """
    from ofa_deploy.errors import UsageError
    from ofa_deploy.files import write_atomic
    from ofa_deploy.latency import write_csv
    from ofa_deploy.store import Workspace

    if output.suffix not in FILES or (resolution and output.suffix != ".csv"):
        raise UsageError(f"{output}: a table's file ends in .json, or in .csv, where --resolution chooses rows")
    table = the_table(Workspace.open(workspace), target, None)
    if not table.rows and not table.networks:
        raise UsageError(f"{target} has no table yet; run: ofa-deploy profile --target {target}")
    if output.suffix == ".json":
        table.save(output)
    else:
        write_atomic(output, write_csv(table, resolution).encode())
        if table.networks:
            click.echo(f"{len(table.networks)} whole networks are left out: CSV has blocks only", err=True)
    if as_json:
        counts = {"blocks": len(table.rows), "networks": len(table.networks)}
        emit({"target": target, "simulated": table.simulated, "file": str(output), **counts})
    else:
        click.echo(f"{shout(table.simulated)}{output}: the table of {target}")


@lut.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Of the target that the table becomes.")
@space_option
@click.option("--resolution", type=resolution_type, help="Of the networks for which a CSV's latencies hold.")
@json_option
@click.pass_obj
def import_file(
    workspace: Path | None, file: Path, name: str, space_name: str | None, resolution: int | None, as_json: bool
) -> None:
    """Take a table from a file that `lut export` wrote, or another tool in the same columns.

    Example: ofa-deploy lut import phone.csv --name phone --space ofa_mbv3_w1.0
    """
    from ofa_deploy.fleet.importing import read_file
    from ofa_deploy.store import Workspace

    space = optional_space(space_name)
    keep_table(Workspace.open(workspace), read_file(file, space, name, resolution), name, space, as_json)


def keep_table(workspace: Workspace, table: LatencyTable, name: str, space: SearchSpace | None, as_json: bool) -> None:
    """Keep an imported table as a target's, and say what it covers."""
    from ofa_deploy.fleet.importing import covered, import_table

    kept = import_table(workspace, table, name)
    found = covered(kept, space) if space else {}
    if as_json:
        counts = {"blocks": len(kept.rows), "networks": len(kept.networks)}
        emit({"target": name, "condition": dict(kept.condition), **counts, "covers": found})
        return
    click.echo(_summary(kept))
    for resolution, ends in found.items():
        click.echo(
            f"{resolution}: from {ends['smallest_ms']:.4g} ms (smallest) to {ends['largest_ms']:.4g} ms (largest)"
        )
    if space and not found:
        click.echo(f"at no resolution it has all blocks of {space.name}: it can be shown, but not searched", err=True)
    click.echo(f"next: ofa-deploy search --target {name} --max-ms …, or ofa-deploy predict --target {name} ARCH.json")


COMMANDS = (lut,)
