"""What a cell's block does, layer by layer, for the counts."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ofa_deploy.space.network import OpSpec
from ofa_deploy.space.weights import SEPARABLE


@dataclass(frozen=True)
class Layer:
    """One kernel: multiply-accumulates of a dense and of a depthwise convolution, and the values that it writes."""

    dense: int
    depthwise: int
    written: int


def cell_layers(op: OpSpec) -> list[Layer]:
    """The layers of a block of one of the ``CELL_KINDS``, in order; the ReLU before a convolution is fused into it."""
    area, out = prod(op.out_hw), prod(op.output_shape)
    if op.kind == "relu_conv":
        return [Layer(area * op.cin * op.cout, 0, out)]
    if op.kind == "fact_reduce":  # two convolutions, and their channels put side by side
        halves = (op.cout // 2, op.cout - op.cout // 2)
        return [*(Layer(area * op.cin * cout, 0, area * cout) for cout in halves), Layer(0, 0, out)]
    layers = []
    for i, _ in enumerate(SEPARABLE.get(op.kind, ())):
        cin = op.cin if i == 0 else op.cout
        layers += [Layer(0, area * cin * op.kernel**2, area * cin), Layer(area * cin * op.cout, 0, out)]
    return layers or [Layer(0, 0, out)]
