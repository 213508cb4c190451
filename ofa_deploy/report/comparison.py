"""Several reports on one page: which budget bought which accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ofa_deploy.report import wording
from ofa_deploy.report.figures import band, card, front_points
from ofa_deploy.report.html import ICONS, banner, page, table
from ofa_deploy.report.markup import Child, Markup, element, link
from ofa_deploy.report.plots import Plot, limits
from ofa_deploy.report.text import accuracy, count, get, interval, ms, number, plain, predicted, signed_pct, size

COLOURS = 7  # in the style sheet
COLUMNS = (
    "target", "budget", "fits", "measured p50", "predicted", "error",
    "accuracy", "expected accuracy", "predicted accuracy", "MACs", "parameters", "file", "subnet",
)  # fmt: skip
REMARK = (
    "Lines are predicted fronts. Their bands hold 95 % of the accuracies that are measured on as many images as here. "
    "Diamonds are the chosen subnets as measured, with the 95 % interval of the accuracy. Dashed lines are budgets. "
    "The numbers are those of the table."
)


class Answer(NamedTuple):
    """Where a report's subnet lies in the plot."""

    number: int
    report: dict[str, Any]
    latency: float
    accuracy: float
    measured: bool
    interval: tuple[float, float] | None = None

    @property
    def shown(self) -> str:
        """The accuracy in words."""
        found = get(self.report, "accuracy")
        if self.interval is None:
            return predicted(self.accuracy, get(found, "predictor_error"))
        return accuracy(self.accuracy, get(found, "n"))


class Front(NamedTuple):
    """A predicted front.

    Attributes:
        places: the numbers of the reports that have it.
        points: latency and accuracy.
        band: the outline of 95 % of the accuracies that are measured where these are predicted; empty if unknown.
        error: the accuracy predictor's.
    """

    places: list[int]
    points: list[tuple[float, float]]
    band: list[tuple[float, float]]
    error: Any


def render_comparison(reports: Sequence[dict[str, Any]], title: str) -> str:
    """One self-contained page that compares bundles.

    Args:
        reports: ``report.json`` of each; ``report["links"]["report"]`` is the relative path to its page, and
            ``report["elsewhere"]``, where there is one, has by the target's name what its subnet takes on others.
        title: of the page.
    """
    rows = [(False, _row(i + 1, report)) for i, report in enumerate(reports)]
    body = [
        banner(any(map(wording.simulated, reports))),
        element("header", element("p", "ofa-deploy comparison"), element("h1", title)),
        table(("", *COLUMNS), rows, "wide compared"),
        element("div", _plot(reports), class_="plots"),
        _elsewhere(reports),
    ]
    return page(title, body)


def _row(place: int, report: dict[str, Any]) -> list[Child]:
    answer, latency, found = wording.verdict(report), get(report, "latency"), get(report, "accuracy")
    name = plain(get(report, "target.name")) + (" (SIMULATED)" if wording.simulated(report) else "")
    return [
        _badge(place),
        link(name, get(report, "links.report")),
        ms(get(report, "budget.max_ms"), "none"),
        f"{ICONS[answer.status]} {_fits(answer)}",
        ms(get(latency, "measured_ms.p50")),
        ms(get(latency, "predicted_ms"), "–"),
        signed_pct(get(latency, "error_pct"), "–"),
        accuracy(get(found, "measured"), get(found, "n")),
        wording.expected(found),
        predicted(get(found, "predicted"), get(found, "predictor_error"), "–"),
        count(get(report, "subnet.macs")),
        count(get(report, "subnet.params")),
        size(get(report, "size_bytes")),
        wording.short(get(report, "subnet.key")),
    ]


def _elsewhere(reports: Sequence[dict[str, Any]]) -> Markup | None:
    """Every subnet on every device: what it takes where it was not made for."""
    crossed = [(i + 1, report, get(report, "elsewhere")) for i, report in enumerate(reports)]
    found = [(place, report, on) for place, report, on in crossed if isinstance(on, dict) and on]
    if not found:
        return None
    targets = list(dict.fromkeys(name for _, _, on in found for name in on))
    simulated = {name: any(get(on, f"{name}.simulated") for _, _, on in found) for name in targets}
    head = ["", "made for", *(f"{n} (SIMULATED)" if simulated[n] else n for n in targets), "memory", "file"]
    rows = [
        (
            False,
            [
                _badge(place),
                plain(get(report, "target.name")),
                *(_there(on.get(name), name == get(report, "target.name")) for name in targets),
                _megabytes(get(report, "subnet.memory_mb")),
                size(get(report, "size_bytes")),
            ],
        )
        for place, report, on in found
    ]
    remark = "Measured p50 of the same network in each target's own format; in bold where it was made for."
    return element("section", element("h2", "Every subnet on every device"), table(head, rows), element("p", remark))


