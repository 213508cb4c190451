"""A subnet as the database keeps it: what makes it and what stores it both know this record, and not each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofa_deploy.json_types import JSON


@dataclass(frozen=True)
class ArchFacts:
    """A subnet by the key of its genotype ``arch``, which names its space.

    Attributes:
        network: the key under which it is measured.
        macs, params: of one image; None where they are not known.
    """

    key: str
    arch: Mapping[str, JSON]
    network: str | None = None
    macs: int | None = None
    params: int | None = None
