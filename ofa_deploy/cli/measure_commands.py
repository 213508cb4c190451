"""`profile`, `audit`, `predict`: measure a device, check its predictions, and use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.cell_options import cell_options
from ofa_deploy.cli.options import (
    BUDGET,
    MEASURING,
    SUBJECT,
    command,
    json_option,
    now_option,
    option,
    output_option,
    space_option,
    term_option,
)
from ofa_deploy.cli.output import SIMULATED, emit, progress, shout, slower
from ofa_deploy.cli.precision_option import precision_option
from ofa_deploy.cli.protocol_options import protocol_options
from ofa_deploy.cli.ranking_audit import RankingRequest, audit_ranking, ranking_options
from ofa_deploy.cli.spaces import read_arch

if TYPE_CHECKING:
    from ofa_deploy.config import CellChoice
    from ofa_deploy.fleet import Protocol
    from ofa_deploy.fleet.auditing import Audit as Audited
    from ofa_deploy.latency_models import PredictedNow


@command(first=("target", "precision", "resolutions", "networks", "few", "refresh"))
@option("--target", default="local", show_default=True, group=BUDGET, help="Device to measure.")
@space_option("that of the newest supernet")
@option(
    "--resolution",
    "resolutions",
    type=int,
    multiple=True,
    group=SUBJECT,
    help="Input size to measure. Repeat the option for several.  [default: all of the space]",
)
@option(
    "--networks",
    default=20,
    show_default=True,
    type=click.IntRange(0),
    group=MEASURING,
    help="Number of whole networks to measure.",
)
@option(
    "--few",
    type=click.IntRange(1),
    group=MEASURING,
    help="Measure no blocks, only the N whole networks that teach the latency model most.",
)
@option("--refresh", is_flag=True, group=MEASURING, help="Measure everything again, also what the table holds.")
@option("--seed", default=0, show_default=True, group=MEASURING, help="Random seed of the choice of networks.")
@precision_option
@protocol_options
@json_option
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
    protocol: Protocol,
    as_json: bool,
) -> None:
    """Measure a device, and keep its latency table.

    The command measures every block of a search space and some whole networks. Blocks that the table holds already
    are not measured again, except with --refresh.

    With --few N it measures only N whole networks. It then estimates what each block costs from these networks and
    from the tables of other devices in the workspace.

    \b
    Examples:
      ofa-deploy profile --target local
      ofa-deploy profile --target local --space ofa_mbv3_w1.0 --resolution 160
    """
    from ofa_deploy.api.measuring import profile as run

    with progress() as tell:
        found = run(
            target,
            space=space_name,
            resolutions=resolutions,
            networks=networks,
            few=few,
            refresh=refresh,
            precision=precision,
            se=protocol.se,
            cap_s=protocol.cap_s,
            seed=seed,
            workspace=workspace,
            progress=tell,
        )
    table, model, left_out = found.table, found.model, found.leave_one_out
    if as_json:
        emit(
            {
                "target": table.device,
                "simulated": table.simulated,
                "condition": dict(table.condition),
                "blocks": len(table.rows),
                "networks": len(table.networks),
                "prior": model.blocks.source,
                "flagged": found.flagged,
                "leave_one_out": left_out and vars(left_out),
                "table": str(found.file),
            }
        )
        return
    runtime = f"{table.condition['runtime']} {table.condition['runtime_version']}"
    name = f"{shout(table.simulated)}{table.device}"
    click.echo(
        f"{name}: {len(table.rows)} blocks and {len(table.networks)} networks on {runtime} ({found.flagged} flagged)"
    )
    if few:
        click.echo(f"the blocks were not measured; their latencies are estimated from {model.blocks.source}")
    if left_out:
        click.echo(
            f"leave-one-out check of the networks: mean error {100 * left_out.mape:.1f} %, "
            f"{100 * left_out.within_5:.0f} % of predictions within ±5 %"
        )
    click.echo(f"table: {found.file}\nnext: ofa-deploy extract --target {table.device} --max-ms …")


@command(first=("target", "networks", "precision", "resolutions", "ranking", "output"))
@option("--target", default="local", show_default=True, group=BUDGET, help="Device whose predictions to check.")
@space_option("that of the newest supernet")
@option(
    "--resolution",
    "resolutions",
    type=int,
    multiple=True,
    group=SUBJECT,
    help="Input size of the networks. Repeat the option for several.  [default: all of the space]",
)
@option(
    "--networks",
    type=click.IntRange(3),
    group=MEASURING,
    help="Number of networks to measure; with --ranking, to train.  [default: 40; with --ranking 12]",
)
@term_option("statistic", MEASURING, "Latency percentile to predict and to measure.")
@option("--seed", default=0, show_default=True, group=MEASURING, help="Random seed of the choice of networks.")
@precision_option
@protocol_options
@ranking_options
@cell_options
@output_option("Folder for the audit; with --ranking, a JSON file.  [default: audits/… in the workspace]")
@json_option
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
    protocol: Protocol,
    ranking: RankingRequest | None,
    cells: CellChoice | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Check how accurate a target's latency predictions are.

    The command measures networks that the latency model was not fitted on, and compares them with its predictions. It
    writes the audit as JSON, Markdown and a page. Later reports of this target show it.

    With --family darts it measures sizes of the cell network that the model was not fitted on. Give several --cells
    and --channels.

    With --ranking it checks the accuracy ranking instead, and measures no device. It trains some of the supernet's
    networks on their own, from scratch, and compares their ranking with the one by inherited accuracy, by the accuracy
    predictor, and by zero-cost proxies. After an interruption, the same command continues.

    \b
    Examples:
      ofa-deploy audit --target local --networks 40
      ofa-deploy audit --ranking --networks 12 --epochs 3 --dry-run
    """
    if ranking:
        audit_ranking(workspace, ranking, networks, seed, output, as_json)
        return
    from ofa_deploy.api.measuring import NETWORKS
    from ofa_deploy.api.measuring import audit as run
    from ofa_deploy.deploy.weight_sources import cell_family
    from ofa_deploy.store import Workspace

    if cells and (space_name or resolutions):
        raise click.UsageError("--space and --resolution do not work with --family darts: leave them out")
    opened = Workspace.open(workspace)
    with progress() as tell:
        done = run(
            target,
            space=cell_family(cells, opened).space if cells else space_name,
            resolutions=resolutions,
            networks=networks or NETWORKS,
            statistic=statistic,
            precision=precision,
            se=protocol.se,
            cap_s=protocol.cap_s,
            seed=seed,
            output=output,
            workspace=opened,
            progress=tell,
            options=cells.options if cells else None,
        )
    if as_json:
        emit(done.answer)
    else:
        click.echo(f"{audit_text(done.found)}\naudit: {done.folder}   open {done.folder / 'audit.html'}")


