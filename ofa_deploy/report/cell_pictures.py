"""Pictures of cells and of the search that found them, as one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from ofa_deploy.documents.cells_document import CellsFound, Nodes

WIDTH, ROW, TOP = 760, 230, 40
EPOCHS = 24  # of a strip at most
STRIP, TALL, ACROSS = 180, 9, 4  # width of an edge's strip and height of an operation in it; strips in a row
CURVE = 150  # height of a picture of a search's course
COLOURS = {"sep": "#1f77b4", "dil": "#2ca02c", "avg": "#ff7f0e", "max": "#d62728", "ski": "#7f7f7f"}
FIGURES = ("loss", "arch_loss", "entropy", "eigenvalue")


def cells_svg(found: CellsFound) -> str:
    """Both cells; below them, where there is a search's history, how the weights of the chosen edges, the loss and the
    entropy went."""
    parts, y = [], 0
    for kind, nodes in found.cells.both():
        parts.append(f'<g transform="translate(0 {y})">{_cell(kind, nodes)}</g>')
        y += ROW
        if lines := _edge_weights(kind, nodes, found):
            parts.append(f'<g transform="translate(0 {y})">{_curves(f"{kind} cell: weights of its edges", lines)}</g>')
            y += CURVE
    for name in FIGURES:
        values = [value for one in found.history if (value := one.figures()[name]) is not None]
        if len(values) > 1:
            parts.append(f'<g transform="translate(0 {y})">{_curves(name, [(name, "#333", values)])}</g>')
            y += CURVE
    style = "font: 11px sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        f'style="{style}"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def strips_svg(found: CellsFound) -> str:
    """The weights of all operations on all edges, as a strip of an edge each."""
    history, candidates = found.history, found.candidates
    places = sorted({round(i * (len(history) - 1) / (EPOCHS - 1)) for i in range(EPOCHS)})
    parts, y, tall = [], 0, 34 + TALL * len(candidates)
    for kind, nodes in found.cells.both():
        chosen = {(i, source): op for i, node in enumerate(nodes) for op, source in node}
        edges = [(node, source) for node in range(len(nodes)) for source in range(node + 2)]
        parts.append(f'<text x="10" y="{y + 16}" font-weight="bold">{kind} cell</text>')
        for place, edge in enumerate(edges):
            values = [history[i].weights.of(kind)[place] for i in places]
            at = (10 + (STRIP + 8) * (place % ACROSS), y + 24 + tall * (place // ACROSS))
            parts.append(f'<g transform="translate{at}">{_strip(edge, values, candidates, chosen.get(edge))}</g>')
        y += 24 + tall * -(-len(edges) // ACROSS)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" '
        f'style="font: 11px sans-serif"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _strip(
    edge: tuple[int, int], values: Sequence[Sequence[float]], candidates: Sequence[str], chosen: str | None
) -> str:
    """A row for each operation, a column for each epoch."""
    node, source = edge
    reads, step = ("k-2", "k-1", *map(str, range(node)))[source], (STRIP - 62) / len(values)
    most = max(max(row) for row in values) or 1.0
    parts = [f'<text y="10">{reads} → {node}</text>']
    for column, name in enumerate(candidates):
        y = 14 + TALL * column
        parts.append(f'<text y="{y + 7}" font-size="7">{escape(name)}</text>')
        parts += [
            f'<rect x="{62 + step * i:.1f}" y="{y}" width="{step + 0.2:.1f}" height="{TALL - 1}" '
            f'fill="{_colour(name)}" fill-opacity="{max(row[column], 0.0) / most:.2f}"/>'
            for i, row in enumerate(values)
        ]
        if name == chosen:
            parts.append(f'<rect x="62" y="{y}" width="{STRIP - 62}" height="{TALL - 1}" fill="none" stroke="#000"/>')
    return "".join(parts)


def _colour(operation: str) -> str:
    return COLOURS.get(operation[:3], "#333")


def _cell(kind: str, nodes: Nodes) -> str:
    """Tensors from left to right, and an arc for every edge."""
    gap, base = (WIDTH - 120) / (len(nodes) + 2), ROW - 55
    names = ["k-2", "k-1", *(str(i) for i in range(len(nodes))), "out"]
    at = [60 + gap * i for i in range(len(names))]
    parts = [f'<text x="10" y="20" font-weight="bold">{kind} cell</text>']
    for i, node in enumerate(nodes):
        for j, (operation, source) in enumerate(node):
            start, end = at[source], at[i + 2]
            middle, lift = (start + end) / 2, base - min(40 + 0.3 * (end - start), base - TOP) - 14 * j
            parts.append(
                f'<path d="M{start:.0f} {base - 10} Q{middle:.0f} {2 * lift - base + 10:.0f} {end:.0f} {base - 10}" '
                f'fill="none" stroke="{_colour(operation)}" stroke-width="1.5"/>'
                f'<text x="{middle:.0f}" y="{lift - 3:.0f}" text-anchor="middle" fill="{_colour(operation)}">'
                f"{escape(operation)}</text>"
            )
        parts.append(
            f'<path d="M{at[i + 2]:.0f} {base + 10} Q{(at[i + 2] + at[-1]) / 2:.0f} {base + 55} {at[-1]:.0f} '
            f'{base + 10}" fill="none" stroke="#bbb"/>'
        )
    for x, name in zip(at, names, strict=True):
        parts.append(
            f'<rect x="{x - 18:.0f}" y="{base - 10}" width="36" height="20" rx="4" fill="#eef" stroke="#557"/>'
            f'<text x="{x:.0f}" y="{base + 4}" text-anchor="middle">{name}</text>'
        )
    return "".join(parts)


def _edge_weights(kind: str, nodes: Nodes, found: CellsFound) -> list[tuple[str, str, list[float]]]:
    """A line for every edge: the weight of its operation, epoch by epoch."""
    if len(found.history) < 2:
        return []
    lines = []
    for i, node in enumerate(nodes):
        first = i * (i + 3) // 2
        for operation, source in node:
            column, edge = found.candidates.index(operation), first + source
            values = [float(one.weights.of(kind)[edge][column]) for one in found.history]
            lines.append((f"{i}: {operation}({source})", _colour(operation), values))
    return lines


def _curves(title: str, lines: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    values = [value for _, _, line in lines for value in line]
    low, high = min(values), max(values)
    scale = (CURVE - 45) / ((high - low) or 1.0)
    parts = [f'<text x="10" y="14" font-weight="bold">{escape(title)}</text>']
    parts += [f'<text x="6" y="{y}">{value:.3g}</text>' for y, value in ((CURVE - 12, low), (32, high))]
    for place, (name, colour, line) in enumerate(lines):
        step = (WIDTH - 145) / max(len(line) - 1, 1)
        points = [(60 + step * i, CURVE - 16 - scale * (value - low)) for i, value in enumerate(line)]
        for (x0, y0), (x1, y1) in pairwise(points):
            parts.append(f'<path d="M{x0:.1f} {y0:.1f} L{x1:.1f} {y1:.1f}" stroke="{colour}"/>')
        text = f'<text x="{WIDTH - 76}" y="{30 + 12 * place}" font-size="8" fill="{colour}">{escape(name)}</text>'
        parts.append(text if len(lines) > 1 else "")
    return "".join(parts)
