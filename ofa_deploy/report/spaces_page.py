"""Spaces compared on a device: the sizes of the networks that use a budget, and what says more than sizes."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_deploy.documents.spaces_document import Percentiles, Sizes, SpaceEntry, SpacesCompared
from ofa_deploy.report.figures import card
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.page import alone, banner, page, table
from ofa_deploy.report.plots import Plot, legend, limits
from ofa_deploy.report.text import accuracy, count, ms, number

COLOURS = 7  # that the style sheet has
SIZES = "Of the networks that use the budget, the share with no more multiply-accumulates: further right is more."
TRAINED = "Networks that use the budget, each trained alone for the same few epochs."
COLUMNS = ("budget", "space", "fit", "MACs: p50, p90", "parameters: p50, p90")


def render_spaces(found: SpacesCompared) -> str:
    """One self-contained page."""
    names = space_names(found)
    plots = [
        card(f"Multiply-accumulates within {ms(budget)}", SIZES, _sizes(found, budget), _legend(names))
        for budget in budgets(found)
        if _near(found, budget)
    ]
    if any(entry.trained for entry in found.spaces):
        plots.append(card("Short trainings", TRAINED, _trained(found, names), _legend(names)))
    head, *rows = space_rows(found)
    best = {(verdict.budget_ms, verdict.order[0]) for verdict in found.verdicts if verdict.order}
    marked = [(entry.budget_ms, entry.name) in best for entry in by_budget(found)]
    body = [
        banner(found.simulated),
        element("header", element("p", "ofa-deploy space compare"), element("h1", _title(found))),
        element("ul", [element("li", f"{ms(v.budget_ms)}: {v.text}.") for v in found.verdicts]),
        element("div", *plots, class_="plots"),
        table(head, list(zip(marked, rows, strict=True)), "wide"),
        element("p", fit_words(found)),
    ]
    return page(_title(found), body)


def spaces_svg(found: SpacesCompared) -> str:
    """The sizes within the first budget that a network fits, as a file of its own."""
    first = next(budget for budget in budgets(found) if _near(found, budget))
    return alone(_sizes(found, first))


def space_names(found: SpacesCompared) -> list[str]:
    """The spaces, in the order in which they were asked for."""
    return list(dict.fromkeys(entry.name for entry in found.spaces))


def budgets(found: SpacesCompared) -> list[float]:
    """The budgets in ms, in the order in which they were asked for."""
    return [verdict.budget_ms for verdict in found.verdicts]


def fit_words(found: SpacesCompared) -> str:
    """What the counts and columns are of."""
    sampled = max(entry.n_sampled for entry in found.spaces)
    return (
        f"fit: how many of {sampled} random networks meet the budget by the latency model. All other columns are of "
        "networks that use it: random ones that were too slow, changed until they fit."
    )


def trained_words(entry: SpaceEntry) -> str:
    """The accuracies of the trained networks of an entry, as a range."""
    shares = sorted(row.accuracy for row in entry.trained)
    if not shares:
        return ""
    if len(shares) == 1:
        return accuracy(shares[0], entry.trained[0].n)
    return f"{100 * shares[0]:.1f} to {100 * shares[-1]:.1f} %"


def _title(found: SpacesCompared) -> str:
    return f"{' and '.join(space_names(found))} on {found.target}"


def _near(found: SpacesCompared, budget: float) -> list[SpaceEntry]:
    return [entry for entry in found.spaces if entry.budget_ms == budget and entry.n_near]


def space_rows(found: SpacesCompared) -> list[list[str]]:
    """The table as texts: the names of the columns, then a row for each budget and space."""
    proxies = list(next((entry.proxy for entry in found.spaces if entry.proxy), ()))
    return [[*COLUMNS, *proxies, "trained"], *(_row(entry, proxies) for entry in by_budget(found))]


def by_budget(found: SpacesCompared) -> list[SpaceEntry]:
    """The entries, those of a budget together."""
    return [entry for budget in budgets(found) for entry in found.spaces if entry.budget_ms == budget]


def _row(entry: SpaceEntry, proxies: Sequence[str]) -> list[str]:
    start = [ms(entry.budget_ms), entry.name]
    if not entry.n_near:
        return [*start, "none", f"fastest {ms(entry.fastest_ms)}", *[""] * (2 + len(proxies))]
    sizes = [f"{count(of.p50)}, {count(of.p90)}" for of in (entry.macs or Sizes(), entry.params or Percentiles())]
    scores = [_score((entry.proxy or {}).get(name, Percentiles()).p50) for name in proxies]
    return [*start, str(entry.n_fit), *sizes, *scores, trained_words(entry)]


def _score(value: float | None) -> str:
    found = number(value)
    return "none" if found is None else f"{found:.4g}"


def _sizes(found: SpacesCompared, budget: float) -> Markup:
    near = _near(found, budget)
    curves = [[value / 1e6 for value in entry.macs.quantiles] for entry in near if entry.macs]
    name = f"sizes-{budgets(found).index(budget)}"
    plot = Plot.over(name, limits([value for curve in curves for value in curve]), (0.0, 1.0))
    plot.axes("multiply-accumulates (millions)", "networks (%)", percent=True)
    for entry, curve in zip(near, curves, strict=True):
        colour = f"stroke: var(--c{space_names(found).index(entry.name) % COLOURS})"
        plot.line([(value, i / (len(curve) - 1)) for i, value in enumerate(curve)], "front", colour)
    return plot.svg(f"Multiply-accumulates of networks within {ms(budget)}")


def _trained(found: SpacesCompared, names: Sequence[str]) -> Markup:
    rows = [(names.index(entry.name) % COLOURS, entry, row) for entry in found.spaces for row in entry.trained]
    plot = Plot.over("trained", limits([row.upper_ms for *_, row in rows]), limits([row.accuracy for *_, row in rows]))
    plot.axes("upper bound of the latency (ms)", "accuracy (%)", percent=True)
    for colour, entry, row in rows:
        words = f"{entry.name}: {accuracy(row.accuracy, row.n)}, {count(row.macs)} MACs"
        plot.marker(row.upper_ms, row.accuracy, f"c{colour}", words, "dot", f"fill: var(--c{colour})")
    return plot.svg("Accuracy of networks trained alone")


def _legend(names: Sequence[str]) -> Markup:
    return legend([(f"c{i % COLOURS}", "dot", name) for i, name in enumerate(names)])
