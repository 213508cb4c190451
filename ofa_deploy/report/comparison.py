"""Several reports on one page: which budget bought which accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ofa_deploy.documents.predictor_error import PredictorError
from ofa_deploy.documents.report_document import Report
from ofa_deploy.report import wording
from ofa_deploy.report.baseline_plot import draw_baselines, plotted
from ofa_deploy.report.figures import band, card, front_points
from ofa_deploy.report.markup import Child, Markup, element, link
from ofa_deploy.report.page import ICONS, banner, page, table
from ofa_deploy.report.plots import Plot, limits
from ofa_deploy.report.text import accuracy, count, interval, ms, plain, predicted, signed_pct, size

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
HAND_PICKED = " Rings are hand-picked networks, measured beside an answer."


class There(NamedTuple):
    """What a subnet takes on a target, in ms; a simulated one says so."""

    p50: float | None
    simulated: bool = False


@dataclass(frozen=True)
class Entry:
    """A report that is compared.

    Attributes:
        link: relative path to its page.
        elsewhere: what its subnet takes on targets, by their names.
    """

    report: Report
    link: str | None = None
    elsewhere: Mapping[str, There] = field(default_factory=dict)


class Answer(NamedTuple):
    """Where a report's subnet lies in the plot."""

    number: int
    report: Report
    latency: float
    accuracy: float
    measured: bool
    interval: tuple[float, float] | None = None

    @property
    def shown(self) -> str:
        """The accuracy in words."""
        found = self.report.accuracy
        if self.interval is None:
            return predicted(self.accuracy, found.predictor_error)
        return accuracy(self.accuracy, found.n)


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
    error: PredictorError | None


def render_comparison(entries: Sequence[Entry], title: str) -> str:
    """One self-contained page that compares bundles."""
    reports = [entry.report for entry in entries]
    rows = [(False, _row(i + 1, entry.report, entry.link)) for i, entry in enumerate(entries)]
    body = [
        banner(any(map(wording.simulated, reports))),
        element("header", element("p", "ofa-deploy comparison"), element("h1", title)),
        table(("", *COLUMNS), rows, "wide compared"),
        element("div", _plot(reports), class_="plots"),
        _elsewhere(entries),
    ]
    return page(title, body)


def _row(place: int, report: Report, address: str | None) -> list[Child]:
    answer, latency, found = wording.verdict(report), report.latency, report.accuracy
    name = plain(report.target.name) + (" (SIMULATED)" if wording.simulated(report) else "")
    return [
        _badge(place),
        link(name, address),
        ms(report.budget.max_ms, "none"),
        f"{ICONS[answer.status]} {_fits(answer)}",
        ms(latency.measured("p50")),
        ms(latency.predicted_ms, "–"),
        signed_pct(latency.error_pct, "–"),
        accuracy(found.measured, found.n),
        wording.expected(found),
        predicted(found.predicted, found.predictor_error, "–"),
        count(report.subnet.macs),
        count(report.subnet.params),
        size(report.size_bytes),
        wording.short(report.subnet.key),
    ]


def _elsewhere(entries: Sequence[Entry]) -> Markup | None:
    """Every subnet on every device: what it takes where it was not made for."""
    found = [(place, entry.report, entry.elsewhere) for place, entry in enumerate(entries, 1) if entry.elsewhere]
    if not found:
        return None
    targets = list(dict.fromkeys(name for _, _, on in found for name in on))
    simulated = {name: any(on[name].simulated for _, _, on in found if name in on) for name in targets}
    head = ["", "made for", *(f"{n} (SIMULATED)" if simulated[n] else n for n in targets), "memory", "file"]
    rows = [
        (
            False,
            [
                _badge(place),
                plain(report.target.name),
                *(_there(on.get(name), name == report.target.name) for name in targets),
                _megabytes(report.subnet.memory_mb),
                size(report.size_bytes),
            ],
        )
        for place, report, on in found
    ]
    remark = "Measured p50 of the same network in each target's own format; in bold where it was made for."
    return element("section", element("h2", "Every subnet on every device"), table(head, rows), element("p", remark))


def _there(there: There | None, own: bool) -> Child:
    shown = ms(there and there.p50, "–")
    return element("strong", shown) if own else shown


