"""The grid search over compound scaling's coefficients on one page: accuracy and work of every network."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_deploy.documents.scaling_document import ScalingPoint
from ofa_deploy.report.figures import card
from ofa_deploy.report.markup import element
from ofa_deploy.report.page import page, table
from ofa_deploy.report.plots import Plot, limits
from ofa_deploy.report.text import accuracy, count

COLUMNS = ("", "α", "β", "γ", "resolution", "parameters", "MACs", "accuracy")


def render_scaling(points: Sequence[ScalingPoint], title: str) -> str:
    """One self-contained page.

    Args:
        points: what ``training.search_scaling`` answers, the most accurate first.
        title: of the page.
    """
    rows = [(i == 0, _row(i + 1, point)) for i, point in enumerate(points)]
    plot = Plot.over(
        "scaling",
        limits([point.macs / 1e6 for point in points]),
        limits([point.accuracy for point in points], 0.12),
    )
    plot.axes("multiply-accumulates (millions)", "accuracy (%)", percent=True)
    for i, point in enumerate(points):
        x, y = point.macs / 1e6, point.accuracy
        words = f"α {point.alpha:g}, β {point.beta:g}, γ {point.gamma:g}: {accuracy(y, point.n)}"
        plot.marker(x, y, "chosen" if i == 0 else "evidence", words, "diamond" if i == 0 else "dot")
        plot.number(x, y, str(i + 1))
    remark = (
        "Every network was trained alone, alike. The numbers are those of the table; accuracy is on held-out images."
    )
    body = [
        element("header", element("p", "ofa-deploy scale --grid"), element("h1", title)),
        table(COLUMNS, rows, "wide compared"),
        element("div", card("Accuracy and work", remark, plot.svg("Accuracy and work of networks")), class_="plots"),
    ]
    return page(title, body)


def _row(place: int, point: ScalingPoint) -> list[str]:
    factors = [f"{factor:g}" for factor in (point.alpha, point.beta, point.gamma)]
    sizes = [count(point.params), count(point.macs)]
    return [str(place), *factors, f"{point.resolution} px", *sizes, accuracy(point.accuracy, point.n)]
