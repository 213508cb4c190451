"""What a cell search finds: a normal and a reduction cell (DARTS, Liu et al., ICLR 2019, §2.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ofa_deploy.errors import UsageError
from ofa_deploy.json_types import JSON

KERNELS = {  # operations of an edge, except the skip: kind and kernel
    "sep_conv_3x3": ("sep_conv", 3),
    "sep_conv_5x5": ("sep_conv", 5),
    "dil_conv_3x3": ("dil_conv", 3),
    "dil_conv_5x5": ("dil_conv", 5),
    "avg_pool_3x3": ("avg_pool", 3),
    "max_pool_3x3": ("max_pool", 3),
}
SKIP = "skip_connect"
OPERATIONS = (SKIP, *KERNELS)  # what an edge of a derived cell can be
MOST_NODES = 7  # orders of more would take long to compare

Edge = tuple[str, int]
Node = tuple[Edge, Edge]
Cell = tuple[Node, ...]


@dataclass(frozen=True)
class Genotype:
    """Two cells. Build it through ``Genotype.of``, so that equal cells are equal whatever the order of their nodes.

    Attributes:
        normal, reduce: for every node its two edges, (operation, tensor that it reads): 0 and 1 are the outputs of the
            cell before the last and of the last one, 2 is the first node.
    """

    normal: Cell
    reduce: Cell

    @classmethod
    def of(cls, data: Genotype | Mapping[str, Any]) -> Genotype:
        """Check a genotype and bring its nodes into their canonical order.

        Raises:
            UsageError: names the cell and node that is wrong.
        """
        given = data.to_json() if isinstance(data, Genotype) else dict(data)
        if set(given) != {"normal", "reduce"}:
            raise UsageError(f"a genotype has the cells normal and reduce, not {sorted(given)}")
        return cls(*(_canonical(_checked(name, given[name])) for name in ("normal", "reduce")))

    def to_json(self) -> dict[str, JSON]:
        """The genotype as a JSON object."""
        return json.loads(json.dumps({"normal": self.normal, "reduce": self.reduce}))

    @property
    def skips(self) -> int:
        """Skip connections of the normal cell: many are the sign of a search that has collapsed."""
        return sum(operation == SKIP for node in self.normal for operation, _ in node)


def _checked(name: str, nodes: Any) -> Cell:
    if not isinstance(nodes, (list, tuple)) or not 1 <= len(nodes) <= MOST_NODES:
        raise UsageError(f"genotype: {name} needs a list of 1 to {MOST_NODES} nodes")
    return tuple(_node(f"genotype: node {i} of {name}", node, i + 2) for i, node in enumerate(nodes))


def _node(where: str, node: Any, known: int) -> Node:
    try:
        (one, a), (other, b) = node
    except (TypeError, ValueError):
        raise UsageError(f"{where} needs two pairs [operation, source]") from None
    for operation, source in ((one, a), (other, b)):
        if operation not in OPERATIONS:
            raise UsageError(f"{where}: unknown operation {operation!r}; known: {', '.join(OPERATIONS)}")
        if not isinstance(source, int) or isinstance(source, bool) or not 0 <= source < known:
            raise UsageError(f"{where}: source {source!r} is not from 0 to {known - 1}")
    if a == b:
        raise UsageError(f"{where} reads {a} twice; its two edges need different sources")
    return (one, a), (other, b)


def _canonical(cell: Cell) -> Cell:
    """The smallest of all orders of the nodes in which none reads a later one."""
    found = [made for order in permutations(range(len(cell))) if (made := _reordered(cell, order)) is not None]
    return min(found, key=lambda made: [[(source, operation) for operation, source in node] for node in made])


def _reordered(cell: Cell, order: tuple[int, ...]) -> Cell | None:
    place = {0: 0, 1: 1} | {old + 2: new + 2 for new, old in enumerate(order)}
    nodes = []
    for new, old in enumerate(order):
        one, other = sorted(((operation, place[source]) for operation, source in cell[old]), key=lambda e: e[1])
        if other[1] >= new + 2:
            return None
        nodes.append((one, other))
    return tuple(nodes)
