"""Cells as a page of their own, and as a part of a report."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_deploy.documents.cells_document import CellsFound, EpochRecord
from ofa_deploy.documents.report_document import Report
from ofa_deploy.report.cell_pictures import FIGURES, cells_svg, strips_svg
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.page import note, page, table
from ofa_deploy.report.text import plain

STRIPS = (
    "Every edge with all of its operations, epoch by epoch from left to right: the darker, the more it weighs. What is "
    "framed was derived."
)


def render_cells(found: CellsFound, title: str) -> str:
    """One self-contained page."""
    body = [
        element("header", element("p", "ofa-deploy darts"), element("h1", title)),
        [note(f"guard {plain(one.guard)}: {plain(one.why)}") for one in found.acted],
        _pictures(found),
        _course(found.history),
    ]
    return page(title, body)


def cells_section(report: Report) -> Markup | None:
    """The cells of a report's network, with the course of the search where that is known; None for other networks."""
    genotype = (report.provenance.space or {}).get("genotype")
    if not isinstance(genotype, dict):
        return None
    return element("section", element("h2", "Cells"), _pictures(CellsFound.read(report.cells or genotype)))


def _pictures(found: CellsFound) -> Child:
    parts = [element("div", Markup(cells_svg(found)), class_="card scroll")]
    if len(found.history) > 1:
        strips = element("div", Markup(strips_svg(found)), class_="scroll")
        parts.append(element("div", element("p", STRIPS), strips, class_="card"))
    return parts


def _course(history: Sequence[EpochRecord]) -> Child:
    """Every epoch's figures."""
    epochs = [(one.epoch, one.figures()) for one in history]
    names = [name for name in FIGURES if any(figures[name] is not None for _, figures in epochs)]
    if not names:
        return None
    rows = [(False, [plain(epoch), *(_figure(figures[name]) for name in names)]) for epoch, figures in epochs]
    return element("section", element("h2", "Course of the search"), table(("epoch", *names), rows))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
