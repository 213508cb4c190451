"""What is said of hand-picked networks beside ours, and how their points stand in a plot of accuracy and latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ofa_deploy.documents.baselines_document import AnswerBeside, Beside, HandPicked
from ofa_deploy.intervals import difference_error
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.page import table
from ofa_deploy.report.plots import Plot
from ofa_deploy.report.text import accuracy, count, interval, ms

WHAT_TO_DO = (
    "train the supernet for more epochs, extract with --finetune, or see with `ofa-deploy space compare` what other "
    "spaces promise"
)
COLUMNS = ("network", "measured p50", "accuracy", "MACs", "parameters", "trained by")
SWATCH = ("table", "ring", "hand-picked networks, measured")  # in a legend
BesideT = TypeVar("BesideT", bound=Beside)


def best_within(networks: Sequence[HandPicked], limit_ms: float | None) -> HandPicked | None:
    """The hand-picked network that is most accurate on the validation images of those that fit; None where none does.

    Its test accuracy then chose nothing.
    """
    fitting = [one for one in networks if limit_ms is None or (one.measured_ms or 0.0) <= limit_ms]
    return max(fitting, key=lambda one: one.valid.get(one.recipe, 0.0), default=None)


def compared(networks: Sequence[HandPicked], answer: BesideT) -> BesideT:
    """An answer, or a budget alone, with the best hand-picked network that fits the same budget beside it."""
    best = best_within(networks, answer.budget_ms)
    within = "" if answer.budget_ms is None else f" within {ms(answer.budget_ms)}"
    if best is None:
        fastest = min(networks, key=lambda one: one.measured_ms or 0.0, default=None)
        takes = f"; the fastest, {fastest.name}, takes {ms(fastest.measured_ms)}" if fastest else ""
        return _told(answer, text=f"no hand-picked network fits{within}{takes}", best=None)
    which = f"{best.name}, {accuracy(best.accuracy, best.n)}, {ms(best.measured_ms)}"
    ours = answer.accuracy if isinstance(answer, AnswerBeside) else None
    if ours is None or best.accuracy is None or not isinstance(answer, AnswerBeside):
        return _told(answer, text=f"the best hand-picked network{within} is {which}", best=best.name)
    difference = ours - best.accuracy
    error = difference_error((ours, best.accuracy), (answer.n or 0, best.n or 0))
    text = f"{_verdict(difference, error)} the best hand-picked network that fits ({which})"
    if difference < -error:
        text += f"; to do better, {WHAT_TO_DO}"
    return _told(answer, text=text, best=best.name, difference=difference, difference_error=error)


def _told(answer: BesideT, **found: Any) -> BesideT:
    return type(answer)(**{**answer.to_json(), "difference": None, "difference_error": None, **found})


def _verdict(difference: float, error: float) -> str:
    half = f"{100 * error:.1f}"
    if abs(difference) <= error:
        return f"within ±{half} points of"
    return f"{abs(100 * difference):.1f} points ±{half} {'above' if difference > 0 else 'below'}"


def trained_by(one: HandPicked) -> str:
    """Which of its trainings counted."""
    return f"{one.recipe} recipe, {one.epochs} epochs"


def baselines_section(networks: Sequence[HandPicked], best: str | None) -> Markup | None:
    """A table of hand-picked networks, by their latency; None where there are none."""
    if not networks:
        return None
    rows = [
        (
            one.name == best,
            [
                one.name,
                ms(one.measured_ms),
                accuracy(one.accuracy, one.n),
                count(one.macs),
                count(one.params),
                trained_by(one),
            ],
        )
        for one in by_latency(networks)
    ]
    return element("section", element("h2", "Hand-picked networks, in the same rounds"), table(COLUMNS, rows))


def by_latency(networks: Sequence[HandPicked]) -> list[HandPicked]:
    """The fastest first."""
    return sorted(networks, key=lambda one: one.measured_ms or 0.0)


def plotted(networks: Sequence[HandPicked]) -> list[tuple[HandPicked, float, float, tuple[float, float]]]:
    """Those that a plot can show, with latency in ms, accuracy and its 95 % interval."""
    found = []
    for one in networks:
        ends = interval(one.accuracy, one.n)
        if one.measured_ms is not None and one.accuracy is not None and ends is not None:
            found.append((one, one.measured_ms, one.accuracy, ends))
    return found


def draw_baselines(plot: Plot, networks: Sequence[HandPicked]) -> None:
    """The points of hand-picked networks with their intervals, of accuracy and latency."""
    for one, x, y, ends in plotted(networks):
        plot.line([(x, end) for end in ends], "spread")
        if one.low_ms is not None and one.high_ms is not None:
            plot.line([(one.low_ms, y), (one.high_ms, y)], "spread")
        plot.marker(x, y, "table", f"{one.name}: {ms(x)}, {accuracy(y, one.n)} ({trained_by(one)})", "ring")
