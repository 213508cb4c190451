"""What is said of hand-picked networks beside ours, and how their points stand in a plot of accuracy and latency."""

from __future__ import annotations

from collections.abc import Sequence

from ofa_deploy.documents.baselines_document import Beside, BesideT, HandPicked, ReportBaselines, placed
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.page import table
from ofa_deploy.report.text import accuracy, count, ms

WHAT_TO_DO = (
    "train the supernet for more epochs, extract with --finetune, or see with `ofa-deploy space compare` what other "
    "spaces promise"
)
TITLE = "Hand-picked networks, measured in the same rounds"
COLUMNS = ("network", "measured p50", "accuracy", "MACs", "parameters", "trained by")


def compared(networks: Sequence[HandPicked], answer: BesideT) -> BesideT:
    """An answer, or a budget alone, beside the best hand-picked network that fits the same budget, in words too."""
    found = placed(networks, answer)
    return found.model_copy(update={"text": _text(networks, found)})


def _text(networks: Sequence[HandPicked], found: Beside) -> str:
    within = "" if found.budget_ms is None else f" within {ms(found.budget_ms)}"
    best = next((one for one in networks if one.name == found.best), None)
    if best is None:
        fastest = min(networks, key=lambda one: one.measured_ms or 0.0, default=None)
        takes = f"; the fastest, {fastest.name}, takes {ms(fastest.measured_ms)}" if fastest else ""
        return f"no hand-picked network fits{within}{takes}"
    which = f"{best.name}, {accuracy(best.accuracy, best.n)}, {ms(best.measured_ms)}"
    difference, error = found.difference, found.difference_error
    if difference is None or error is None:
        return f"the best hand-picked network{within} is {which}"
    text = f"{_verdict(difference, error)} the best hand-picked network that fits ({which})"
    return f"{text}; to do better, {WHAT_TO_DO}" if difference < -error else text


def _verdict(difference: float, error: float) -> str:
    half = f"{100 * error:.1f}"
    if abs(difference) <= error:
        return f"within ±{half} points of"
    return f"{abs(100 * difference):.1f} points ±{half} {'above' if difference > 0 else 'below'}"


def trained_by(one: HandPicked) -> str:
    """Which of its trainings counted."""
    return f"{one.recipe} recipe, {one.epochs} epochs"


def baselines_section(found: ReportBaselines | None) -> Markup | None:
    """A table of the hand-picked networks beside a subnet; None where there are none."""
    if found is None or not found.networks:
        return None
    rows = baseline_rows(found)
    return element("section", element("h2", TITLE), table(COLUMNS, rows))


def baseline_rows(found: ReportBaselines) -> list[tuple[bool, list[str]]]:
    """The hand-picked networks, the fastest first: whether it is the one to compare with, and its cells."""
    return [
        (
            one.name == found.best,
            [
                one.name,
                ms(one.measured_ms),
                accuracy(one.accuracy, one.n),
                count(one.macs),
                count(one.params),
                trained_by(one),
            ],
        )
        for one in by_latency(found.networks)
    ]


def by_latency(networks: Sequence[HandPicked]) -> list[HandPicked]:
    """The fastest first."""
    return sorted(networks, key=lambda one: one.measured_ms or 0.0)
