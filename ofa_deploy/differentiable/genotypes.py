"""Genotypes as populations, so that every strategy of ``search`` looks for cells as it looks for subnets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ofa_deploy.differentiable.mixing import KINDS
from ofa_deploy.space import Genotype, Population, PopulationCodec, SearchSpace, StageSpec
from ofa_deploy.space.genotype import OPERATIONS


class GenotypeCodec(PopulationCodec):
    """Every edge of both cells is a slot, which is always there: its operation and its source stand in the genes that
    are a kernel and an expand ratio elsewhere. Nothing can be built from the space itself.

    The second edge of a node reads one of the tensors that are left when the first has chosen, so that every row is a
    genotype. Several rows are the same one.
    """

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        places = tuple(range(1, 1 + len(OPERATIONS)))  # numbers alone: nothing reads them as kernels
        stages = [
            StageSpec(8, 1, "relu", depths=(1,), kernels=places, expands=tuple(range(1, node + 3 - edge)))
            for _ in KINDS
            for node in range(nodes)
            for edge in range(2)
        ]
        super().__init__(SearchSpace("genotypes", tuple(stages), (32,)))

    def genotypes(self, population: Population) -> list[Genotype]:
        """Rows to genotypes."""
        operations, sources = np.split(population[:, -4 * len(KINDS) * self.nodes :], 2, axis=1)
        return [Genotype.of(self._cells(*row)) for row in zip(operations, sources, strict=True)]

    def _cells(self, operations: np.ndarray, sources: np.ndarray) -> dict[str, list[list[tuple[str, int]]]]:
        pairs = zip(operations.reshape(-1, 2).tolist(), sources.reshape(-1, 2).tolist(), strict=True)
        nodes: Iterator[list[tuple[str, int]]] = (
            [(OPERATIONS[one], a), (OPERATIONS[other], b + (b >= a))] for (one, other), (a, b) in pairs
        )
        return {kind: [next(nodes) for _ in range(self.nodes)] for kind in KINDS}
