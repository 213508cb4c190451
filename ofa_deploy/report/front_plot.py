"""The fronts of accuracy against latency of one device or several, as a picture and as one page."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_deploy.documents.fronts_document import FrontsFound
from ofa_deploy.report.baseline_plot import SWATCH, draw_baselines, plotted
from ofa_deploy.report.figures import band, card, front_points
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.page import alone, banner, page, table
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import ms, plain, predicted

COLOURS = 7  # that the style sheet has
REMARK = (
    "Predicted: the best that was found at every latency, in a band of 95 % of the accuracy predictor's error, where "
    "that is known. extract measures before it promises."
)


def render_fronts(found: FrontsFound) -> str:
    """One self-contained page."""
    names = list(found.fronts)
    body = [
        banner(any(found.targets[name].simulated for name in names)),
        element("header", element("p", "ofa-deploy pareto"), element("h1", f"{found.space} on {', '.join(names)}")),
        element("div", card("Accuracy and latency", REMARK, _plot(found), _legend(found, names)), class_="plots"),
        element(
            "h2", "The best subnet of every budget" if len(names) == 1 else "The best subnet that meets all budgets"
        ),
        table(("", *(f"{name} ≤" for name in names), "accuracy", "subnet"), _rows(found, names), "wide"),
    ]
    return page(f"Front of {found.space}", body)


def front_svg(found: FrontsFound) -> str:
    """The picture alone, as a file of its own."""
    return alone(_plot(found))


def _rows(found: FrontsFound, names: Sequence[str]) -> list[tuple[bool, list[Child]]]:
    return [
        (
            False,
            [
                "",
                *(ms(row.budgets_ms.get(name)) for name in names),
                predicted(row.accuracy, found.predictor_error),
                plain(row.key)[:12],
            ],
        )
        for row in found.joint
    ]


def _plot(found: FrontsFound) -> Markup:
    lines, error = {name: front_points(points) for name, points in found.fronts.items()}, found.predictor_error
    edges = {name: band(points, error) for name, points in lines.items()}
    every = [point for points in [*lines.values(), *edges.values()] for point in points]
    beside = {name: plotted(found.baselines.get(name, ())) for name in lines}
    every += [(ring.ms, end) for rings in beside.values() for ring in rings for end in ring.interval]
    plot = Plot.over("front", limits([x for x, _ in every]), limits([y for _, y in every], 0.12))
    plot.axes("predicted latency (ms)", "predicted accuracy (%)", percent=True)
    for i, (name, points) in enumerate(lines.items()):
        colour = f"var(--c{i % COLOURS})"
        if edges[name]:
            plot.area(edges[name], "band", f"fill: {colour}; opacity: 0.12")
        plot.line(points, "front", f"stroke: {colour}")
        for x, y in points:
            plot.marker(x, y, f"c{i % COLOURS}", f"{name}: {ms(x)}, {predicted(y, error)}", "small", f"fill: {colour}")
        draw_baselines(plot, beside[name], f"stroke: {colour}")
    return plot.svg("Fronts of accuracy and latency")


def _legend(found: FrontsFound, names: Sequence[str]) -> Markup:
    entries = [(f"c{i % COLOURS}", "dot", name) for i, name in enumerate(names)]
    return legend([*entries, SWATCH] if any(found.baselines.values()) else entries)
