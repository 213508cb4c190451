"""What is to be measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ofa_deploy.blocks import Network
from ofa_deploy.fleet.schemas import JobItem
from ofa_deploy.space import Arch, network_macs, unit_counts


@dataclass(frozen=True)
class MeasureItem:
    """One block, one cell or one whole network, with the ONNX file's bytes that a device will run.

    Attributes:
        model: the file's content. Of a simulated device any bytes that tell items apart: it never opens a model.
        arch: where the network comes from a space, its genotype; else None.
    """

    network: Network
    model: bytes
    arch: Arch | None
    kind: Literal["op", "network", "anchor"]  # an anchor is a network that shows how fast the device is now

    @cached_property
    def sha256(self) -> str:
        """Of the model's bytes."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def key(self) -> str:
        """The block's key, or the network's."""
        return self.network.unit_keys[0] if self.kind == "op" else self.network.key

    @property
    def asked(self) -> JobItem:
        """The item as the server's API takes it; the model goes there by itself."""
        return JobItem(
            kind=self.kind,
            key=self.key,
            ops=self.network.unit_keys,
            specs=[unit.op.to_json() for unit in self.network.units],
            counts=[{**unit_counts(unit)} for unit in self.network.units],
            arch=self.arch.to_json() if self.arch else None,
            blob=self.sha256,
        )


def choose_sentinels(items: Sequence[MeasureItem], count: int = 5) -> list[MeasureItem]:
    """The items that can show a device's drift, best first: a device takes the first that it can run.

    Blocks of middling size are best: a tiny one would show its own overhead, a big one would take much of every round.
    Among whole networks it is the smallest.
    """
    blocks = [item for item in items if item.kind == "op"]
    ordered = sorted(blocks or items, key=lambda item: (network_macs(item.network), item.key))
    best = len(ordered) // 2 if blocks else 0
    nearest = sorted(range(len(ordered)), key=lambda place: abs(place - best))
    return [ordered[place] for place in nearest[:count]]
