"""`profile`, `audit`, `predict`: measuring devices and asking what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.cells import CellChoice, cell_family, cell_options
from ofa_deploy.cli.output import SIMULATED, emit, progress, shout
from ofa_deploy.cli.precision import precision_option
from ofa_deploy.cli.ranking import RankingRequest, audit_ranking, ranking_options
from ofa_deploy.cli.spaces import read_arch

if TYPE_CHECKING:
    from ofa_deploy.config import TargetProfile
    from ofa_deploy.fleet import Fleet
    from ofa_deploy.space import CellSpace, SearchSpace
    from ofa_deploy.store import Workspace

NETWORKS = 40  # that an audit measures


def the_space(workspace: Workspace, name: str | None, resolutions: tuple[int, ...] = ()) -> SearchSpace:
    """A space by name or file, or by default that of the newest supernet; at some resolutions, or all."""
    from ofa_deploy.space import load_space

    if name:
        space = load_space(name)
    else:
        from ofa_deploy.deploy.subject import find_supernet
        from ofa_deploy.supernet import read_summary

        path = find_supernet(workspace, None)
        click.echo(f"supernet: {path}", err=True)
        space = read_summary(path)[0]
    return space.with_resolutions(resolutions) if resolutions else space


def protocol_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How long and how exactly a device measures."""
    within = click.FloatRange(0, 1, min_open=True, max_open=True)
    se = click.option("--se", default=0.01, show_default=True, type=within, help="Relative standard error to reach.")
    above = click.FloatRange(0, min_open=True)
    cap = click.option("--cap-s", default=120.0, show_default=True, type=above, help="Seconds to stop at regardless.")
    return se(cap(command))


@click.command()
@click.option("--target", default="local", show_default=True, help="What to measure.")
@click.option("--space", "space_name", help="Preset or YAML file.  [default: the newest supernet's]")
@click.option("--resolution", "resolutions", type=int, multiple=True, help="Only these input sizes; repeatable.")
@click.option("--networks", default=20, show_default=True, type=click.IntRange(0), help="Whole networks to measure.")
@click.option("--few", type=click.IntRange(1), help="Measure only so many whole networks, chosen to teach most.")
@click.option("--refresh", is_flag=True, help="Measure again what was measured before.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of networks.")
@precision_option
@protocol_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def profile(
    workspace: Path | None,
    target: str,
    space_name: str | None,
    resolutions: tuple[int, ...],
    networks: int,
    few: int | None,
    refresh: bool,
    seed: int,
    precision: str | None,
    se: float,
    cap_s: float,
    as_json: bool,
) -> None:
    """Fill or refresh a target's latency table: every block of a space, and whole networks beside them.

    With --few the blocks are not measured: what they cost is guessed from the tables of other devices in the workspace
    and from the whole networks that are measured here.

    Example: ofa-deploy profile --target local --space ofa_mbv3_w1.0 --resolution 160
    """
    from ofa_deploy.fleet import Fleet, Protocol, in_precision, resolve_target
    from ofa_deploy.fleet.models import load_model, table_file
    from ofa_deploy.fleet.profiling import profile as measure
    from ofa_deploy.latency import leave_one_out
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    found = in_precision(resolve_target(target, opened, measure=True), precision)
    space = the_space(opened, space_name, resolutions)
    with Fleet.open(opened) as fleet, progress() as tell:
        table = measure(
            fleet,
            opened,
            found,
            space,
            few or networks,
            refresh,
            seed,
            Protocol(se=se, cap_s=cap_s),
            lambda p: tell(f"profile {target}", p),
            few is not None,
        )
    model = load_model(opened, found, space)
    left_out = leave_one_out(model)
    flagged = sum(bool(row.flags) for row in table.rows.values())
    file = table_file(opened, table)
    if as_json:
        emit(
            {
                "target": found.name,
                "simulated": table.simulated,
                "condition": dict(table.condition),
                "blocks": len(table.rows),
                "networks": len(table.networks),
                "prior": model.blocks.source,
                "flagged": flagged,
                "leave_one_out": left_out,
                "table": str(file),
            }
        )
        return
    runtime = f"{table.condition['runtime']} {table.condition['runtime_version']}"
    name = f"{shout(table.simulated)}{found.name}"
    click.echo(f"{name}: {len(table.rows)} blocks and {len(table.networks)} networks on {runtime} ({flagged} flagged)")
    if few:
        click.echo(f"blocks were not measured: what they cost is guessed from {model.blocks.source}")
    if left_out:
        click.echo(
            f"each network predicted from the others: mean error {100 * left_out['mape']:.1f} %, "
            f"{100 * left_out['within_5']:.0f} % within ±5 %"
        )
    click.echo(f"table: {file}\nnext: ofa-deploy extract --target {found.name} --max-ms …")


