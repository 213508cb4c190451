"""The pictures of a report: predicted against measured, errors of predictions, the accuracy-latency front."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from ofa_deploy.documents.audit_document import TimedNetwork
from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.report_document import FrontPoint, Report
from ofa_deploy.intervals import Z95
from ofa_deploy.report import wording
from ofa_deploy.report.baseline_plot import SWATCH, draw_baselines, plotted
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import ms, predicted, predictor_std, signed_pct
from ofa_deploy.terms import Statistic

BANDS = (0.10, 0.05)
ROLES = {"evidence": "dot", "audit": "dot", "finalist": "dot", "chosen": "diamond"}  # and how they are drawn
ROLE_WORDS = {
    "evidence": "the model's evidence, each predicted without itself",
    "audit": "audited, predicted before it was measured",
    "finalist": "finalist, predicted before it was measured",
    "chosen": "chosen, predicted before it was measured",
}


def card(title: str, remark: str, *content: Child) -> Markup:
    """A framed picture with its title."""
    return element("section", element("h2", title), element("p", remark), *content, class_="card")


class Timed(NamedTuple):
    """A whole network that was measured and predicted; milliseconds."""

    role: str
    key: str
    measured: float
    predicted: float
    table: float | None
    std: float | None


def scatter(networks: Sequence[TimedNetwork], statistic: Statistic) -> Markup:
    """Predicted against measured latency of every whole network, with bands of ±5 % and ±10 %."""
    title = "Predicted against measured"
    remark = "Whole networks on this target; on the dashed line a prediction is exact."
    points = _timed(networks)
    if not points:
        return card(title, remark, element("p", "No whole network was measured.", class_="empty"))
    low, high = limits([point.measured for point in points])
    values = [value for p in points for value in (p.measured, p.predicted, p.table) if value is not None]
    plot = Plot.over("scatter", (low, high), limits(values))
    for share in BANDS:
        edges = ((low, 1 - share), (high, 1 - share), (high, 1 + share), (low, 1 + share))
        plot.area([(x, x * factor) for x, factor in edges], "band")
    plot.axes(f"measured {statistic} (ms)", "predicted (ms)")
    plot.line([(low, low), (high, high)], "ideal")
    for point in points:
        _draw(plot, point)
    return card(title, remark, plot.svg("Scatter of predicted against measured latency"), _scatter_legend(points))


def errors(networks: Sequence[TimedNetwork], statistic: Statistic) -> Markup:
    """Signed error of every prediction over the measured latency, with the bands of ±5 % and ±10 %."""
    title, remark = "Error of every prediction", "Above the dashed line the model said more than was measured."
    points = [(p, p.predicted / p.measured - 1) for p in _timed(networks)]
    if not points:
        return card(title, remark, element("p", "No whole network was measured.", class_="empty"))
    low, high = limits([point.measured for point, _ in points])
    reach = 1.1 * max(BANDS[1], *(abs(error) for _, error in points))
    plot = Plot.over("errors", (low, high), (-reach, reach))
    for share in BANDS:
        plot.area([(low, -share), (high, -share), (high, share), (low, share)], "band")
    plot.axes(f"measured {statistic} (ms)", "predicted − measured (%)", percent=True)
    plot.line([(low, 0.0), (high, 0.0)], "ideal")
    for point, error in points:
        if point.std is not None:
            spread = point.std / point.measured
            plot.line([(point.measured, error - spread), (point.measured, error + spread)], "spread")
        name = f"{point.role} {point.key}: measured {ms(point.measured)}, predicted {ms(point.predicted)}"
        plot.marker(point.measured, error, point.role, f"{name} ({signed_pct(100 * error)})", ROLES[point.role])
    drawn = [point._replace(table=None) for point, _ in points]
    return card(title, remark, plot.svg("Signed error of predictions over measured latency"), _scatter_legend(drawn))


def _timed(networks: Sequence[TimedNetwork]) -> list[Timed]:
    """The networks that were predicted and measured, the chosen one last, so that it is drawn on top."""
    found = []
    for row in networks:
        if row.measured_ms and row.predicted_ms is not None:
            role = row.role if row.role in ROLES else "evidence"
            found.append(
                Timed(role, wording.short(row.key), row.measured_ms, row.predicted_ms, row.table_ms, row.std_ms)
            )
    return sorted(found, key=lambda point: list(ROLES).index(point.role))


def _draw(plot: Plot, point: Timed) -> None:
    x, y = point.measured, point.predicted
    name = f"{point.role} {point.key}: measured {ms(x)}"
    if point.table is not None:
        plot.marker(x, point.table, "table", f"{name}, sum of blocks {ms(point.table)}", "ring")
    if point.std is not None:
        plot.line([(x, y - point.std), (x, y + point.std)], "spread")
    plot.marker(x, y, point.role, f"{name}, predicted {ms(y)} ({signed_pct(100 * (y / x - 1))})", ROLES[point.role])


def _scatter_legend(points: list[Timed]) -> Markup:
    roles = {point.role for point in points}
    entries = [(role, ROLES[role], words) for role, words in ROLE_WORDS.items() if role in roles]
    if any(point.table is not None for point in points):
        entries.append(("table", "ring", "sum of its blocks"))
    return legend([*entries, ("spread", "line", "± one standard deviation"), ("band", "area", "±5 %, ±10 %")])


def front(report: Report) -> Markup | None:
    """The Pareto front of predicted accuracy and latency, the budget, the chosen subnet; None without accuracies."""
    title, remark = "Accuracy and latency", "The best that was found at every latency, by prediction."
    points = front_points(report.front)
    if not points:
        return None
    chosen = _chosen(report)
    budget = report.budget.max_ms
    xs = [x for x, _ in points] + ([budget] if budget is not None else []) + [x for x, _ in chosen]
    error = report.accuracy.predictor_error
    edges, beside = band(points, error), plotted(report.baselines.networks if report.baselines else ())
    heights = [y for _, y in [*points, *chosen, *edges]] + [end for one in beside for end in one.interval]
    plot = Plot.over("front", limits(xs + [one.ms for one in beside]), limits(heights, 0.12))
    plot.axes("latency (ms)", "predicted accuracy (%)", percent=True)
    if edges:
        plot.area(edges, "band")
    if budget is not None:
        plot.budget(budget, f"budget {ms(budget)}")
    plot.line(points, "front")
    for x, y in points:
        plot.marker(x, y, "evidence", f"predicted {ms(x)}, {predicted(y, error)}")
    entries = [("evidence", "dot", "front, predicted latency")]
    if beside:
        draw_baselines(plot, beside)
        entries.append(SWATCH)
    if edges:
        entries.append(("band", "area", "95 % of the accuracy predictor's error"))
    if len(chosen) > 1:
        plot.line(chosen, "link")
    if chosen:
        tip = f"chosen: predicted {ms(chosen[0][0])}, {predicted(chosen[0][1], error)}"
        plot.marker(*chosen[0], "before", tip, "diamond")
        entries.append(("before", "diamond", "chosen, as predicted"))
    if len(chosen) > 1:
        plot.marker(*chosen[1], "chosen", f"chosen: measured {ms(chosen[1][0])}", "diamond")
        entries.append(("chosen", "diamond", "chosen, measured latency"))
    return card(title, remark, plot.svg("Front of accuracy and latency"), legend(entries))


def band(
    points: Sequence[tuple[float, float]], error: PredictorError | None, n: float | None = None
) -> list[tuple[float, float]]:
    """The outline of where 95 % of the accuracies lie that were predicted as points; empty where that is not known.

    Args:
        points: latency and predicted accuracy, by latency.
        error: the accuracy predictor's.
        n: the number of images that the accuracies are counted on; that of all images without.
    """
    std = predictor_std(error)
    if std is None:
        return []
    counted = [y * (1 - y) / n if n is not None and n > 0 else 0.0 for _, y in points]
    halves = [Z95 * sqrt(std**2 + max(variance, 0.0)) for variance in counted]
    above = [(x, min(y + half, 1.0)) for (x, y), half in zip(points, halves, strict=True)]
    below = [(x, max(y - half, 0.0)) for (x, y), half in zip(points, halves, strict=True)]
    return [*above, *reversed(below)]


def front_points(points: Sequence[FrontPoint]) -> list[tuple[float, float]]:
    """Latency in ms and accuracy of every point of a front, by latency."""
    return sorted((p.latency_ms, p.accuracy) for p in points if p.latency_ms is not None and p.accuracy is not None)


def _chosen(report: Report) -> list[tuple[float, float]]:
    """Where the chosen subnet lies: at its predicted latency and, if it was measured, at the measured one."""
    accuracy, latency = report.accuracy.predicted, report.latency
    if accuracy is None:
        return []
    return [(x, accuracy) for x in (latency.predicted_ms, latency.measured("p50")) if x is not None]
