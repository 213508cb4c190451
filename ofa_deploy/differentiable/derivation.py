"""From weights of a mixture to a genotype (DARTS, Liu et al., ICLR 2019, §2.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, NONE
from ofa_deploy.errors import UsageError
from ofa_deploy.space import Genotype
from ofa_deploy.space.genotype import OPERATIONS, SKIP

Weights = Mapping[str, Sequence[Sequence[float]]]  # of a kind of cell: for every edge, of every candidate


Nodes = dict[str, list[list[tuple[str, int]]]]  # of a kind of cell: for every node its edges, (operation, source)


def derive(weights: Weights, max_skips: int | None = None) -> Genotype:
    """The genotype of ``derive_nodes``."""
    return Genotype.of(derive_nodes(weights, max_skips))


def derive_nodes(weights: Weights, max_skips: int | None = None) -> Nodes:
    """Every edge takes its heaviest operation but none, and every node its two heaviest edges; nodes keep their order.

    Args:
        weights: of the edges of both kinds of cell, each times its edge's share.
        max_skips: where the normal cell would have more skip connections, the lightest of them lose to the next
            operation of their edge, or to another edge.

    Raises:
        UsageError: the weights are not those of cells.
    """
    if set(weights) != set(KINDS):
        raise UsageError(f"weights of the cells {', '.join(KINDS)} are needed, not of {sorted(weights)}")
    values = {kind: _table(kind, weights[kind]) for kind in KINDS}
    cells = {kind: _cell(table) for kind, table in values.items()}
    normal = values["normal"]
    while max_skips is not None and (skips := _skips(cells["normal"])) and len(skips) > max_skips:
        weakest = min(skips, key=lambda edge: normal[edge, CANDIDATES.index(SKIP)])
        normal[weakest, CANDIDATES.index(SKIP)] = -np.inf
        cells["normal"] = _cell(normal)
    return {kind: [[(op, source) for op, source, _ in node] for node in cells[kind]] for kind in KINDS}


def _table(kind: str, weights: Sequence[Sequence[float]]) -> np.ndarray:
    table = np.array(weights, dtype=float)
    if table.ndim != 2 or table.shape[1] != len(CANDIDATES) or len(table) not in _EDGES or not np.isfinite(table).all():
        raise UsageError(f"the weights of the {kind} cell are no numbers for {len(CANDIDATES)} operations an edge")
    table[:, CANDIDATES.index(NONE)] = -np.inf
    return table


_EDGES = {nodes * (nodes + 3) // 2: nodes for nodes in range(1, 8)}  # number of edges of a cell: number of its nodes


def _cell(table: np.ndarray) -> list[list[tuple[str, int, int]]]:
    """For every node its two edges: operation, source, and place in the table."""
    cell, first = [], 0
    for node in range(_EDGES[len(table)]):
        places = range(first, first + node + 2)
        best = sorted(places, key=lambda place: (-table[place].max(), place))[:2]
        cell.append([(CANDIDATES[int(table[place].argmax())], place - first, place) for place in sorted(best)])
        first += node + 2
    return cell


def _skips(cell: list[list[tuple[str, int, int]]]) -> list[int]:
    return [place for node in cell for operation, _, place in node if operation == SKIP]


def random_genotype(nodes: int, rng: np.random.Generator) -> Genotype:
    """Every operation and every pair of sources equally likely: what a search has to beat."""
    cells = {
        kind: [
            [(OPERATIONS[rng.integers(len(OPERATIONS))], int(s)) for s in rng.choice(node + 2, 2, replace=False)]
            for node in range(nodes)
        ]
        for kind in KINDS
    }
    return Genotype.of(cells)
