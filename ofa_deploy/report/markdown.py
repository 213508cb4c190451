"""A report as Markdown, for a terminal or a CI summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ofa_deploy.documents.report_document import Report
from ofa_deploy.report import blocks, wording
from ofa_deploy.report.baseline_verdict import COLUMNS as BESIDE_COLUMNS
from ofa_deploy.report.baseline_verdict import TITLE as BESIDE
from ofa_deploy.report.baseline_verdict import baseline_rows
from ofa_deploy.report.text import plain

ICONS = {"fits": "✅", "over": "❌", "open": "⚪"}


def render_markdown(report: Report) -> str:
    """One report as a Markdown document."""
    answer = wording.verdict(report)
    parts = [f"# {quoted(plain(report.target.name))}: {ICONS[answer.status]} {answer.headline.lower()}"]
    parts += opening(report, answer, report.notes)
    parts.append(table(("figure", "value", ""), wording.figures(report)))
    if found := wording.finalists(report):
        body = [[f"{cells[0]} ← chosen" if chosen else cells[0], *cells[1:]] for chosen, cells in found]
        parts += ["## Measured finalists", table(wording.FINALIST_COLUMNS, body)]
    if beside := report.baselines:
        body = [[f"{cells[0]} ← compared" if best else cells[0], *cells[1:]] for best, cells in baseline_rows(beside)]
        parts += [f"## {BESIDE}", table(BESIDE_COLUMNS, body)]
    if shown := blocks.blocks(report):
        body = [[*block.cells(), block.flags] for block in shown]
        parts += ["## Blocks", quoted(blocks.REMARK), table((*blocks.COLUMNS, "flags"), body)]
    parts += ["## Conditions", table(("condition", "value"), wording.conditions(report))]
    if steps := wording.preprocessing(report):
        parts += ["## Pre-processing", "\n".join(f"{i}. {quoted(step)}" for i, step in enumerate(steps, 1))]
    parts += ["## Subnet", table(("gene", "value"), wording.subnet(report))]
    return "\n\n".join(parts) + "\n"


def opening(report: Report, answer: wording.Verdict, notes: Iterable[str]) -> list[str]:
    """What comes first: the answer, its conditions, the command that repeats the measurement, the warnings."""
    parts = [f"> # ⚠️ {wording.SIMULATED}"] if wording.simulated(report) else []
    parts.append("\n".join(f"- {quoted(line)}" for line in answer.lines))
    parts.append(quoted(wording.condition_line(report)))
    if report.command:
        parts.append(fenced(report.command))
    return [*parts, *(f"> ⚠️ {quoted(note)}" for note in notes)]


def fenced(command: str) -> str:
    """A command as a block of its own, whatever it contains."""
    fence = "`" * (3 + max((len(run) for run in re.findall("`+", command)), default=0))
    return f"{fence}\n{command}\n{fence}"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table of plain texts."""
    lines = [list(head), ["---"] * len(head), *([quoted(cell) for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def quoted(text: str) -> str:
    """Text on one line in which nothing is markup."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", " ".join(text.split()))
