"""Measured against predicted: the JSON of reports and audits in, Markdown and self-contained HTML out."""

from ofa_deploy.report.audit_page import render_audit_html, render_audit_markdown
from ofa_deploy.report.comparison import render_comparison
from ofa_deploy.report.html import render_html
from ofa_deploy.report.markdown import render_markdown
from ofa_deploy.report.ranking_page import render_ranking_html, render_ranking_markdown
from ofa_deploy.report.scaling_page import render_scaling
from ofa_deploy.report.wording import SIMULATED

__all__ = [
    "SIMULATED",
    "render_audit_html",
    "render_audit_markdown",
    "render_comparison",
    "render_html",
    "render_markdown",
    "render_ranking_html",
    "render_ranking_markdown",
    "render_scaling",
]