def _megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} MB"


def _fits(answer: wording.Verdict) -> str:
    return {"fits": "fits", "over": "over"}.get(answer.status, answer.headline.lower())


def _colour(place: int) -> str:
    return f"var(--c{(place - 1) % COLOURS})"


def _badge(place: int) -> Markup:
    return element("strong", place, style=f"color:{_colour(place)}")


def _plot(reports: Sequence[Report]) -> Markup:
    title = "Accuracy and latency"
    answers = [found for i, report in enumerate(reports) if (found := _answer(i + 1, report))]
    fronts = _distinct_fronts(reports)
    points = [point for front in fronts for point in front.points] + [(a.latency, a.accuracy) for a in answers]
    beside = plotted([one for report in reports if report.baselines for one in report.baselines.networks])
    if not points:
        return card(title, "", element("p", "No accuracy is known: there is nothing to plot.", class_="empty"))
    budgets = [(i + 1, report.budget.max_ms) for i, report in enumerate(reports)]
    bounds = [(place, budget) for place, budget in budgets if budget is not None]
    xs = [x for x, _ in points] + [budget for _, budget in bounds]
    heights = [y for _, y in points] + [y for front in fronts for _, y in front.band]
    heights += [end for answer in answers for end in answer.interval or ()]
    xs += [one.ms for one in beside]
    heights += [end for one in beside for end in one.interval]
    plot = Plot.over("comparison", limits(xs), limits(heights, 0.12))
    plot.axes("latency (ms)", "accuracy (%)", percent=True)
    for place, budget in bounds:
        plot.budget(budget, str(place), f"stroke:{_colour(place)}")
    for front in fronts:
        if front.band:
            plot.area(front.band, "band", f"fill: {_front_colour(front)}; opacity: 0.08")
    for front in fronts:
        _draw_front(plot, front)
    draw_baselines(plot, beside)
    for answer in answers:
        _draw_answer(plot, answer)
    return card(
        title, REMARK + (HAND_PICKED if beside else ""), plot.svg("Accuracy and latency of the compared subnets")
    )


def _front_colour(front: Front) -> str:
    return _colour(front.places[0]) if len(front.places) == 1 else "var(--grey)"


def _draw_front(plot: Plot, front: Front) -> None:
    colour, name = _front_colour(front), f"front of {', '.join(map(str, front.places))}"
    plot.line(front.points, "front", f"stroke:{colour}")
    for x, y in front.points:
        plot.marker(x, y, "evidence", f"{name}: {ms(x)}, {predicted(y, front.error)}", "small", f"fill:{colour}")


def _draw_answer(plot: Plot, answer: Answer) -> None:
    kind = "measured" if answer.measured else "predicted"
    name = f"{answer.number}, {plain(answer.report.target.name)}"
    tip = f"{name}: {ms(answer.latency)}, accuracy {answer.shown} ({kind})"
    if answer.interval:
        plot.line([(answer.latency, end) for end in answer.interval], "spread")
    plot.marker(answer.latency, answer.accuracy, "chosen", tip, "diamond", f"fill:{_colour(answer.number)}")
    plot.number(answer.latency, answer.accuracy, str(answer.number))


def _answer(place: int, report: Report) -> Answer | None:
    """Measured values where there are any, else predicted ones."""
    found, timed = report.accuracy, report.latency.measured("p50")
    share = found.predicted if found.measured is None else found.measured
    latency = report.latency.predicted_ms if timed is None else timed
    if share is None or latency is None:
        return None
    ends = interval(found.measured, found.n)
    return Answer(place, report, latency, share, found.measured is not None and timed is not None, ends)


def _distinct_fronts(reports: Sequence[Report]) -> list[Front]:
    """The fronts, each with the numbers of the reports that have it: one search space on one target has one front."""
    found: dict[tuple[tuple[float, float], ...], Front] = {}
    for i, report in enumerate(reports):
        if points := tuple(front_points(report.front)):
            error = report.accuracy.predictor_error
            front = Front([], list(points), band(points, error, report.accuracy.n), error)
            found.setdefault(points, front).places.append(i + 1)
    return list(found.values())
