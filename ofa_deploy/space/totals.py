"""Multiply-accumulates, parameters and memory of blocks, networks, whole populations and supernets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ofa_deploy.blocks import Network, OpSpec, Unit, counts
from ofa_deploy.blocks.network import INPUT
from ofa_deploy.space.search_space import Arch, SearchSpace, elastic_kernels

VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # of a weight or an activation, by precision


def op_macs(op: OpSpec) -> int:
    """Multiply-accumulates of one block for one image: convolutions and linear layers (batch norm folds away)."""
    return counts.macs(op.block)


def op_params(op: OpSpec) -> int:
    """Learned parameters of one block, with batch norm's scale and shift, without its running statistics."""
    return counts.params(op.block)


def op_weights(op: OpSpec) -> int:
    """Weights of one block as it ships: with its batch norm folded away, which leaves one bias a channel."""
    return counts.shipped_weights(op.block)


def op_activations(op: OpSpec) -> int:
    """Values that must be in memory at once to run one block for one image, its weights not counted."""
    return counts.peak_activations(op.block)


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
    each, network = [op_counts(op) for op in unit.network.ops], unit.network
    total = {name: sum(one[name] for one in each) for name in each[0]}
    if len(each) == 1:
        return total
    total["inside"] += sum(one["output"] for one in each[:-1])
    return total | {"input": sum(map(prod, network.input_shapes)), "output": each[-1]["output"]}


def network_macs(network: Network) -> int:
    """Multiply-accumulates of a network for one image."""
    return sum(map(op_macs, network.ops))


def network_params(network: Network) -> int:
    """Learned parameters of a network."""
    return sum(map(op_params, network.ops))


def network_memory(network: Network, batch: int = 1, precision: str = "fp32") -> int:
    """Peak memory in bytes that running a network takes: all of its weights, and the block with the largest working
    set of activations (``op_activations``) for a whole batch.

    This is what any runtime needs that computes one layer after the other. The runtime itself, the workspace of its
    convolutions, and an arena that keeps more tensors than are alive come on top.
    """
    weights, activations = sum(map(op_weights, network.ops)), max(_working_sets(network))
    return VALUE_BYTES[precision] * (weights + batch * activations)


def _working_sets(network: Network) -> Iterator[int]:
    """Values in memory while each block runs: its own, and the outputs of others that wait for a later reader."""
    waiting = {INPUT - i: prod(shape) for i, shape in enumerate(network.input_shapes)}
    for i, (op, sources) in enumerate(zip(network.ops, network.sources, strict=True)):
        yield op_activations(op) + sum(values for source, values in waiting.items() if source not in sources)
        waiting[i] = prod(op.output_shape)
        waiting = {source: values for source, values in waiting.items() if network.last_reader.get(source, -1) > i}


def supernet_params(space: SearchSpace) -> int:
    """Parameters of the supernet: the largest subnet with the weights of all others, and one kernel transform per
    elastic convolution and step (7→5, 5→3)."""
    elastic = [sizes for block in space.blocks for sizes in elastic_kernels(space, block).values()]
    return network_params(space.whole) + sum(small**4 for sizes in elastic for small in sizes[1:])


@lru_cache(maxsize=64)  # a search asks for the same few tables in every step
def op_table(ops: tuple[OpSpec, ...], count: str) -> np.ndarray:
    """``float64[M + 1]``: a count of every block, and 0 for the empty slot at the end; not to be written to.

    Args:
        count: ``macs``, ``params``, ``weights`` or ``activations``.
    """
    function = {"macs": op_macs, "params": op_params, "weights": op_weights, "activations": op_activations}[count]
    table = np.array([function(op) for op in ops] + [0], dtype=np.float64)
    table.flags.writeable = False
    return table


def arch_facts(arch: Arch, network: Network) -> dict[str, Any]:
    """What is kept of a subnet: ``key``, ``arch``, ``network`` (the key under which it is measured), ``macs``,
    ``params``."""
    sizes = {"macs": network_macs(network), "params": network_params(network)}
    return {"key": arch.key, "arch": arch.to_json(), "network": network.key, **sizes}
