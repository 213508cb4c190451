"""What search, latency, accuracy and deployment know of a family of networks: genes, places, and networks.

A chain of stages (``SearchSpace``) and networks of cells (``CellSpace``) are such families. A population holds what its
members chose of the genes; what a gene means, only the family knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from ofa_deploy.blocks import Network, Unit
from ofa_deploy.json_types import JSON


class Arch(Protocol):
    """A genotype: one member of a family. Build it through ``Family.canonical``, so that equal networks are equal."""

    @property
    def space(self) -> str:
        """Name of the family."""

    @property
    def resolution(self) -> int:
        """Input height and width in pixels."""

    @property
    def key(self) -> str:
        """sha256 of the canonical JSON."""

    def to_json(self) -> dict[str, JSON]:
        """The genotype as a JSON object."""


@dataclass(frozen=True)
class Gene:
    """One choice of a family.

    Attributes:
        name: the field of an arch that holds it, and the place there: ``resolution``, ``cells``, ``depths[0]``.
        choices: its values.
    """

    name: str
    choices: tuple[Any, ...]


@dataclass(frozen=True)
class Place:
    """Where a network may have a block, or a whole cell.

    Attributes:
        size, own: numbers of the genes that decide which: those that many blocks share, and the block's own. A gene
            means nothing where all blocks are absent whose own it is.
        depth: number of the gene that decides whether it is there; None where none does alone.
        present: for each choice of that gene whether it is.
    """

    size: tuple[int, ...]
    own: tuple[int, ...] = ()
    depth: int | None = None
    present: tuple[bool, ...] = ()

    @property
    def genes(self) -> tuple[int, ...]:
        """All that decide what stands here."""
        return self.size + self.own


ArchLike: TypeAlias = "Arch | Mapping[str, object]"  # an arch, or its JSON as it comes: ``canonical`` checks it


class Family(Protocol):
    """All networks that a choice of genes can make.

    The genes that decide many blocks come first, the resolution before all others. Then come those that decide only
    whether blocks are there, and then the blocks' own.
    """

    @property
    def name(self) -> str:
        """What archs call it."""

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Its input sizes in pixels: the choices of the first gene."""

    @property
    def in_channels(self) -> int:
        """Channels of the images."""

    @property
    def num_classes(self) -> int:
        """How many classes its networks tell apart."""

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Everything that can be chosen."""

    @property
    def places(self) -> tuple[Place, ...]:
        """Where blocks may stand."""

    @property
    def size(self) -> int:
        """How many different networks there are."""

    @property
    def largest(self) -> Arch:
        """The network with every choice at its maximum."""

    @property
    def smallest(self) -> Arch:
        """The network with every choice at its minimum."""

    def canonical(self, arch: ArchLike) -> Arch:
        """Check an arch, and bring what means nothing in it to one form.

        Raises:
            UsageError: names the first field that does not belong to this family.
        """

    def values(self, arch: ArchLike) -> list[Any]:
        """What an arch chose of every gene; a family of chains takes resolutions that it does not list, too.

        Raises:
            UsageError: see ``canonical``.
        """

    def arch(self, values: Sequence[Any]) -> Arch:
        """The arch that chose so; genes that mean nothing must hold their first choice."""

    def network(self, arch: ArchLike) -> Network:
        """The graph of blocks that an arch is."""

    def unit_at(self, place: int, values: Mapping[int, Any]) -> Unit | None:
        """What is measured as one at a place, from what the place's genes chose, by their numbers; None where nothing
        stands there."""

    def peak_at(self, place: int, values: Mapping[int, Any]) -> int:
        """Values that must be in memory at once while that runs for one image, weights not counted."""

    def alike(self, other: Family) -> bool:
        """Whether another family has the same networks, apart from their resolutions."""

    def with_resolutions(self, resolutions: tuple[int, ...]) -> Family:
        """The same family at other input sizes."""

    def to_json(self) -> dict[str, JSON]:
        """The family as a JSON object."""
