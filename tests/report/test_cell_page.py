import re
from html.parser import HTMLParser

from ofa_deploy.documents.cells_document import CellsFound
from ofa_deploy.documents.report_document import Report
from ofa_deploy.report import render_html
from ofa_deploy.report.cell_page import cells_section, render_cells
from ofa_deploy.report.cell_pictures import strips_svg

CELL = [[["sep_conv_3x3", 0], ["skip_connect", 1]]]
GENOTYPE = {"normal": CELL, "reduce": CELL}
CANDIDATES = ["none", "skip_connect", "sep_conv_3x3"]


def found(epochs):
    rows = [[0.1, 0.2, 0.7], [0.1, 0.8, 0.1]]
    history = [
        {"epoch": i + 1, "loss": 2.0 - 0.1 * i, "entropy": 1.0, "weights": {"normal": rows, "reduce": rows}}
        for i in range(epochs)
    ]
    acted = [{"guard": "max_skips", "why": "<many>"}]
    return {"genotype": GENOTYPE, "nodes": GENOTYPE, "history": history, "candidates": CANDIDATES, "acted": acted}


def test_a_page_shows_cells_edges_and_figures():
    page = render_cells(CellsFound.read(found(30)), "mine")
    HTMLParser().feed(page)
    assert "normal cell: weights of its edges" in page
    assert page.count("→ 0</text>") == 4  # every edge of both cells
    assert "guard max_skips: &lt;many&gt;" in page
    assert re.search(r"<td>30</td><td>-0.9</td>", page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_strips_frame_what_was_derived_and_show_weights_as_darkness():
    svg = strips_svg(CellsFound.read(found(3)))
    assert svg.count('stroke="#000"') == 4
    assert 'fill-opacity="1.00"' in svg
    assert 'fill-opacity="0.12"' in svg  # 0.1 of 0.8


def test_a_genotype_alone_has_no_course():
    page = render_cells(CellsFound.read(GENOTYPE), "mine")
    assert "Course" not in page
    assert "sep_conv_3x3" in page


def test_a_report_has_cells_where_its_network_has():
    provenance = {"space": {"genotype": GENOTYPE}}
    assert cells_section(Report()) is None
    assert "→ 0" not in cells_section(Report.read({"provenance": provenance}))
    assert "→ 0" in render_html(Report.read({"provenance": provenance, "cells": found(2)}))