def _there(latency: Any, own: bool) -> Child:
    shown = ms(get(latency, "p50"), "–")
    return element("strong", shown) if own else shown


def _megabytes(value: Any) -> str:
    found = number(value)
    return "–" if found is None else f"{found:.2f} MB"


def _fits(answer: wording.Verdict) -> str:
    return {"fits": "fits", "over": "over"}.get(answer.status, answer.headline.lower())


def _colour(place: int) -> str:
    return f"var(--c{(place - 1) % COLOURS})"


def _badge(place: int) -> Markup:
    return element("strong", place, style=f"color:{_colour(place)}")


def _plot(reports: Sequence[dict[str, Any]]) -> Markup:
    title = "Accuracy and latency"
    answers = [found for i, report in enumerate(reports) if (found := _answer(i + 1, report))]
    fronts = _distinct_fronts(reports)
    points = [point for front in fronts for point in front.points] + [(a.latency, a.accuracy) for a in answers]
    if not points:
        return card(title, "", element("p", "No accuracy is known: there is nothing to plot.", class_="empty"))
    budgets = [(i + 1, number(get(report, "budget.max_ms"))) for i, report in enumerate(reports)]
    bounds = [(place, budget) for place, budget in budgets if budget is not None]
    xs = [x for x, _ in points] + [budget for _, budget in bounds]
    heights = [y for _, y in points] + [y for front in fronts for _, y in front.band]
    heights += [end for answer in answers for end in answer.interval or ()]
    plot = Plot.over("comparison", limits(xs), limits(heights, 0.12))
    plot.axes("latency (ms)", "accuracy (%)", percent=True)
    for place, budget in bounds:
        plot.budget(budget, str(place), f"stroke:{_colour(place)}")
    for front in fronts:
        if front.band:
            plot.area(front.band, "band", f"fill: {_front_colour(front)}; opacity: 0.08")
    for front in fronts:
        _draw_front(plot, front)
    for answer in answers:
        _draw_answer(plot, answer)
    return card(title, REMARK, plot.svg("Accuracy and latency of the compared subnets"))


def _front_colour(front: Front) -> str:
    return _colour(front.places[0]) if len(front.places) == 1 else "var(--grey)"


def _draw_front(plot: Plot, front: Front) -> None:
    colour, name = _front_colour(front), f"front of {', '.join(map(str, front.places))}"
    plot.line(front.points, "front", f"stroke:{colour}")
    for x, y in front.points:
        plot.marker(x, y, "evidence", f"{name}: {ms(x)}, {predicted(y, front.error)}", "small", f"fill:{colour}")


def _draw_answer(plot: Plot, answer: Answer) -> None:
    kind = "measured" if answer.measured else "predicted"
    name = f"{answer.number}, {plain(get(answer.report, 'target.name'))}"
    tip = f"{name}: {ms(answer.latency)}, accuracy {answer.shown} ({kind})"
    if answer.interval:
        plot.line([(answer.latency, end) for end in answer.interval], "spread")
    plot.marker(answer.latency, answer.accuracy, "chosen", tip, "diamond", f"fill:{_colour(answer.number)}")
    plot.number(answer.latency, answer.accuracy, str(answer.number))


def _answer(place: int, report: dict[str, Any]) -> Answer | None:
    """Measured values where there are any, else predicted ones."""
    measured = number(get(report, "accuracy.measured"))
    share = measured if measured is not None else number(get(report, "accuracy.predicted"))
    timed = number(get(report, "latency.measured_ms.p50"))
    latency = timed if timed is not None else number(get(report, "latency.predicted_ms"))
    if share is None or latency is None:
        return None
    ends = None if measured is None else interval(measured, get(report, "accuracy.n"))
    return Answer(place, report, latency, share, measured is not None and timed is not None, ends)


def _distinct_fronts(reports: Sequence[dict[str, Any]]) -> list[Front]:
    """The fronts, each with the numbers of the reports that have it: one search space on one target has one front."""
    found: dict[tuple[tuple[float, float], ...], Front] = {}
    for i, report in enumerate(reports):
        if points := tuple(front_points(report)):
            error, n = (get(report, f"accuracy.{name}") for name in ("predictor_error", "n"))
            front = Front([], list(points), band(points, error, n), error)
            found.setdefault(points, front).places.append(i + 1)
    return list(found.values())
