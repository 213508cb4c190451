"""`audit --ranking`: compare networks trained on their own with what supernet, predictor and proxies say of them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import RANKING, gathered, option, supernet_option
from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.deploy.ranking_audit_run import Plan, RankingAudit
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.documents.ranking_document import Agreement, Ranking

NETWORKS = 12
OPTIONS = (
    option(
        "--ranking",
        is_flag=True,
        group=RANKING,
        help="Check the accuracy ranking instead of latencies, by training networks on their own.",
    ),
    supernet_option(RANKING),
    option(
        "--epochs",
        type=click.IntRange(1),
        group=RANKING,
        help="Epochs of each training.  [default: a quarter of the recipe's]",
    ),
    option(
        "--seeds",
        type=click.IntRange(1),
        group=RANKING,
        help="Train each network with N random seeds.  [default: 2]",
    ),
    option(
        "--repeat",
        type=click.IntRange(3),
        group=RANKING,
        help="Train only N of the networks with more than one seed.  [default: all of them]",
    ),
    option(
        "--dry-run",
        is_flag=True,
        group=RANKING,
        help="List what --ranking would train, with the expected time, and stop.",
    ),
)


@dataclass(frozen=True)
class RankingRequest:
    """The options of `audit --ranking` that other audits do not have."""

    supernet: Path | None
    epochs: int | None
    seeds: int
    repeat: int | None
    dry_run: bool


def _request(values: dict[str, Any]) -> RankingRequest | None:
    asked = values.pop("ranking")
    if not asked and (named := [name for name, value in values.items() if value]):
        raise click.UsageError(f"--{named[0].replace('_', '-')} needs --ranking")
    return RankingRequest(**{**values, "seeds": values["seeds"] or 2}) if asked else None


# the command's argument ``ranking``: a ``RankingRequest``; None without --ranking
ranking_options = gathered("ranking", OPTIONS, _request)


def audit_ranking(
    workspace: Path | None, request: RankingRequest, networks: int | None, seed: int, output: Path | None, as_json: bool
) -> None:
    """Run the audit, keep its answer, and print it."""
    from ofa_deploy.api.supernets import load_supernet
    from ofa_deploy.deploy.audits import keep_ranking
    from ofa_deploy.deploy.ranking_audit_run import Plan, RankingAudit
    from ofa_deploy.store import Workspace

    opened = Workspace.open(workspace)
    plan = Plan(networks or NETWORKS, request.epochs, request.seeds, request.repeat, seed)
    with progress() as tell:
        subject = load_supernet(request.supernet, seed=seed, workspace=opened, progress=tell)
        audit = RankingAudit(opened, subject, plan)
        expected = audit.expected()
        left = sum(expected[i] for i in audit.missing())
        click.echo(_outlook(audit, expected, left), err=True)
        if request.dry_run:
            _tell_plan(audit, expected, left, as_json)
            return
        found = audit.run(expected, lambda p: tell("audit ranking", p))
    found = found.model_copy(update={"command": _command(subject, plan, audit.epochs)})
    file = keep_ranking(opened, found, output)
    if as_json:
        emit(found.to_json())
    else:
        click.echo(f"{ranking_text(found)}\naudit: {output or file}, page: {file.with_suffix('.html')}")


def _outlook(audit: RankingAudit, expected: list[float], left: float) -> str:
    return (
        f"{len(audit.archs)} networks, {len(audit.labels)} trainings of {audit.epochs} epochs, about "
        f"{min(expected):.0f} to {max(expected):.0f} s each; {len(audit.missing())} are left, which take about "
        f"{left / 60:.1f} min"
    )


def _tell_plan(audit: RankingAudit, expected: list[float], left: float, as_json: bool) -> None:
    labels = list(zip(audit.labels, expected, strict=True))
    if as_json:
        shown = [{"key": label.arch.key, "seed": label.seed, "expected_s": seconds} for label, seconds in labels]
        emit({"epochs": audit.epochs, "labels": shown, "missing": audit.missing(), "expected_s": left})
        return
    for label, seconds in labels:
        click.echo(f"{label.arch.key[:12]}  seed {label.seed}  about {seconds:.1f} s")


def _command(subject: Subject, plan: Plan, epochs: int) -> str:
    """The command that repeats the audit."""
    words = ["ofa-deploy", "audit", "--ranking", "--networks", str(plan.networks), "--epochs", str(epochs)]
    words += ["--seeds", str(plan.seeds), "--seed", str(plan.seed)]
    words += ["--repeat", str(plan.repeat)] if plan.repeat else []
    return shlex.join([*words, "--supernet", str(subject.path)])


def ranking_text(found: Ranking) -> str:
    """A ranking audit as a table: first the ceiling, then the scores from best to worst."""
    rows = [("two seeds, from scratch", found.ceiling)] if found.ceiling else []
    rows += sorted(found.scores.items(), key=lambda score: _rank(score[1].tau))
    lines = [f"{'':26} Kendall τ  95 % interval      ms per network"]
    lines += [f"{name:26} {_tau(score)}{_milliseconds(score)}".rstrip() for name, score in rows]
    mean, least, most = (100 * (value or 0.0) for value in (found.gap.mean, found.gap.least, found.gap.most))
    lines.append(
        f"{found.networks} networks trained from scratch for {found.epochs} epochs; inherited accuracy minus "
        f"theirs: mean {mean:+.2f} points ({least:+.2f} to {most:+.2f})"
    )
    return "\n".join(lines)


def _rank(tau: float | None) -> tuple[bool, float]:
    """Best first; a τ of 0 is a result, an undefined one comes last."""
    return tau is None, 0.0 if tau is None else -tau


def _tau(score: Agreement) -> str:
    if score.tau is None:
        return f"{'–':>9}  {'all are equal':20}"
    interval = "" if score.low is None or score.high is None else f"{score.low:.2f} to {score.high:.2f}"
    return f"{score.tau:9.2f}  {interval:20}"


def _milliseconds(score: Agreement) -> str:
    return "" if score.ms is None else f"{score.ms:10.3g}"
