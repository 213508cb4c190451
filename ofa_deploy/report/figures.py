"""The three pictures of a report: predicted against measured, the accuracy-latency front, time per block."""

from __future__ import annotations

from typing import Any, NamedTuple

from ofa_deploy.report import facts
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import get, ms, number, pct, plain, rows, signed_pct

BANDS = (0.10, 0.05)
ROLES = {"evidence": "dot", "finalist": "dot", "chosen": "diamond"}  # and how they are drawn
ROLE_WORDS = {
    "evidence": "the model's evidence, each predicted without itself",
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


def scatter(report: dict[str, Any]) -> Markup:
    """Predicted against measured latency of every whole network, with bands of ±5 % and ±10 %."""
    title = "Predicted against measured"
    remark = "Whole networks on this target; on the dashed line a prediction is exact."
    points = _timed(report)
    if not points:
        return card(title, remark, element("p", "No whole network was measured.", class_="empty"))
    values = [value for p in points for value in (p.measured, p.predicted, p.table) if value is not None]
    low, high = limits(values)
    plot = Plot.over("scatter", (low, high), (low, high))
    for share in BANDS:
        edges = ((low, 1 - share), (high, 1 - share), (high, 1 + share), (low, 1 + share))
        plot.area([(x, x * factor) for x, factor in edges], "band")
    plot.axes("measured p50 (ms)", "predicted (ms)")
    plot.line([(low, low), (high, high)], "ideal")
    for point in points:
        _draw(plot, point)
    return card(title, remark, plot.svg("Scatter of predicted against measured latency"), _scatter_legend(points))


def _timed(report: dict[str, Any]) -> list[Timed]:
    """The networks of a report, the chosen one last, so that it is drawn on top."""
    found = []
    for row in rows(report, "networks"):
        measured, predicted = number(row.get("measured_ms")), number(row.get("predicted_ms"))
        if measured and predicted is not None:
            role = next((role for role in ROLES if role == row.get("role")), "evidence")
            extra = number(row.get("table_ms")), number(row.get("std_ms"))
            found.append(Timed(role, facts.short(row.get("key")), measured, predicted, *extra))
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


def front(report: dict[str, Any]) -> Markup:
    """The Pareto front of predicted accuracy and latency, the budget, and the chosen subnet."""
    title, remark = "Accuracy and latency", "The best that was found at every latency, by prediction."
    points = front_points(report)
    if not points:
        return card(title, remark, element("p", "Accuracy was not predicted: there is no front.", class_="empty"))
    chosen = _chosen(report)
    budget = number(get(report, "budget.max_ms"))
    xs = [x for x, _ in points] + ([budget] if budget is not None else []) + [x for x, _ in chosen]
    plot = Plot.over("front", limits(xs), limits([y for _, y in [*points, *chosen]], 0.12))
    plot.axes("latency (ms)", "predicted accuracy (%)", percent=True)
    if budget is not None:
        plot.budget(budget, f"budget {ms(budget)}")
    plot.line(points, "front")
    for x, y in points:
        plot.marker(x, y, "evidence", f"predicted {ms(x)}, {pct(y)}")
    entries = [("evidence", "dot", "front, predicted latency")]
    if len(chosen) > 1:
        plot.line(chosen, "link")
    if chosen:
        plot.marker(*chosen[0], "before", f"chosen: predicted {ms(chosen[0][0])}, {pct(chosen[0][1])}", "diamond")
        entries.append(("before", "diamond", "chosen, as predicted"))
    if len(chosen) > 1:
        plot.marker(*chosen[1], "chosen", f"chosen: measured {ms(chosen[1][0])}", "diamond")
        entries.append(("chosen", "diamond", "chosen, measured latency"))
    return card(title, remark, plot.svg("Front of accuracy and latency"), legend(entries))


def front_points(report: dict[str, Any]) -> list[tuple[float, float]]:
    """Latency in ms and accuracy of every point of the front, by latency."""
    pairs = [(number(p.get("latency_ms")), number(p.get("accuracy"))) for p in rows(report, "front")]
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def _chosen(report: dict[str, Any]) -> list[tuple[float, float]]:
    """Where the chosen subnet lies: at its predicted latency and, if it was measured, at the measured one."""
    accuracy = number(get(report, "accuracy.predicted"))
    if accuracy is None:
        return []
    latencies = [number(get(report, f"latency.{path}")) for path in ("predicted_ms", "measured_ms.p50")]
    return [(x, accuracy) for x in latencies if x is not None]


def blocks(report: dict[str, Any]) -> Markup | None:
    """Time per block: what the table says, and what the whole networks taught the model."""
    found = rows(report, "blocks")
    times = [number(row.get(name)) for row in found for name in ("table_ms", "posterior_ms")]
    longest = max((time for time in times if time is not None), default=0.0)
    if longest <= 0:
        return None
    entries = [
        ("posterior", "area", "posterior: what it adds to a whole network"),
        ("sum", "area", "table: measured alone"),
    ]
    return element(
        "section",
        element("h2", "Time per block"),
        element("p", "In the order of execution; the posteriors add up to the predicted latency."),
        legend(entries),
        element("br"),
        [_block(row, longest) for row in found],
        class_="card blocks",
    )


def _block(row: dict[str, Any], longest: float) -> Markup:
    table, posterior = number(row.get("table_ms")), number(row.get("posterior_ms"))
    name, flags = plain(row.get("name")), row.get("flags")
    tip = f"{name}: table {ms(table)}, posterior {ms(posterior)}"
    bars = element(
        "svg",
        element("title", tip),
        _bar(posterior, longest, "posterior", 0, 10),
        _bar(table, longest, "sum", 12, 5),
        role="img",
        aria_label=tip,
    )
    marked = element("small", f"⚑ flagged: {plain(flags)}") if flags else None
    value = element(
        "div",
        ms(posterior if posterior is not None else table),
        element("small", pct(row.get("share"), "", 1)),
        class_="value",
    )
    return element(
        "div", element("div", name, element("small", plain(row.get("op"))), marked), bars, value, class_="block"
    )


def _bar(value: float | None, longest: float, class_: str, y: int, height: int) -> Markup | None:
    if value is None:
        return None
    return element("rect", x=0, y=y, height=height, width=f"{max(100 * value / longest, 0):.1f}%", rx=2, class_=class_)
