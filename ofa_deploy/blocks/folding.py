"""Which batch norms become part of the convolutions before them when a network ships."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ofa_deploy.blocks.block import Block
from ofa_deploy.blocks.layers import BatchNorm, Concat, Conv, Layer


@dataclass(frozen=True)
class Folding:
    """The batch norm that folds into a convolution, and which of its channels the convolution writes."""

    norm: BatchNorm
    channels: slice


def folds(block: Block, layer: Layer) -> bool:
    """Whether a layer is a batch norm that folds."""
    return isinstance(layer, BatchNorm) and any(folding.norm == layer for folding in foldings(block).values())


@lru_cache(maxsize=65536)
def foldings(block: Block) -> dict[int, Folding]:
    """For the places of convolutions, their batch norms; not to be written to.

    A batch norm folds where it reads what convolutions alone write, side by side where there are several, and nobody
    else reads that.
    """
    found: dict[int, Folding] = {}
    for layer in block.layers:
        if not isinstance(layer, BatchNorm):
            continue
        (source,) = layer.inputs
        joined = source >= 0 and isinstance(block.layers[source], Concat)
        parts = block.layers[source].inputs if joined else (source,)
        alone = all(len(block.readers[place]) == 1 for place in (*parts, source))
        if alone and all(place >= 0 and isinstance(block.layers[place], Conv) for place in parts):
            first = 0
            for place in parts:
                end = first + block.shapes[place][0]
                found[place], first = Folding(layer, slice(first, end)), end
    return found
