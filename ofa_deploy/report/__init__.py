"""Measured against predicted: the JSON of reports and audits in, Markdown and self-contained HTML out."""

from ofa_deploy.report.audit import render_audit_html, render_audit_markdown
from ofa_deploy.report.comparison import render_comparison
from ofa_deploy.report.facts import SIMULATED
from ofa_deploy.report.html import render_html
from ofa_deploy.report.markdown import render_markdown
from ofa_deploy.report.ranking import render_ranking_html, render_ranking_markdown
from ofa_deploy.report.scaling import render_scaling

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
