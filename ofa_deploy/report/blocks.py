"""Time per block: measured alone, in the model, and as the network's own measurement moves it."""

from __future__ import annotations

from math import floor, log10
from typing import NamedTuple

from ofa_deploy.documents.report_document import BlockRow, Report
from ofa_deploy.report.markup import Markup, element
from ofa_deploy.report.plots import legend
from ofa_deploy.report.text import MINUS, pct, plain

COLUMNS = ("#", "block", "op", "table", "posterior", "residual", "difference", "share")


class Block(NamedTuple):
    """One block of the network; milliseconds.

    Attributes:
        place: in the order of execution, from 1.
        table: measured alone.
        posterior: what the model, which has seen whole networks, adds for it.
        residual: by how much the network's own measurement moves that.
        difference: of posterior and residual together to the table.
        share: of the predicted latency.
        decimals: with which its times are shown.
    """

    place: int
    name: str
    op: str
    table: float | None
    posterior: float | None
    residual: float | None
    difference: float | None
    share: float | None
    flags: str
    decimals: int

    def cells(self) -> list[str]:
        """The block as a row under ``COLUMNS``."""
        times = [self.time(self.table), self.time(self.posterior)]
        changes = [self.change(self.residual), self.change(self.difference)]
        return [str(self.place), self.name, self.op, *times, *changes, pct(self.share, "–", 1)]

    def time(self, value: float | None) -> str:
        """A time as text."""
        return "–" if value is None else f"{value:.{self.decimals}f} ms"

    def change(self, value: float | None) -> str:
        """A difference of times as text, with its sign."""
        if value is None:
            return "–"
        shown = f"{value:+.{self.decimals}f} ms".replace("-", MINUS)
        return shown if abs(value) >= 0.5 * 10**-self.decimals else shown[1:]


def blocks(report: Report) -> list[Block]:
    """The blocks of a report, the largest absolute difference first."""
    longest = max((ms or 0.0 for row in report.blocks for ms in (row.table_ms, row.posterior_ms)), default=0.0)
    decimals = min(max(3 - floor(log10(longest)), 0), 9) if longest > 0 else 3
    listed = [_block(place, row, decimals) for place, row in enumerate(report.blocks, 1)]
    return sorted(listed, key=lambda block: -abs(block.difference or 0.0))


def _block(place: int, row: BlockRow, decimals: int) -> Block:
    table, posterior, residual = row.table_ms, row.posterior_ms, row.residual_ms
    difference = None if table is None or posterior is None else posterior + (residual or 0.0) - table
    times = (table, posterior, residual, difference)
    return Block(place, plain(row.name), plain(row.op), *times, row.share, ", ".join(row.flags), decimals)


REMARK = (
    "Largest difference to the table first; numbers are the order of execution. The posteriors add up to the predicted "
    "latency. A residual is what the subnet's own measurement, once the model has seen it, changes a block by; what no "
    "block is blamed for counts as noise, or as this session's speed."
)


def render_blocks(report: Report) -> Markup | None:
    """The breakdown as bars."""
    found = blocks(report)
    ends = [end for b in found for end in (b.table, b.posterior, (b.posterior or 0.0) + (b.residual or 0.0)) if end]
    longest = max(ends, default=0.0)
    if longest <= 0:
        return None
    entries = [
        ("posterior", "area", "posterior: what it adds to a whole network"),
        ("residual", "area", "residual: what this subnet's measurement changes"),
        ("sum", "area", "table: measured alone"),
    ]
    return element(
        "section",
        element("h2", "Time per block"),
        element("p", REMARK),
        legend(entries),
        element("br"),
        [_row(block, longest) for block in found],
        class_="card blocks",
    )


def _row(block: Block, longest: float) -> Markup:
    marked = element("small", f"⚑ flagged: {block.flags}") if block.flags else None
    title = element("span", element("b", block.place, class_="place"), block.name)
    said = f"table {block.time(block.table)}, posterior {block.time(block.posterior)}"
    if block.residual is not None:
        said += f", residual {block.change(block.residual)}"
    alone = block.difference is None
    value = element(
        "div",
        block.time(block.posterior) if alone else block.change(block.difference),
        None if alone else element("small", "against its table"),
        element("small", f"{pct(block.share, '', 1)} of the network") if block.share is not None else None,
        class_="value",
    )
    bars = element("div", _bars(block, longest), element("small", said))
    return element("div", element("div", title, element("small", block.op), marked), bars, value, class_="block")


def _bars(block: Block, longest: float) -> Markup:
    start, moved = block.posterior or 0.0, (block.posterior or 0.0) + (block.residual or 0.0)
    return element(
        "svg",
        _bar(0.0, start, longest, "posterior", 0, 10),
        _bar(min(start, moved), max(start, moved), longest, "residual", 0, 10),
        _bar(0.0, block.table or 0.0, longest, "sum", 12, 5),
        role="img",
        aria_label=f"bars of {block.name}",
    )


def _bar(start: float, end: float, longest: float, class_: str, y: int, height: int) -> Markup | None:
    start = max(start, 0.0)
    if end <= start:
        return None
    left, width = f"{100 * start / longest:.2f}%", f"{100 * (end - start) / longest:.2f}%"
    return element("rect", x=left, y=y, height=height, width=width, class_=class_)
