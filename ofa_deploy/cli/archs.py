"""`arch`: the architectures that the workspace knows, with their accuracies, latencies and bundles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import json_option, option, output_option
from ofa_deploy.cli.output import emit, shout

if TYPE_CHECKING:
    from ofa_deploy.blocks import Network
    from ofa_deploy.config import TargetProfile
    from ofa_deploy.json_types import JSON
    from ofa_deploy.space import Arch, SearchSpace
    from ofa_deploy.store import Evaluation, KnownArch, Workspace

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
    found = [Listed.of(known, state) for known in opened.store.architectures.find(space_name, state)]
    if target is not None:
        _add_latencies(opened, target, found)
    shown = (found[::-1] if sort == "created" else sorted(found, key=lambda row: row.place(sort)))[:limit]
    if as_json:
        emit([row.to_json(target is not None) for row in shown])
        return
    for row in shown:
        click.echo(_line(row, target is not None))
    click.echo(f"{len(shown)} of {len(found)} architectures", err=True)


@dataclass
class Listed:
    """An architecture with the figures that the list shows; latencies are in milliseconds, None where not known."""

    known: KnownArch
    best: Evaluation | None
    measured_ms: float | None = None
    predicted_ms: float | None = None
    simulated: bool = False

    @classmethod
    def of(cls, known: KnownArch, state: str | None) -> Listed:
        """With the best accuracy on held-out images, with weights in a state or any."""
        judged = [e for e in known.evaluations if state in (None, e.state)]
        held_out = [e for e in judged if e.split != "test"] or judged
        return cls(known, max(held_out, key=lambda e: (e.split == "valid", e.accuracy), default=None))

    def figure(self, sort: str) -> float | None:
        """What it is sorted by."""
        if sort == "accuracy":
            return None if self.best is None else self.best.accuracy
        if sort == "latency":
            return self.predicted_ms if self.measured_ms is None else self.measured_ms
        return self.known.macs if sort == "macs" else self.known.params

    def place(self, sort: str) -> tuple[bool, float]:
        """The sorting key; architectures without the figure come last."""
        value = self.figure(sort)
        return value is None, (-value if sort == "accuracy" else value) if value is not None else 0

    def to_json(self, timed: bool) -> dict[str, JSON]:
        """As a JSON object."""
        known, best = self.known.to_json(), self.best
        names = ("key", "space", "arch", "macs", "params", "created_at", "measurements")
        times: dict[str, JSON] = {"measured_ms": self.measured_ms, "predicted_ms": self.predicted_ms}
        return {
            **{name: known[name] for name in names},
            **{name: None if best is None else getattr(best, name) for name in ("accuracy", "n", "split", "state")},
            "bundles": len(self.known.bundles),
            **({**times, "simulated": self.simulated} if timed else {}),
        }


def _add_latencies(workspace: Workspace, target: str, rows: list[Listed]) -> None:
    """Add what is known of the latencies on a target."""
    from ofa_deploy.fleet import resolve_target

    device = resolve_target(target, workspace)
    predicted: dict[str, tuple[float, bool]] = {}
    for name in {row.known.space for row in rows}:
        predicted |= _predicted(workspace, device, [row.known for row in rows if row.known.space == name])
    for row in rows:
        own = [m for m in row.known.measurements if m.device == device.name]
        newest = max(own, key=lambda m: m.measured_at, default=None)
        row.measured_ms = None if newest is None else newest.p50
        row.predicted_ms, simulated = predicted.get(row.known.key, (None, False))
        row.simulated = simulated if newest is None else bool(newest.condition.get("simulated"))


def _predicted(workspace: Workspace, device: TargetProfile, archs: list[KnownArch]) -> dict[str, tuple[float, bool]]:
    """Predictions by key, if the space is a preset and the target's table covers it."""
    from ofa_deploy.deploy.ready import ready_model
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.space import load_space

    try:
        space = load_space(archs[0].space)
        model, codec = ready_model(None, workspace, device, space)
    except OfaDeployError:
        return {}
    covered = [one for one in archs if one.arch["resolution"] in codec.space.resolutions]
    if not covered:
        return {}
    means = model.bind(codec).predict(codec.encode([one.arch for one in covered]))[0]
    return {one.key: (float(mean), model.table.simulated) for one, mean in zip(covered, means, strict=True)}


def _line(row: Listed, timed: bool) -> str:
    from ofa_deploy.report.text import accuracy

    known, best = row.known, row.best
    judged = f"{accuracy(best.accuracy, best.n)} {best.split}, {best.state}" if best else "not evaluated"
    words = [known.key[:SHORT], f"{known.space:18}", f"{judged:35}"]
    if known.macs is not None:
        words.append(f"{known.macs / 1e6:.2f} M MACs  {known.params:,} parameters")
    if timed:
        words.append(_latency(row))
    return "  ".join(words) + (f"  {len(known.bundles)} bundles" if known.bundles else "")


def _latency(row: Listed) -> str:
    measured = f"{row.measured_ms:.4g} ms" if row.measured_ms is not None else "not measured"
    predicted = f", predicted {row.predicted_ms:.4g} ms" if row.predicted_ms is not None else ""
    return shout(row.simulated) + measured + predicted


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
        emit({**known.to_json(), "blocks": [op.to_json() for op in one.ops] if one else None})
        return
    click.echo(f"{known.key}  {known.space}\n{json.dumps(known.arch)}")
    if known.macs is not None:
        click.echo(f"{known.macs / 1e6:.2f} M MACs, {known.params:,} parameters")
    for name, op in zip(one.names, one.ops, strict=True) if one else ():
        click.echo(
            f"  {name:10} {op.kind:10} {op.h}×{op.w}  {op.cin} → {op.cout}  kernel {op.kernel} stride {op.stride}"
        )
    for line in _lines(known):
        click.echo(line)


def _network(known: KnownArch) -> Network | None:
    """The network, if the space is a preset; else None."""
    from ofa_deploy.errors import OfaDeployError
    from ofa_deploy.space import load_space

    try:
        space: SearchSpace = load_space(known.space)
        found: Arch = space.canonical(known.arch)
    except OfaDeployError:
        return None
    return space.network(found)


def _lines(known: KnownArch) -> list[str]:
    """Accuracies, latencies and bundles, one line each."""
    from ofa_deploy.report.text import accuracy

    accuracies = [
        f"accuracy {accuracy(e.accuracy, e.n)}  {e.split}, {e.state}, supernet {e.supernet[:SHORT]}"
        for e in known.evaluations
    ]
    latencies = [
        f"latency {shout(bool(m.condition.get('simulated')))}p50 {m.p50:.4g} ms, p99 {m.p99:.4g} ms  "
        f"{m.device}: {_condition(m.condition)}"
        for m in known.measurements
    ]
    return accuracies + latencies + [f"bundle {b.path} for {b.meta['target']}" for b in known.bundles]


def _condition(condition: Mapping[str, JSON]) -> str:
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
        text = json.dumps(known.one(key).arch, indent=2)
    else:
        text = "\n".join(json.dumps(row.arch) for row in known.find(space_name))
    if output is None:
        click.echo(text)
    else:
        write_atomic(output, f"{text}\n".encode())
        click.echo(str(output), err=True)


COMMANDS = (arch,)
