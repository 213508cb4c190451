"""Hand-picked networks in a plot of accuracy and latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ofa_deploy.documents.baselines_document import HandPicked
from ofa_deploy.report.baseline_verdict import trained_by
from ofa_deploy.report.plots import Plot
from ofa_deploy.report.text import accuracy, interval, ms

SWATCH = ("table", "ring", "hand-picked networks, measured")  # in a legend


class Ring(NamedTuple):
    """A hand-picked network where it lies: its latency in ms, and its accuracy with the 95 % interval, fractions."""

    network: HandPicked
    ms: float
    accuracy: float
    interval: tuple[float, float]


def plotted(networks: Sequence[HandPicked]) -> list[Ring]:
    """Those of which both are known."""
    found = []
    for one in networks:
        ends = interval(one.accuracy, one.n)
        if one.measured_ms is not None and one.accuracy is not None and ends is not None:
            found.append(Ring(one, one.measured_ms, one.accuracy, ends))
    return found


def draw_baselines(plot: Plot, rings: Sequence[Ring], style: str | None = None) -> None:
    """A ring for each network, with the intervals of its accuracy and its latency."""
    for ring in rings:
        one = ring.network
        plot.line([(ring.ms, end) for end in ring.interval], "spread")
        if one.low_ms is not None and one.high_ms is not None:
            plot.line([(one.low_ms, ring.accuracy), (one.high_ms, ring.accuracy)], "spread")
        tip = f"{one.name}: {ms(ring.ms)}, {accuracy(ring.accuracy, one.n)} ({trained_by(one)})"
        plot.marker(ring.ms, ring.accuracy, "table", tip, "ring", style)
