"""What a network, or what is measured as one of it, does for one image: multiply-accumulates, weights, memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ofa_deploy.blocks import counts
from ofa_deploy.blocks.network import INPUT, Network, Unit
from ofa_deploy.blocks.op_spec import OpSpec

VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # of a weight or an activation, by precision


def op_counts(op: OpSpec) -> dict[str, int]:
    """What one block does for one image, for a model of a device that cannot be measured.

    ``dense_macs`` and ``depthwise_macs``; ``weights``; the values that are read from (``input``) and written to
    (``output``) its neighbours; ``inside``: those that its kernels leave for each other; and the ``kernels``.
    """
    block, depthwise = op.block, counts.depthwise_macs(op.block)
    inside = counts.values_inside(block)
    return {
        "dense_macs": counts.macs(block) - depthwise,
        "depthwise_macs": depthwise,
        "weights": counts.shipped_weights(block),
        "input": counts.values_read(block),
        "inside": sum(inside),
        "output": prod(block.output),
        "kernels": len(inside) + 1,
    }


def unit_counts(unit: Unit) -> dict[str, int]:
    """``op_counts`` of what is measured as one; of a cell, ``inside`` are the tensors between its blocks too."""
    each = [op_counts(op) for op in unit.ops]
    total = {name: sum(one[name] for one in each) for name in each[0]}
    if len(each) == 1:
        return total
    total["inside"] += sum(one["output"] for one in each[:-1])
    return total | {"input": sum(map(prod, unit.network.input_shapes)), "output": each[-1]["output"]}


def network_macs(network: Network) -> int:
    """Multiply-accumulates of a network for one image."""
    return sum(counts.macs(op.block) for op in network.ops)


def network_params(network: Network) -> int:
    """Learned parameters of a network."""
    return sum(counts.params(op.block) for op in network.ops)


def network_memory(network: Network, batch: int = 1, precision: str = "fp32") -> int:
    """Peak memory in bytes that running a network takes: all of its weights, and the block with the largest working
    set of activations (``counts.peak_activations``) for a whole batch.

    This is what any runtime needs that computes one layer after the other. The runtime itself, the workspace of its
    convolutions, and an arena that keeps more tensors than are alive come on top.
    """
    weights = sum(counts.shipped_weights(op.block) for op in network.ops)
    return VALUE_BYTES[precision] * (weights + batch * max(unit_peaks(network)))


def unit_peaks(network: Network) -> list[int]:
    """For everything that is measured as one, the largest working set of its blocks: values in memory at once for one
    image, those that wait for a later reader among them."""
    sets = _working_sets(network)
    return [max(next(sets) for _ in unit.ops) for unit in network.units]


def _working_sets(network: Network) -> Iterator[int]:
    """Values in memory while each block runs: its own, and the outputs of others that wait for a later reader."""
    waiting = {INPUT - i: prod(shape) for i, shape in enumerate(network.input_shapes)}
    for i, (op, sources) in enumerate(zip(network.ops, network.sources, strict=True)):
        others = sum(values for source, values in waiting.items() if source not in sources)
        yield counts.peak_activations(op.block) + others
        waiting[i] = prod(op.output_shape)
        waiting = {source: values for source, values in waiting.items() if network.last_reader.get(source, -1) > i}
