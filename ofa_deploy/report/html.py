"""A report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

import json

from ofa_deploy.documents.report_document import Report
from ofa_deploy.report import figures, wording
from ofa_deploy.report.baseline_verdict import baselines_section
from ofa_deploy.report.blocks import render_blocks
from ofa_deploy.report.cell_page import cells_section
from ofa_deploy.report.course import render_course
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.page import banner, header_facts, note, page, pairs, table, verdict_card
from ofa_deploy.report.text import NOT_MEASURED, NOT_PREDICTED, ms, plain

ABSENT = (NOT_MEASURED, NOT_PREDICTED, "unknown")


def render_html(report: Report) -> str:
    """One report as a self-contained page."""
    budget = report.budget.max_ms
    limit = "no latency budget" if budget is None else f"within {ms(budget)}"
    title, timed = f"{plain(report.target.name)}: {limit}", (report.networks, report.budget.statistic)
    body = [
        banner(wording.simulated(report)),
        element("header", element("p", "ofa-deploy report"), element("h1", title)),
        verdict_card(wording.verdict(report)),
        header_facts(report),
        [note(text) for text in report.notes],
        element("dl", [_figure(*row) for row in wording.figures(report)], class_="figures"),
        element("div", figures.scatter(*timed), figures.front(report) or figures.errors(*timed), class_="plots"),
        render_course(report),
        render_blocks(report),
        cells_section(report),
        _finalists(report),
        baselines_section(report.baselines),
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


def _figure(name: str, value: str, remark: str) -> Markup:
    shown = element("dd", value, class_="absent" if value in ABSENT else None)
    return element("div", element("dt", name), shown, element("dd", remark) if remark else None, class_="card")


def _finalists(report: Report) -> Child:
    found = wording.finalists(report)
    if not found:
        return None
    return element("section", element("h2", "Measured finalists"), table(wording.FINALIST_COLUMNS, found))


def _preprocessing(report: Report) -> Child:
    steps = wording.preprocessing(report)
    if not steps:
        return None
    listed = element("ol", [element("li", step) for step in steps], class_="card steps")
    return element("section", element("h2", "Pre-processing"), listed)


def _provenance(report: Report) -> Markup:
    text = json.dumps(report.provenance.to_json(), indent=2, sort_keys=True, ensure_ascii=False)
    return element("details", element("summary", "Provenance"), element("pre", text, class_="card"))
