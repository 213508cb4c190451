"""Multiply-accumulates, parameters and memory of blocks, networks, whole populations and supernets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ofa_deploy.space.cell_layers import cell_layers
from ofa_deploy.space.network import BLOCKS, CELL_KINDS, INPUT, Network, OpSpec, Unit
from ofa_deploy.space.spec import Arch, SearchSpace
from ofa_deploy.space.weights import weight_shapes

VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # of a weight or an activation, by precision
FOLDED_AWAY = ("running_mean", "running_var", "bn.weight")  # batch norm becomes its convolution's weights and bias


def op_macs(op: OpSpec) -> int:
    """Multiply-accumulates of one block for one image: convolutions and linear layers (batch norm folds away); what
    pools, adds or joins has none."""
    area_in, (oh, ow) = op.h * op.w, op.out_hw
    if op.kind == "stem":
        return oh * ow * op.kernel**2 * op.cin * op.cout
    if op.kind == "head":
        return area_in * op.cin * op.cout
    if op.kind == "classifier":
        return op.cin * op.mid + op.mid * op.cout if op.mid else op.cin * op.cout
    if op.kind in CELL_KINDS:
        return sum(layer.dense + layer.depthwise for layer in cell_layers(op))
    expansion = prod(op.expanded_hw) * op.cin * op.mid if op.expands else 0
    return _depthwise_macs(op) + expansion + oh * ow * op.mid * op.cout + 2 * op.mid * op.se


def _depthwise_macs(op: OpSpec) -> int:
    """Those of a stage's block in its depthwise convolutions."""
    return prod(op.expanded_hw) * op.cin * op.start**2 + prod(op.out_hw) * op.mid * op.kernel**2


def op_params(op: OpSpec) -> int:
    """Learned parameters of one block, with batch norm's scale and shift, without its running statistics."""
    return sum(prod(shape) for name, shape in weight_shapes(op).items() if not name.endswith(("mean", "var")))


def op_weights(op: OpSpec) -> int:
    """Weights of one block as it ships: with its batch norm folded away, which leaves one bias a channel."""
    return sum(prod(shape) for name, shape in weight_shapes(op).items() if not name.endswith(FOLDED_AWAY))


def op_activations(op: OpSpec) -> int:
    """Values that must be in memory at once to run one block for one image, its weights not counted.

    The largest sum, over the block's convolutions and linear layers, of what each reads, what it writes, and the
    block's input where a skip connection still waits for it. Activations, the skip's addition and the gate of a
    squeeze-excitation are done in place, as runtimes do that fuse them.
    """
    source, out = op.cin * op.h * op.w, op.cout * prod(op.out_hw)
    if op.kind == "stem":
        return source + out
    if op.kind == "head":
        return op.cout * op.h * op.w + max(source, op.cout)
    if op.kind == "classifier":
        return op.mid + max(op.cin, op.cout) if op.mid else op.cin + op.cout
    if op.kind == "fact_reduce":  # both of its convolutions read the input, and what they wrote is put side by side
        return out + max(source, out)
    if op.kind in CELL_KINDS:
        written = [op.fan_in * source, *(layer.written for layer in cell_layers(op))]
        return max(map(sum, pairwise(written)))
    first, *others = pairwise([source, *op_inside(op), out])
    kept = source if op.skip else 0
    gate = op.mid * prod(op.out_hw) + op.mid + op.se if op.se else 0
    return max(sum(first), *(kept + read + written for read, written in others), kept + gate)


def op_inside(op: OpSpec) -> list[int]:
    """Values that each convolution of a stage's block writes, in their order, without the last one's."""
    area, spatial = prod(op.expanded_hw), prod(op.out_hw)
    written = [(op.start > 0, op.cin * area), (op.expands, op.mid * area), (op.kernel > 0, op.mid * spatial)]
    return [values for there, values in written if there]


def op_counts(op: OpSpec) -> dict[str, int]:
    """What one block does for one image, for a model of a device that cannot be measured.

    ``dense_macs`` and ``depthwise_macs``; ``weights``; the values that are read from (``input``) and written to
    (``output``) its neighbours; ``inside``: those that its kernels leave for each other; and the ``kernels``. Batch
    norm, ReLUs and the skip's addition are fused into their convolutions; a hard swish or a SiLU is a kernel by itself.
    """
    tensors = _between(op)
    depthwise = _depthwise_macs(op) if op.kind in BLOCKS else 0
    if op.kind in CELL_KINDS:
        depthwise = sum(layer.depthwise for layer in cell_layers(op))
    return {
        "dense_macs": op_macs(op) - depthwise,
        "depthwise_macs": depthwise,
        "weights": op_weights(op),
        "input": prod(op.input_shape) * (2 if op.skip else op.fan_in),
        "inside": sum(tensors),
        "output": prod(op.output_shape),
        "kernels": len(tensors) + 1,
    }


def unit_counts(unit: Unit) -> dict[str, int]:
    """``op_counts`` of what is measured as one; of a cell, ``inside`` are the tensors between its blocks too."""
    counts, network = [op_counts(op) for op in unit.network.ops], unit.network
    total = {name: sum(one[name] for one in counts) for name in counts[0]}
    if len(counts) == 1:
        return total
    total["inside"] += sum(one["output"] for one in counts[:-1])
    return total | {"input": sum(map(prod, network.input_shapes)), "output": counts[-1]["output"]}


def _between(op: OpSpec) -> list[int]:
    """Values in each of the tensors that a block's kernels leave for each other, all but the last kernel's."""
    spatial, passes = prod(op.out_hw), 2 if op.act in ("hswish", "silu") else 1
    if op.kind == "stem":
        return [op.cout * spatial] * (passes - 1)
    if op.kind == "head":
        return [op.cout * op.h * op.w] * passes
    if op.kind == "classifier":
        return [op.mid] * passes * (op.mid > 0)
    if op.kind in CELL_KINDS:
        return [layer.written for layer in cell_layers(op)][:-1]
    started, activated = op_inside(op)[: op.start > 0], op_inside(op)[op.start > 0 :]
    inner = [op.se] * (2 if op.gate_acts[0] == "silu" else 1)
    gated = [op.mid, *inner, op.mid, op.mid * spatial] * (op.se > 0)  # pooled, reduced, expanded again, scaled
    return [*started, *(values for values in activated for _ in range(passes)), *gated]


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
    """Parameters of the supernet: the largest subnet, and one kernel transform per depthwise and step (7→5, 5→3)."""
    elastic = [sizes for stage, _ in space.slots for sizes in space.stages[stage].depthwise_sizes.values()]
    transforms = sum(kernel**4 for sizes in elastic for kernel in sizes[:-1])
    return network_params(space.network(space.largest)) + transforms


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
    counts = {"macs": network_macs(network), "params": network_params(network)}
    return {"key": arch.key, "arch": arch.to_json(), "network": network.key, **counts}
