"""Search strategies against each other: their curves, their fronts, and which of them beat random search."""

from __future__ import annotations

from typing import Any

from ofa_deploy.report.figures import card
from ofa_deploy.report.html import alone, banner, page, table
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import number, pct, predicted

COLOURS = 7  # that the style sheet has
CURVES = "The best predicted accuracy so far; the band holds the mean over seeds with 95 %."
SCORES = "No accuracy is known: strategies look for the most multiply-accumulates, as a share of the largest network's."
VOLUMES = "The share of the box between the worst and the best of all searches that a front covers; 95 % intervals."
COLUMNS = ("strategy", "predicted accuracy", "mean over seeds, 95 %", "hypervolume", "over random, 95 %")
FURTHER = ("beats random", "subnets", "seconds")


def render_strategies(found: dict[str, Any]) -> str:
    """One self-contained page.

    Args:
        found: what ``search --compare N --json`` prints. Its accuracies are predictions; ``predictor_error`` says how
            far they err, and is None where a score was searched in their place.
    """
    error, judged = found.get("predictor_error"), found.get("predicted", True)
    names = [one["strategy"] for one in found["strategies"]]
    plots = [card("Best so far", CURVES if judged else SCORES, _curves(found), _legend(names))]
    if all(one["hypervolume"] for one in found["strategies"]):
        plots.append(card("Hypervolume of the front", VOLUMES, _volumes(found), _legend(names)))
    body = [
        banner(found["simulated"]),
        element("header", element("p", "ofa-deploy search --compare"), element("h1", _title(found))),
        element("div", *plots, class_="plots"),
        element("h2", f"{found['seeds']} seeds"),
        table(
            [*(COLUMNS if judged else ("strategy", "score", *COLUMNS[2:])), *FURTHER],
            [(False, _row(one, error)) for one in found["strategies"]],
            "wide",
        ),
    ]
    return page(f"Strategies on {found['space']}", body)


def strategies_svg(found: dict[str, Any]) -> str:
    """The curves alone, as a file of its own."""
    return alone(_curves(found))


def _title(found: dict[str, Any]) -> str:
    return f"{found['space']} on {found['target']}, at equal {found['at']}"


def _row(one: dict[str, Any], error: Any) -> list[Any]:
    best, gain, volume = one["best"], one["gain"], one["hypervolume"]
    beats = "" if gain is None else "yes" if gain["low"] > 0 else "no"
    return [
        one["strategy"],
        predicted(best["mean"], error),
        _spread(best),
        "" if volume is None else f"{volume['mean']:.3f} ({volume['low']:.3f} to {volume['high']:.3f})",
        "" if gain is None else _spread(gain),
        beats,
        f"{one['evaluations']:.0f}",
        number(one["seconds"]),
    ]


def _spread(over_seeds: dict[str, Any]) -> str:
    low, high = (pct(over_seeds[name]).removesuffix(" %") for name in ("low", "high"))
    return f"{pct(over_seeds['mean'])} ({low} to {high})"


def _curves(found: dict[str, Any]) -> Markup:
    curves = [
        [(at, step) for at, step in zip(one["at"], one["curve"], strict=True) if step] for one in found["strategies"]
    ]
    places = [at for curve in curves for at, _ in curve] or [0.0, 1.0]
    heights = [step[name] for curve in curves for _, step in curve for name in ("low", "high")] or [0.0, 1.0]
    plot = Plot.over("curves", limits(places, 0.0), limits(heights))
    plot.axes(found["at"], f"{'predicted accuracy' if found.get('predicted', True) else 'score'} (%)", percent=True)
    for i, curve in enumerate(curves):
        colour = f"var(--c{i % COLOURS})"
        edge = [(at, step["high"]) for at, step in curve] + [(at, step["low"]) for at, step in reversed(curve)]
        if edge:
            plot.area(edge, "band", f"fill: {colour}; opacity: 0.15")
            plot.line([(at, step["mean"]) for at, step in curve], "front", f"stroke: {colour}")
    return plot.svg("Best accuracy so far of every strategy")


def _volumes(found: dict[str, Any]) -> Markup:
    rows = [one["hypervolume"] for one in found["strategies"]]
    plot = Plot.over("volumes", (0.5, len(rows) + 0.5), limits([row[name] for row in rows for name in ("low", "high")]))
    plot.axes("strategy, in the order of the legend", "hypervolume")
    for i, row in enumerate(rows):
        colour, name = f"var(--c{i % COLOURS})", found["strategies"][i]["strategy"]
        plot.line([(i + 1, row["low"]), (i + 1, row["high"])], "front", f"stroke: {colour}")
        plot.marker(i + 1, row["mean"], "", f"{name}: {number(row['mean'])}", "dot", f"fill: {colour}")
    return plot.svg("Hypervolume of every strategy")


def _legend(names: list[str]) -> Markup:
    return legend([(f"c{i % COLOURS}", "dot", name) for i, name in enumerate(names)])