@click.command()
@click.option("--target", default="local", show_default=True, help="Whose predictions to check.")
@click.option("--space", "space_name", help="Preset or YAML file.  [default: the newest supernet's]")
@click.option("--resolution", "resolutions", type=int, multiple=True, help="Only these input sizes; repeatable.")
@click.option("--networks", type=click.IntRange(3), help="To measure, or to train.  [default: 40; with --ranking 12]")
@click.option(
    "--statistic",
    default="p50",
    show_default=True,
    type=click.Choice(["p50", "p90", "p99"]),
    help="Which latency is predicted and measured.",
)
@click.option("--seed", default=0, show_default=True, help="Of the choice of networks.")
@precision_option
@protocol_options
@ranking_options
@cell_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder, or with --ranking a JSON file.  [default: audits/… in the workspace]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def audit(
    workspace: Path | None,
    target: str,
    space_name: str | None,
    resolutions: tuple[int, ...],
    networks: int | None,
    statistic: str,
    seed: int,
    precision: str | None,
    se: float,
    cap_s: float,
    ranking: RankingRequest | None,
    cells: CellChoice | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure networks that took no part in fitting, and say how far a target's predictions can be trusted.

    The answer is kept as JSON, Markdown and a page, and later reports of this target show it.

    With --family darts the networks are other sizes of the cells than those that teach the model: give several --cells
    and --channels.

    With --ranking nothing is measured on a device: networks of a supernet are trained alone, from scratch, and their
    ranking is compared with that of their inherited accuracies, of the predictor, and of zero-cost proxies. An audit
    that was interrupted goes on where it stopped.

    Example: ofa-deploy audit --target local --networks 40

    Example: ofa-deploy audit --ranking --networks 12 --epochs 3 --dry-run
    """
    if ranking:
        audit_ranking(workspace, ranking, networks, seed, output, as_json)
        return
    from ofa_deploy.deploy.audits import audit_command, audit_folder, keep_audit
    from ofa_deploy.fleet import Fleet, Protocol, in_precision, resolve_target
    from ofa_deploy.store import Workspace

    if cells and (space_name or resolutions):
        raise click.UsageError("--space and --resolution are not for --family darts")
    opened = Workspace.open(workspace)
    found = in_precision(resolve_target(target, opened, measure=True), precision)
    space = cell_family(opened, cells)[1].family if cells else the_space(opened, space_name, resolutions)
    folder = audit_folder(output or opened.audits / "-".join([found.name, *([precision] if precision else [])]))
    networks = networks or NETWORKS
    options: dict[str, object] = {
        "resolution": resolutions,
        "networks": networks,
        "seed": seed,
        "se": se,
        "cap-s": cap_s,
    }
    options |= {"precision": precision, **(cells.options if cells else {"space": space_name} if space_name else {})}
    command = audit_command(found, space, statistic, options)
    with Fleet.open(opened) as fleet, progress() as tell:
        measuring = (statistic, Protocol(se=se, cap_s=cap_s), lambda p: tell(f"audit {target}", p))
        answer = _audited(fleet, opened, found, space, networks, seed, *measuring)
    answer["command"] = command
    keep_audit(opened, answer, folder)
    if as_json:
        emit(answer)
    else:
        click.echo(f"{audit_text(answer)}\naudit: {folder}   open {folder / 'audit.html'}")


def _audited(
    fleet: Fleet,
    workspace: Workspace,
    target: TargetProfile,
    space: SearchSpace | CellSpace,
    networks: int,
    seed: int,
    *measuring: Any,
) -> dict[str, Any]:
    """The audit of a space, or of a family of cell networks."""
    from ofa_deploy.space import CellSpace

    if isinstance(space, CellSpace):
        from ofa_deploy.deploy.cells import audit_cells

        return audit_cells(fleet, workspace, target, space, networks, *measuring)
    from ofa_deploy.fleet.auditing import audit

    return audit(fleet, workspace, target, space, networks, seed, *measuring)


def audit_text(answer: dict[str, Any]) -> str:
    """An audit in a few lines."""
    lines = [f"{SIMULATED}{answer['target']}"] if answer["simulated"] else []
    for name, part in (("model", answer), ("sum of blocks", answer["table_only"])):
        if part:
            ranks = "" if part["spearman"] is None else f"Spearman {part['spearman']:.3f}  "
            lines.append(
                f"{name:14} mean error {100 * part['mape']:5.1f} %  bias {100 * part['bias']:+5.1f} %  "
                f"±5 %: {100 * part['within_5']:3.0f} %  ±10 %: {100 * part['within_10']:3.0f} %  "
                f"{ranks}95 % bound held: {100 * part['coverage_95']:.0f} %"
            )
    lines.append(f"{answer['n_heldout']} networks, fitted on {answer['n_fit']} others: {answer['verdict']}")
    return "\n".join(lines)


@click.command()
@click.argument("arch_files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ARCH_FILE…")
@click.option("--target", default="local", show_default=True)
@click.option(
    "--space", "space_name", help="Preset or YAML file.  [default: the one the arch names, or the supernet's]"
)
@precision_option
@click.option("--confidence", default=0.95, show_default=True, type=click.FloatRange(0, 1, True, True))
@click.option("--strict", is_flag=True, help="Refuse to guess what a block costs that was not measured.")
@click.option("--explain", is_flag=True, help="Say which blocks carry the prediction.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_obj
def predict(
    workspace: Path | None,
    arch_files: tuple[Path, ...],
    target: str,
    space_name: str | None,
    precision: str | None,
    confidence: float,
    strict: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Predict subnets' latency on a profiled target, with its uncertainty.

    A block that was not measured is guessed from blocks around it, or from other devices, and is less sure.

    Example: ofa-deploy predict --target local arch.json --json
    """
    from ofa_deploy.fleet import in_precision, resolve_target
    from ofa_deploy.fleet.models import predict_archs
    from ofa_deploy.space import PRESETS
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    found = in_precision(resolve_target(target, opened), precision)
    pairs = []
    for file in arch_files:
        data = read_arch(file)
        named = data.get("space") if data.get("space") in PRESETS else None
        space = the_space(opened, space_name or named)
        pairs.append((space, space.canonical(data)))
    rows = predict_archs(opened, found, pairs, confidence, strict, explain)
    if as_json:
        emit(rows)
        return
    for file, row in zip(arch_files, rows, strict=True):
        click.echo(
            f"{shout(row['simulated'])}{file}: {row['mean_ms']:.4g} ms ± {row['std_ms']:.2g}, "
            f"under {row['upper_ms']:.4g} ms at {confidence:g}"
        )
        for block in sorted(row.get("blocks", ()), key=lambda block: -block["posterior_ms"]):
            click.echo(
                f"  {block['posterior_ms']:9.4f} ms ± {block['std_ms']:7.4f}  {100 * block['share']:5.1f} %  "
                f"{block['name']:10} {block['op']}  ({block['origin']})"
            )


COMMANDS = (profile, audit, predict)
