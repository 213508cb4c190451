"""Measured against predicted: a bundle's ``report.json`` in, Markdown and self-contained HTML out."""

from ofa_deploy.report.comparison import render_comparison
from ofa_deploy.report.html import render_html
from ofa_deploy.report.markdown import render_markdown

__all__ = ["render_comparison", "render_html", "render_markdown"]
