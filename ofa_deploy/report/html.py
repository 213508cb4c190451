"""A report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ofa_deploy.report import figures, wording
from ofa_deploy.report.blocks import render_blocks
from ofa_deploy.report.course import render_course
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.text import NOT_MEASURED, NOT_PREDICTED, get, ms, number, plain

STYLE = Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8"))
ICONS = {"fits": "✓", "over": "✕", "open": "○"}
ABSENT = (NOT_MEASURED, NOT_PREDICTED, "unknown")


def render_html(report: dict[str, Any]) -> str:
    """One report as a self-contained page.

    Args:
        report: ``report.json``; anything in it may be null.
    """
    from ofa_deploy.report.cell_page import cells_section  # which makes pages too

    title = f"{plain(get(report, 'target.name'))}: {_limit(report)}"
    body = [
        banner(wording.simulated(report)),
        element("header", element("p", "ofa-deploy report"), element("h1", title)),
        verdict_card(wording.verdict(report)),
        header_facts(report),
        [note(text) for text in wording.notes(report)],
        element("dl", [_figure(*row) for row in wording.figures(report)], class_="figures"),
        element("div", figures.scatter(report), figures.front(report) or figures.errors(report), class_="plots"),
        render_course(report),
        render_blocks(report),
        cells_section(report),
        _finalists(report),
        element(
            "div",
            element("section", element("h2", "Conditions"), pairs(wording.conditions(report))),
            element("section", element("h2", "Subnet"), pairs(wording.subnet(report))),
            class_="columns",
        ),
        _preprocessing(report),
        _provenance(report),
    ]
    return page(title, body)


def _limit(report: dict[str, Any]) -> str:
    budget = number(get(report, "budget.max_ms"))
    return "no latency budget" if budget is None else f"within {ms(budget)}"


def page(title: str, body: Child) -> str:
    """A whole document."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", STYLE),
    )
    return "<!doctype html>\n" + element("html", head, element("body", element("main", body)), lang="en") + "\n"


def banner(simulated: bool) -> Markup | None:
    """What nobody may overlook."""
    return element("p", wording.SIMULATED, class_="simulated", role="alert") if simulated else None


def pairs(found: Iterable[tuple[str, str]]) -> Markup:
    """A table of names and values."""
    body = [element("tr", element("th", name, scope="row"), element("td", value)) for name, value in found]
    return element("div", element("table", element("tbody", body)), class_="card scroll")


def table(head: Sequence[str], body: Iterable[tuple[bool, Sequence[Child]]], class_: str = "wide") -> Markup:
    """A table that scrolls sideways where it is too wide; rows are marked or not."""
    rows = [
        element("tr", [element("td", cell) for cell in cells], class_="chosen" if marked else None)
        for marked, cells in body
    ]
    titles = element("thead", element("tr", [element("th", cell, scope="col") for cell in head]))
    return element("div", element("table", titles, element("tbody", rows), class_=class_), class_="card scroll")


def verdict_card(answer: wording.Verdict) -> Markup:
    """The answer, before anything else."""
    icon = element("span", ICONS[answer.status], class_="icon", aria_hidden="true")
    lines = [element("p", line) for line in answer.lines]
    return element(
        "section",
        icon,
        element("div", element("strong", answer.headline), lines),
        class_=f"card verdict {answer.status}",
    )


def header_facts(report: dict[str, Any]) -> Markup:
    """Under which conditions the answer holds, and the command that repeats the measurement."""
    command = get(report, "command")
    shown = element("pre", plain(command), class_="command") if command else None
    return element("div", element("p", wording.condition_line(report)), shown, class_="repeat")


def note(text: str) -> Markup:
    """A warning."""
    return element("p", f"⚠ {text}", class_="note", role="note")


def _figure(name: str, value: str, remark: str) -> Markup:
    shown = element("dd", value, class_="absent" if value in ABSENT else None)
    return element("div", element("dt", name), shown, element("dd", remark) if remark else None, class_="card")


def _finalists(report: dict[str, Any]) -> Child:
    found = wording.finalists(report)
    if not found:
        return None
    return element("section", element("h2", "Measured finalists"), table(wording.FINALIST_COLUMNS, found))


def _preprocessing(report: dict[str, Any]) -> Child:
    steps = wording.preprocessing(report)
    if not steps:
        return None
    listed = element("ol", [element("li", step) for step in steps], class_="card steps")
    return element("section", element("h2", "Pre-processing"), listed)


def _provenance(report: dict[str, Any]) -> Markup:
    text = json.dumps(get(report, "provenance") or {}, indent=2, sort_keys=True, ensure_ascii=False)
    return element("details", element("summary", "Provenance"), element("pre", text, class_="card"))


def alone(plot: Markup) -> str:
    """A plot as an SVG file of its own, with the page's colours."""
    opening, inside = str(plot).split(">", 1)
    size = 'xmlns="http://www.w3.org/2000/svg" width="880" height="660"'
    return f"<svg {size}{opening.removeprefix('<svg')}><style>{STYLE}</style>{inside}\n"
