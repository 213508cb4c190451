"""A report as Markdown, for a terminal or a CI summary."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ofa_deploy.report import facts
from ofa_deploy.report.text import get, ms, pct, plain, rows

ICONS = {"fits": "✅", "over": "❌", "open": "⚪"}


def render_markdown(report: dict[str, Any]) -> str:
    """One report as a Markdown document.

    Args:
        report: ``report.json``; anything in it may be null.
    """
    answer = facts.verdict(report)
    parts = [f"# {_md(plain(get(report, 'target.name')))}: {ICONS[answer.status]} {answer.headline.lower()}"]
    if facts.simulated(report):
        parts.append(f"> # ⚠️ {facts.SIMULATED}")
    parts.append("\n".join(f"- {_md(line)}" for line in answer.lines))
    parts += [f"> ⚠️ {_md(note)}" for note in facts.notes(report)]
    parts.append(_table(("figure", "value", ""), facts.figures(report)))
    if found := facts.finalists(report):
        body = [[f"{cells[0]} ← chosen" if chosen else cells[0], *cells[1:]] for chosen, cells in found]
        parts += ["## Measured finalists", _table(facts.FINALIST_COLUMNS, body)]
    if blocks := rows(report, "blocks"):
        parts += ["## Blocks", _table(("block", "op", "table", "posterior", "share"), map(_block, blocks))]
    parts += ["## Conditions", _table(("condition", "value"), facts.conditions(report))]
    parts += ["## Subnet", _table(("gene", "value"), facts.subnet(report))]
    if command := get(report, "command"):
        fence = "`" * (3 + max((len(run) for run in re.findall("`+", str(command))), default=0))
        parts += ["## Repeat it", f"{fence}\n{command}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def _block(row: dict[str, Any]) -> list[str]:
    times = [ms(row.get(name), "–") for name in ("table_ms", "posterior_ms")]
    return [plain(row.get("name")), plain(row.get("op")), *times, pct(row.get("share"), "–", 1)]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *([_md(cell) for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _md(text: str) -> str:
    """Text on one line in which nothing is markup."""
    return re.sub(r"([\\`*\[\]<>|&])", r"\\\1", " ".join(text.split()))
