"""`arch`: the architectures that the workspace knows, with their accuracies, latencies and bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import json_option, option, output_option
from ofa_deploy.cli.output import emit, shout

if TYPE_CHECKING:
    from ofa_deploy.space import Arch, SearchSpace
    from ofa_deploy.store import Workspace

SORTS = ("accuracy", "created", "latency", "macs", "params")
STATES = ("one-shot", "fine-tuned", "scratch")
SHORT = 12  # characters of a key that are shown


@click.group()
def arch() -> None:
    """List, show or export architectures that were evaluated or measured.

    \b
    Example:
      ofa-deploy arch list --sort accuracy
    """


@arch.command("list")
@option(
    "--sort", type=click.Choice(SORTS), default="created", show_default=True, help="Sort by this, best or newest first."
)
@option("--target", help="Also show the latencies on this device, measured or predicted.")
@option("--space", "space_name", help="Show only architectures of this search space.")
@option("--state", type=click.Choice(STATES), help="Show only architectures evaluated with weights of this kind.")
@option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Show N architectures at most.")
@json_option
@click.pass_obj
def list_archs(
    workspace: Path | None,
    sort: str,
    target: str | None,
    space_name: str | None,
    state: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List architectures with their best accuracy on held-out images.

    \b
    Example:
      ofa-deploy arch list --sort accuracy --target local --limit 10
    """
    from ofa_deploy.store import Workspace

    if sort == "latency" and target is None:
        raise click.UsageError("--sort latency needs a device: give --target")
    opened = Workspace.open(workspace)
    found = [_row(known, state) for known in opened.store.architectures.find(space_name, state)]
    if target is not None:
        _add_latencies(opened, target, found)
    shown = (found[::-1] if sort == "created" else sorted(found, key=lambda row: _place(row, sort)))[:limit]
    if as_json:
        emit(shown)
        return
    for row in shown:
        click.echo(_line(row, target is not None))
    click.echo(f"{len(shown)} of {len(found)} architectures", err=True)


def _row(known: dict[str, Any], state: str | None) -> dict[str, Any]:
    """The figures of an architecture that the list shows."""
    judged = [e for e in known["evaluations"] if state in (None, e["state"])]
    held_out = [e for e in judged if e["split"] != "test"] or judged
    best = max(held_out, key=lambda e: (e["split"] == "valid", e["accuracy"]), default=None)
    names = ("key", "space", "arch", "macs", "params", "created_at", "measurements")
    return {
        **{name: known[name] for name in names},
        "accuracy": best and best["accuracy"],
        "n": best and best["n"],
        "split": best and best["split"],
        "state": best and best["state"],
        "bundles": len(known["bundles"]),
    }


def _add_latencies(workspace: Workspace, target: str, rows: list[dict[str, Any]]) -> None:
    """Add ``measured_ms``, ``predicted_ms`` and ``simulated`` on a target; None if unknown."""
    from ofa_deploy.fleet import resolve_target

    device = resolve_target(target, workspace)
    predicted: dict[str, tuple[float, bool]] = {}
    for name in {row["space"] for row in rows}:
        predicted |= _predicted(workspace, device, [row for row in rows if row["space"] == name])
    for row in rows:
        own = [m for m in row["measurements"] if m["device"] == device.name]
        newest = max(own, key=lambda m: m["measured_at"], default=None)
        row["measured_ms"] = newest and newest["p50"]
        row["predicted_ms"], simulated = predicted.get(row["key"], (None, False))
        row["simulated"] = simulated if newest is None else bool(newest["condition"].get("simulated"))


def _predicted(workspace: Workspace, device: Any, rows: list[dict[str, Any]]) -> dict[str, tuple[float, bool]]:
    """Predictions by key, if the space is a preset and the target's table covers it."""
    from ofa_deploy.deploy.ready import ready_model
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.space import load_space

    try:
        space = load_space(rows[0]["space"])
        model, codec = ready_model(None, workspace, device, space)
    except OfaDeployError:
        return {}
    covered = [row for row in rows if row["arch"]["resolution"] in codec.space.resolutions]
    if not covered:
        return {}
    means = model.bind(codec).predict(codec.encode([row["arch"] for row in covered]))[0]
    return {row["key"]: (float(mean), model.table.simulated) for row, mean in zip(covered, means, strict=True)}


def _place(row: dict[str, Any], sort: str) -> tuple[bool, Any]:
    """The sorting key of a row; rows without the figure come last."""
    latency = row.get("measured_ms") if row.get("measured_ms") is not None else row.get("predicted_ms")
    value = latency if sort == "latency" else row[sort]
    return value is None, (-value if sort == "accuracy" else value) if value is not None else 0