def audit_text(found: Audited) -> str:
    """Describe an audit in a few lines."""
    from ofa_deploy.documents.audit_document import Audit
    from ofa_deploy.report.audit_page import level_in_words

    summary = found.summary
    lines = [f"{SIMULATED}{found.target}"] if found.simulated else []
    for name, part in (("model", summary.model), ("sum of blocks", summary.table_only)):
        if part:
            errors = part.errors
            ranks = "" if errors.spearman is None else f"Spearman {errors.spearman:.3f}  "
            lines.append(
                f"{name:14} mean error {100 * errors.mape:5.1f} %  bias {100 * errors.bias:+5.1f} %  "
                f"±5 %: {100 * errors.within_5:3.0f} %  ±10 %: {100 * errors.within_10:3.0f} %  "
                f"{ranks}95 % bound held: {100 * errors.coverage_95:.0f} %"
            )
    lines.append(f"{summary.model.n_heldout} networks, fitted on {summary.model.n_fit} others: {summary.verdict}")
    lines += filter(None, [level_in_words(Audit.read(found.to_json()))])
    return "\n".join(lines)


@command()
@click.argument("arch_files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ARCH_FILE…")
@option("--target", default="local", show_default=True, group=BUDGET, help="Device, which must be profiled.")
@space_option("the one that the file names, or the supernet's")
@precision_option
@option(
    "--confidence",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, True, True),
    help="Probability with which the latency stays below the upper bound.",
)
@option("--strict", is_flag=True, help="Fail if the table lacks a block, instead of estimating its latency.")
@option("--explain", is_flag=True, help="List the blocks with their share of the prediction.")
@now_option
@json_option
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
    now: bool,
    as_json: bool,
) -> None:
    """Predict the latency of subnets on a profiled device.

    The prediction comes with its uncertainty. If the table lacks a block, the command estimates its latency from
    similar blocks or from other devices, which makes the prediction less certain.

    The prediction is for a device that is as fast as when it was profiled. With --now the command measures a few of
    the profile's networks again, and predicts for the device as it is now.

    \b
    Examples:
      ofa-deploy predict --target local arch.json --json
      ofa-deploy predict --target local arch.json --now
    """
    from ofa_deploy.api.supernets import space_of
    from ofa_deploy.fleet import in_precision, resolve_target
    from ofa_deploy.latency_models import predict_archs
    from ofa_deploy.space import PRESETS
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    found = in_precision(resolve_target(target, opened), precision)
    pairs = []
    for file in arch_files:
        data = read_arch(file)
        named = next((name for name in PRESETS if name == data.get("space")), None)
        space = space_of(space_name or named, (), opened, _note)
        pairs.append((space, space.canonical(data)))
    if now:
        from ofa_deploy.fleet.gauge import looking

        with looking(opened, found) as look:
            rows = predict_archs(opened, found, pairs, confidence, strict, explain, look)
    else:
        rows = predict_archs(opened, found, pairs, confidence, strict, explain)
    if as_json:
        emit([row.to_json() for row in rows])
        return
    for file, row in zip(arch_files, rows, strict=True):
        click.echo(
            f"{shout(row.simulated)}{file}: {row.mean_ms:.4g} ms ± {row.std_ms:.2g}, "
            f"with {100 * confidence:g} % confidence below {row.upper_ms:.4g} ms"
        )
        if row.now:
            click.echo(f"  {level_text(row.now)}")
        for block in sorted(row.blocks or (), key=lambda block: -block.posterior_ms):
            click.echo(
                f"  {block.posterior_ms:9.4f} ms ± {block.std_ms:7.4f}  {100 * block.share:5.1f} %  "
                f"{block.name:10} {block.op}  ({block.origin})"
            )


def level_text(now: PredictedNow) -> str:
    """How fast the device is now, in a line."""
    level = now.level
    if level is None:
        return "the device's speed now is not known: its profile has no networks to measure again"
    why = f"; {'; '.join(level.reasons)}" if level.reasons else ""
    if level.disturbed:
        return (
            f"too disturbed to promise anything now: measurements differ by {100 * level.repeatability:.0f} %; "
            f"undisturbed, it takes {now.undisturbed_ms:.4g} ms{why}"
        )
    return f"{slower(level.to_json())}; then it took {now.as_profiled_ms:.4g} ms{why}"


def _note(what: str, _: object) -> None:
    click.echo(what, err=True)


COMMANDS = (profile, audit, predict)
