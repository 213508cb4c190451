"""Which of several spaces promises more at a budget, and why: plain sentences from a comparison's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot, sqrt
from statistics import fmean, stdev
from typing import Any

from ofa_deploy.intervals import Z95
from ofa_deploy.report.text import count, pct

SIMILAR = 0.1  # by so much the sizes must differ, as a fraction, to be worth a word
Entry = Mapping[str, Any]


def verdict(budget_ms: float, entries: Sequence[Entry]) -> dict[str, Any]:
    """Compare the spaces at one budget.

    Trainings decide where every space has some; else the multiply-accumulates at the median do, as in MCUNet.

    Args:
        entries: of the spaces at this budget, as ``compare_spaces`` answers them.

    Returns:
        ``budget_ms``; ``order``, names, the best first; ``by``: ``trained``, ``macs``, or ``fits`` where only one space
        has networks that fit; ``clear``: whether the accuracies of the first two differ by more than chance, or else
        their sizes by more than a tenth; and ``text``. Without a network that fits, ``order`` is empty and ``by`` None.
    """
    fitting = [entry for entry in entries if entry["n_near"]]
    if not fitting:
        fastest = min(entries, key=lambda entry: entry["fastest_ms"])
        what = f"the fastest is of {fastest['name']} and needs {fastest['fastest_ms']:.4g} ms"
        return _answer(budget_ms, [], None, False, f"no space has a network that fits; {what}")
    by = "fits" if len(fitting) == 1 else "trained" if all(entry["trained"] for entry in fitting) else "macs"
    value = accuracy if by == "trained" else lambda entry: (entry["macs"]["p50"], 0.0)
    order = sorted(fitting, key=lambda entry: -value(entry)[0])
    names = [entry["name"] for entry in order]
    if by == "fits":
        return _answer(budget_ms, names, by, True, f"{names[0]} promises more: no other space has a network that fits")
    (first, first_error), (second, second_error) = value(order[0]), value(order[1])
    chance = SIMILAR * second if by == "macs" else Z95 * hypot(first_error, second_error)
    clear = first - second > chance
    if by == "macs":
        text = (
            f"{_said(names, clear)}: of the networks that use the budget, the median of {names[0]} has {count(first)} "
            f"multiply-accumulates, that of {names[1]} {count(second)}; train some to be sure (--train 3)"
        )
        return _answer(budget_ms, names, by, clear, text)
    networks = "a network" if len(order[0]["trained"]) == 1 else f"{len(order[0]['trained'])} networks"
    one, other = _mean(first, first_error), _mean(second, second_error)
    text = f"{_said(names, clear)}: {networks} of {names[0]}, trained briefly: {one}, of {names[1]}: {other}"
    return _answer(budget_ms, names, by, clear, text)


def _said(names: Sequence[str], clear: bool) -> str:
    return f"{names[0]} promises more" if clear else f"no clear difference between {names[0]} and {names[1]}"


def accuracy(entry: Entry) -> tuple[float, float]:
    """Mean accuracy of the trained networks and its standard error, from what tells them apart and from the images."""
    found = [row["accuracy"] for row in entry["trained"]]
    mean = fmean(found)
    apart = stdev(found) / sqrt(len(found)) if len(found) > 1 else 0.0
    return mean, hypot(apart, sqrt(mean * (1 - mean) / entry["trained"][0]["n"]))


def _answer(budget_ms: float, order: list[str], by: str | None, clear: bool, text: str) -> dict[str, Any]:
    return {"budget_ms": budget_ms, "order": order, "by": by, "clear": clear, "text": text}


def _mean(mean: float, error: float) -> str:
    return f"{pct(mean, digits=1)} ±{100 * Z95 * error:.1f}"