def _line(row: dict[str, Any], timed: bool) -> str:
    from ofa_deploy.report.text import accuracy

    words = [row["key"][:SHORT], f"{row['space']:18}"]
    known = row["accuracy"] is not None
    judged = f"{accuracy(row['accuracy'], row['n'])} {row['split']}, {row['state']}" if known else "not evaluated"
    words.append(f"{judged:35}")
    if row["macs"] is not None:
        words.append(f"{row['macs'] / 1e6:.2f} M MACs  {row['params']:,} parameters")
    if timed:
        words.append(_latency(row))
    return "  ".join(words) + (f"  {row['bundles']} bundles" if row["bundles"] else "")


def _latency(row: dict[str, Any]) -> str:
    measured = f"{row['measured_ms']:.4g} ms" if row["measured_ms"] is not None else "not measured"
    predicted = f", predicted {row['predicted_ms']:.4g} ms" if row["predicted_ms"] is not None else ""
    return shout(row["simulated"]) + measured + predicted


@arch.command()
@click.argument("key")
@json_option
@click.pass_obj
def show(workspace: Path | None, key: str, as_json: bool) -> None:
    """Show everything about one architecture.

    KEY is the beginning of the architecture's key, as `arch list` prints it.

    \b
    Example:
      ofa-deploy arch show 3f2a
    """
    from ofa_deploy.store import Workspace

    known = Workspace.open(workspace).store.architectures.one(key)
    one = _network(known)
    if as_json:
        emit({**known, "blocks": [op.to_json() for op in one.ops] if one else None})
        return
    click.echo(f"{known['key']}  {known['space']}\n{json.dumps(known['arch'])}")
    if known["macs"] is not None:
        click.echo(f"{known['macs'] / 1e6:.2f} M MACs, {known['params']:,} parameters")
    for name, op in zip(one.names, one.ops, strict=True) if one else ():
        click.echo(
            f"  {name:10} {op.kind:10} {op.h}×{op.w}  {op.cin} → {op.cout}  kernel {op.kernel} stride {op.stride}"
        )
    for line in _lines(known):
        click.echo(line)


def _network(known: dict[str, Any]) -> Any:
    """The network, if the space is a preset; else None."""
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.space import load_space

    try:
        space: SearchSpace = load_space(known["space"])
        found: Arch = space.canonical(known["arch"])
    except OfaDeployError:
        return None
    return space.network(found)


def _lines(known: dict[str, Any]) -> list[str]:
    """Accuracies, latencies and bundles, one line each."""
    from ofa_deploy.report.text import accuracy

    accuracies = [
        f"accuracy {accuracy(e['accuracy'], e['n'])}  {e['split']}, {e['state']}, supernet {e['supernet'][:SHORT]}"
        for e in known["evaluations"]
    ]
    latencies = [
        f"latency {shout(bool(m['condition'].get('simulated')))}p50 {m['p50']:.4g} ms, p99 {m['p99']:.4g} ms  "
        f"{m['device']}: {_condition(m['condition'])}"
        for m in known["measurements"]
    ]
    return accuracies + latencies + [f"bundle {b['path']} for {b['target']}" for b in known["bundles"]]


def _condition(condition: dict[str, Any]) -> str:
    words = [str(condition[name]) for name in ("runtime", "runtime_version", "precision") if name in condition]
    return ", ".join([" ".join(words), *(f"{n} {condition[n]}" for n in ("batch", "threads") if n in condition)])


@arch.command()
@click.argument("key", required=False)
@option("--all", "everything", is_flag=True, help="Write all of them, one JSON object per line, as `gate` reads them.")
@option("--space", "space_name", help="With --all: write only those of this search space.")
@output_option("File to write.  [default: standard output]")
@click.pass_obj
def export(
    workspace: Path | None, key: str | None, everything: bool, space_name: str | None, output: Path | None
) -> None:
    """Write an architecture as the JSON file that `predict` and `export` read.

    \b
    Example:
      ofa-deploy arch export 3f2a -o arch.json
    """
    from ofa_deploy.files import write_atomic
    from ofa_deploy.store import Workspace

    if everything == (key is not None):
        raise click.UsageError("choose what to write: give the beginning of a key, or --all")
    known = Workspace.open(workspace).store.architectures
    if key is not None:
        text = json.dumps(known.one(key)["arch"], indent=2)
    else:
        text = "\n".join(json.dumps(row["arch"]) for row in known.find(space_name))
    if output is None:
        click.echo(text)
    else:
        write_atomic(output, f"{text}\n".encode())
        click.echo(str(output), err=True)


COMMANDS = (arch,)
