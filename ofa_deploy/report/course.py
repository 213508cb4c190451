"""How a search by gradient went: its loss, how undecided it was, and the latency that it expected."""

from __future__ import annotations

from collections.abc import Callable

from ofa_deploy.documents.report_document import CoursePoint, Report
from ofa_deploy.report.figures import card
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import ms, plain


def render_course(report: Report) -> Markup | None:
    """The pictures, and what guards did; None where nothing was learned."""
    points, budget = report.search.course, report.budget.max_ms
    plots = [
        _plot(points, "loss", "Loss", lambda one: one.loss, "Of the mixture, on images held out from training."),
        _plot(
            points,
            "entropy",
            "Entropy",
            lambda one: one.entropy,
            "How undecided the choices were: 1 where all was equally likely.",
        ),
        _plot(
            points,
            "expected_ms",
            "Expected latency",
            lambda one: one.expected_ms,
            "Of a subnet drawn by the probabilities, in ms.",
            budget,
        ),
    ]
    shown = [plot for plot in plots if plot is not None]
    if not shown:
        return None
    acted = [
        element("li", f"guard {plain(one.guard)}, step {plain(one.step)}: {plain(one.why)}")
        for one in report.search.acted
    ]
    return element(
        "section",
        element("h2", "Search by gradient"),
        element("div", shown, class_="plots"),
        element("ul", acted) if acted else None,
    )


def _plot(
    points: list[CoursePoint],
    id_: str,
    title: str,
    value: Callable[[CoursePoint], float | None],
    remark: str,
    budget: float | None = None,
) -> Markup | None:
    pairs = [(point.step, value(point)) for point in points]
    line = [(x, y) for x, y in pairs if x is not None and y is not None]
    if len(line) < 2:
        return None
    heights = [y for _, y in line] + ([budget] if budget is not None else [])
    plot = Plot.over(f"course-{id_}", limits([x for x, _ in line], 0.0), limits(heights))
    plot.axes("step", title.lower())
    if budget is not None:
        plot.line([(line[0][0], budget), (line[-1][0], budget)], "ideal")
    words = None if budget is None else legend([("ideal", "line", f"budget {ms(budget)}")])
    plot.line(line, "front")
    for x, y in line:
        plot.marker(x, y, "evidence", f"step {x:g}: {y:.4g}", "small")
    return card(title, remark, plot.svg(f"{title} over the steps"), words)
