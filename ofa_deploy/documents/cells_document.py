"""``search.json`` of a search for cells, and a genotype alone, as pages show them."""

from __future__ import annotations

from ofa_deploy.documents.json_document import Document, Number, Whole, Words
from ofa_deploy.documents.report_document import GuardActed

Edge = tuple[Words, Whole]  # an operation, and the tensor that it reads
Nodes = list[tuple[Edge, ...]]


class Cells(Document):
    """Both cells of a genotype: for every node its edges."""

    normal: Nodes = []
    reduce: Nodes = []

    def both(self) -> tuple[tuple[str, Nodes], tuple[str, Nodes]]:
        """Their names and their nodes."""
        return ("normal", self.normal), ("reduce", self.reduce)


class EdgeWeights(Document):
    """Weights of all edges of both cells: a row for each edge, a column for each candidate."""

    normal: list[list[Number]] = []
    reduce: list[list[Number]] = []

    def of(self, kind: str) -> list[list[float]]:
        """Those of one of the cells."""
        return self.normal if kind == "normal" else self.reduce


class EpochRecord(Document):
    """Figures of an epoch: losses on both halves of the training images, how undecided the choices were, and the
    largest eigenvalue of the validation loss's Hessian, which is not computed in all epochs."""

    epoch: Whole | None = None
    loss: Number | None = None
    arch_loss: Number | None = None
    entropy: Number | None = None
    eigenvalue: Number | None = None
    weights: EdgeWeights = EdgeWeights()

    def figures(self) -> dict[str, float | None]:
        """Its figures by name."""
        names = {"loss": self.loss, "arch_loss": self.arch_loss}
        return {**names, "entropy": self.entropy, "eigenvalue": self.eigenvalue}


class CellsFound(Document):
    """What a search found; of a genotype alone, its cells.

    Attributes:
        nodes: the cells in the order of the weights.
        candidates: names of the weights' columns.
    """

    normal: Nodes = []
    reduce: Nodes = []
    genotype: Cells | None = None
    nodes: Cells | None = None
    acted: list[GuardActed] = []
    candidates: list[Words] = []
    history: list[EpochRecord] = []

    @property
    def cells(self) -> Cells:
        """The cells that it found."""
        return self.nodes or self.genotype or Cells(normal=self.normal, reduce=self.reduce)
