"""What is said of hand-picked networks beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ofa_deploy.intervals import difference_error
from ofa_deploy.report.text import accuracy, ms

WHAT_TO_DO = "train the supernet for more epochs, extract with --finetune, or try another space"


def best_within(rows: Sequence[Mapping[str, Any]], limit_ms: float | None) -> Mapping[str, Any] | None:
    """The hand-picked network that is most accurate on the validation images of those that fit; None where none does.

    Its test accuracy then chose nothing.
    """
    fitting = [row for row in rows if limit_ms is None or row["measured_ms"] <= limit_ms]
    return max(fitting, key=lambda row: row["valid"][row["recipe"]], default=None)


def compared(rows: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer, or a budget alone, beside the best hand-picked network that fits the same budget.

    Returns:
        The answer with ``best``, the name of that network; ``difference``, by how much more accurate the answer is on
        the test images, and half of its 95 % interval, ``difference_error``, both fractions; ``text``, the verdict.
        What is not known is None.
    """
    best, budget = best_within(rows, answer["budget_ms"]), answer["budget_ms"]
    found = {**answer, "best": best["name"] if best else None, "difference": None, "difference_error": None}
    within = "" if budget is None else f" within {ms(budget)}"
    if best is None:
        fastest = min(rows, key=lambda row: row["measured_ms"], default=None)
        takes = f"; the fastest, {fastest['name']}, takes {ms(fastest['measured_ms'])}" if fastest else ""
        return {**found, "text": f"no hand-picked network fits{within}{takes}"}
    which = f"{best['name']}, {accuracy(best['accuracy'], best['n'])}, {ms(best['measured_ms'])}"
    if answer.get("accuracy") is None:
        return {**found, "text": f"the best hand-picked network{within} is {which}"}
    shares, counts = (answer["accuracy"], best["accuracy"]), (answer["n"], best["n"])
    difference, error = shares[0] - shares[1], difference_error(shares, counts)
    text = f"{_verdict(difference, error)} the best hand-picked network that fits ({which})"
    if difference < -error:
        text += f"; to do better, {WHAT_TO_DO}"
    return {**found, "difference": difference, "difference_error": error, "text": text}


def _verdict(difference: float, error: float) -> str:
    half = f"{100 * error:.1f}"
    if abs(difference) <= error:
        return f"within ±{half} points of"
    return f"{abs(100 * difference):.1f} points ±{half} {'above' if difference > 0 else 'below'}"
