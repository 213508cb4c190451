"""Search strategies against each other: their curves, their fronts, and which of them beat random search."""

from __future__ import annotations

from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.strategies_document import OverSeeds, StrategiesFound, StrategyFound
from ofa_deploy.report.figures import card
from ofa_deploy.report.markup import Child, Markup, element
from ofa_deploy.report.page import alone, banner, page, table
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import number, pct, predicted

COLOURS = 7  # that the style sheet has
CURVES = "The best predicted accuracy so far; the band holds the mean over seeds with 95 %."
SCORES = "No accuracy is known: strategies look for the most multiply-accumulates, as a share of the largest network's."
VOLUMES = "The share of the box between the worst and the best of all searches that a front covers; 95 % intervals."
COLUMNS = ("strategy", "predicted accuracy", "mean over seeds, 95 %", "hypervolume", "over random, 95 %")
FURTHER = ("beats random", "subnets", "seconds")


def render_strategies(found: StrategiesFound) -> str:
    """One self-contained page."""
    error, judged = found.predictor_error, found.predicted
    names = [one.strategy for one in found.strategies]
    plots = [card("Best so far", CURVES if judged else SCORES, _curves(found), _legend(names))]
    if all(one.hypervolume for one in found.strategies):
        plots.append(card("Hypervolume of the front", VOLUMES, _volumes(found), _legend(names)))
    body = [
        banner(found.simulated),
        element("header", element("p", "ofa-deploy search --compare"), element("h1", _title(found))),
        element("div", *plots, class_="plots"),
        element("h2", f"{found.seeds} seeds"),
        table(
            [*(COLUMNS if judged else ("strategy", "score", *COLUMNS[2:])), *FURTHER],
            [(False, _row(one, error)) for one in found.strategies],
            "wide",
        ),
    ]
    return page(f"Strategies on {found.space}", body)


def strategies_svg(found: StrategiesFound) -> str:
    """The curves alone, as a file of its own."""
    return alone(_curves(found))


def _title(found: StrategiesFound) -> str:
    return f"{found.space} on {found.target}, at equal {found.at}"


def _row(one: StrategyFound, error: PredictorError | None) -> list[Child]:
    best, gain, volume = one.best, one.gain, one.hypervolume
    beats = "" if gain is None else "yes" if gain.low > 0 else "no"
    return [
        one.strategy,
        predicted(best.mean, error),
        _spread(best),
        "" if volume is None else f"{volume.mean:.3f} ({volume.low:.3f} to {volume.high:.3f})",
        "" if gain is None else _spread(gain),
        beats,
        f"{one.evaluations:.0f}",
        number(one.seconds),
    ]


def _spread(over_seeds: OverSeeds) -> str:
    low, high = (pct(end).removesuffix(" %") for end in (over_seeds.low, over_seeds.high))
    return f"{pct(over_seeds.mean)} ({low} to {high})"


def _curves(found: StrategiesFound) -> Markup:
    curves = [[(at, step) for at, step in zip(one.at, one.curve, strict=True) if step] for one in found.strategies]
    places = [at for curve in curves for at, _ in curve] or [0.0, 1.0]
    heights = [end for curve in curves for _, step in curve for end in (step.low, step.high)] or [0.0, 1.0]
    plot = Plot.over("curves", limits(places, 0.0), limits(heights))
    plot.axes(found.at, f"{'predicted accuracy' if found.predicted else 'score'} (%)", percent=True)
    for i, curve in enumerate(curves):
        colour = f"var(--c{i % COLOURS})"
        edge = [(at, step.high) for at, step in curve] + [(at, step.low) for at, step in reversed(curve)]
        if edge:
            plot.area(edge, "band", f"fill: {colour}; opacity: 0.15")
            plot.line([(at, step.mean) for at, step in curve], "front", f"stroke: {colour}")
    return plot.svg("Best accuracy so far of every strategy")


def _volumes(found: StrategiesFound) -> Markup:
    rows = [(one.strategy, one.hypervolume) for one in found.strategies if one.hypervolume is not None]
    plot = Plot.over("volumes", (0.5, len(rows) + 0.5), limits([end for _, row in rows for end in (row.low, row.high)]))
    plot.axes("strategy, in the order of the legend", "hypervolume")
    for i, (name, row) in enumerate(rows):
        colour = f"var(--c{i % COLOURS})"
        plot.line([(i + 1, row.low), (i + 1, row.high)], "front", f"stroke: {colour}")
        plot.marker(i + 1, row.mean, "", f"{name}: {number(row.mean)}", "dot", f"fill: {colour}")
    return plot.svg("Hypervolume of every strategy")


def _legend(names: list[str]) -> Markup:
    return legend([(f"c{i % COLOURS}", "dot", name) for i, name in enumerate(names)])
