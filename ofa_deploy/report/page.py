"""What every page is made of: a whole document without network or script, and its parts that pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ofa_deploy.documents.report_document import Report
from ofa_deploy.report import wording
from ofa_deploy.report.markup import Child, Markup, element

STYLE = Markup((Path(__file__).parent / "style.css").read_text(encoding="utf-8"))
ICONS = {"fits": "✓", "over": "✕", "open": "○"}


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


def header_facts(report: Report) -> Markup:
    """Under which conditions the answer holds, and the command that repeats the measurement."""
    shown = element("pre", report.command, class_="command") if report.command else None
    return element("div", element("p", wording.condition_line(report)), shown, class_="repeat")


def note(text: str) -> Markup:
    """A warning."""
    return element("p", f"⚠ {text}", class_="note", role="note")


def alone(plot: Markup) -> str:
    """A plot as an SVG file of its own, with the page's colours."""
    opening, inside = str(plot).split(">", 1)
    size = 'xmlns="http://www.w3.org/2000/svg" width="880" height="660"'
    return f"<svg {size}{opening.removeprefix('<svg')}><style>{STYLE}</style>{inside}\n"
