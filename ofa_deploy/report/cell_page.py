"""Cells as a page of their own, and as a part of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ofa_deploy.report.cell_pictures import FIGURES, cells_svg, strips_svg
from ofa_deploy.report.html import note, page, table
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.text import get

STRIPS = (
    "Every edge with all of its operations, epoch by epoch from left to right: the darker, the more it weighs. What is "
    "framed was derived."
)


def render_cells(found: Mapping[str, Any], title: str) -> str:
    """One self-contained page.

    Args:
        found: ``search.json``, or a genotype.
    """
    body = [
        element("header", element("p", "ofa-deploy darts"), element("h1", title)),
        [note(f"guard {guard['guard']}: {guard['why']}") for guard in found.get("acted", ())],
        _pictures(found),
        _course(found.get("history", ())),
    ]
    return page(title, body)


def cells_section(report: Mapping[str, Any]) -> Markup | None:
    """The cells of a report's network, with the course of the search where that is known; None for other networks."""
    genotype = get(dict(report), "provenance.space.genotype")
    if not isinstance(genotype, dict):
        return None
    return element("section", element("h2", "Cells"), _pictures(report.get("cells") or genotype))


def _pictures(found: Mapping[str, Any]) -> Child:
    nodes = found.get("nodes") or found.get("genotype", found)
    history, candidates = found.get("history", ()), found.get("candidates", ())
    parts = [element("div", Markup(cells_svg(nodes, history, candidates)), class_="card scroll")]
    if len(history) > 1:
        strips = element("div", Markup(strips_svg(nodes, history, candidates)), class_="scroll")
        parts.append(element("div", element("p", STRIPS), strips, class_="card"))
    return parts


def _course(history: Sequence[Mapping[str, Any]]) -> Child:
    """Every epoch's figures."""
    names = [name for name in FIGURES if any(name in record for record in history)]
    if not names:
        return None
    rows = [
        (False, [record["epoch"], *(f"{record[n]:.4g}" if n in record else "–" for n in names)]) for record in history
    ]
    return element("section", element("h2", "Course of the search"), table(("epoch", *names), rows))
