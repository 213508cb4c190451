"""Plots as inline SVG; colours come from the page's style sheet, tooltips from ``<title>``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

from ofa_deploy.report.markup import Child, Markup, element

WIDTH, HEIGHT = 440, 330  # about a phone's width, so that text keeps its size there
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 22, 46


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels.

    Attributes:
        low, high: values at the ends.
        start, end: pixels at the ends.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 6) -> list[float]:
        """Round values inside the range."""
        step = _round_step((self.high - self.low) / about)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    power = 10.0 ** floor(log10(step))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * 0.999)


def limits(values: Sequence[float], margin: float = 0.08) -> tuple[float, float]:
    """A range that shows all values with some room; never empty."""
    low, high = min(values), max(values)
    room = margin * (high - low) or 0.05 * abs(high) or 1.0
    return low - room, high + room


@dataclass
class Plot:
    """Axes and what is drawn on them.

    Attributes:
        name: unique on the page.
        x, y: the scales.
        shapes: what was drawn so far, from back to front.
    """

    name: str
    x: Scale
    y: Scale
    shapes: list[Child] = field(default_factory=list)

    @classmethod
    def over(cls, name: str, xs: tuple[float, float], ys: tuple[float, float]) -> Plot:
        """Empty axes over two ranges."""
        return cls(name, Scale(*xs, LEFT, WIDTH - RIGHT), Scale(*ys, HEIGHT - BOTTOM, TOP))

    def axes(self, x_label: str, y_label: str, percent: bool = False) -> None:
        """Grid, ticks and labels; with ``percent`` the y values are fractions shown as percent."""
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for value in self.x.ticks():
            at = self.x(value)
            self.shapes.append(element("line", x1=at, x2=at, y1=TOP, y2=bottom, class_="grid"))
            self.shapes.append(element("text", f"{value:.6g}", x=at, y=bottom + 17, text_anchor="middle"))
        for value in self.y.ticks():
            at = self.y(value)
            self.shapes.append(element("line", x1=LEFT, x2=right, y1=at, y2=at, class_="grid"))
            shown = f"{100 * value:.6g}" if percent else f"{value:.6g}"
            self.shapes.append(element("text", shown, x=LEFT - 7, y=at + 4, text_anchor="end"))
        self.shapes.append(element("path", d=f"M{LEFT} {TOP}V{bottom}H{right}", class_="axis"))
        self.shapes.append(element("text", x_label, x=(LEFT + right) / 2, y=HEIGHT - 8, text_anchor="middle"))
        middle = (TOP + bottom) / 2
        turned = f"rotate(-90 14 {middle:.1f})"
        self.shapes.append(element("text", y_label, x=14, y=middle, text_anchor="middle", transform=turned))

    def line(self, points: Sequence[tuple[float, float]], class_: str, style: str | None = None) -> None:
        """A line through points, cut off at the axes."""
        shown = " ".join(f"{self.x(x):.2f},{self.y(y):.2f}" for x, y in points)
        self.shapes.append(
            element("polyline", points=shown, class_=class_, style=style, clip_path=f"url(#{self.name})")
        )

    def area(self, points: Sequence[tuple[float, float]], class_: str, style: str | None = None) -> None:
        """A filled polygon, cut off at the axes."""
        shown = " ".join(f"{self.x(x):.2f},{self.y(y):.2f}" for x, y in points)
        self.shapes.append(element("polygon", points=shown, class_=class_, style=style, clip_path=f"url(#{self.name})"))

    def budget(self, value: float, text: str, style: str | None = None) -> None:
        """A vertical line with a label above it."""
        at = self.x(value)
        anchor = "end" if at > (LEFT + WIDTH) / 2 else "start"
        self.shapes.append(element("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, class_="budget", style=style))
        self.shapes.append(element("text", text, x=at, y=TOP - 7, text_anchor=anchor, class_="budget"))

    def marker(self, x: float, y: float, class_: str, title: str, shape: str = "dot", style: str | None = None) -> None:
        """A point with a tooltip; ``shape`` is ``dot``, ``small``, ``ring`` or ``diamond``."""
        self.shapes.append(marker(self.x(x), self.y(y), class_, shape, title, style))

    def number(self, x: float, y: float, text: str) -> None:
        """A short label to the upper right of a point."""
        self.shapes.append(element("text", text, x=self.x(x) + 8, y=self.y(y) - 7, class_="budget"))

    def svg(self, description: str) -> Markup:
        """The finished plot."""
        frame = element("rect", x=LEFT, y=TOP, width=WIDTH - LEFT - RIGHT, height=HEIGHT - TOP - BOTTOM)
        clip = element("defs", element("clipPath", frame, id=self.name))
        return element("svg", clip, self.shapes, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description)


def marker(
    x: float, y: float, class_: str, shape: str = "dot", title: str | None = None, style: str | None = None
) -> Markup:
    """A point's shape around a pixel."""
    tip = element("title", title) if title else None
    if shape == "diamond":
        outline = f"M{x:.2f} {y - 7:.2f}l7 7l-7 7l-7 -7z"
        return element("path", tip, d=outline, class_=class_, style=style)
    radius = {"small": 2.5, "dot": 4.5, "ring": 4.0}[shape]
    return element("circle", tip, cx=x, cy=y, r=radius, class_=class_, style=style)


def legend(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """What the shapes mean: class, shape (a marker's, ``line`` or ``area``) and words of each."""
    return element(
        "ul", [element("li", _swatch(class_, shape), words) for class_, shape, words in entries], class_="legend"
    )


def _swatch(class_: str, shape: str) -> Markup:
    if shape == "line":
        drawn = element("line", x1=0, x2=18, y1=7, y2=7, class_=class_)
    elif shape == "area":
        drawn = element("rect", x=0, y=1, width=18, height=12, class_=class_)
    else:
        drawn = marker(9, 7, class_, shape)
    return element("svg", drawn, viewBox="0 0 18 14", aria_hidden="true")
