"""The names and shapes of a network's weights: the one contract between supernet, graph and export."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ofa_deploy.errors import OfaDeployError
from ofa_deploy.space.cells import is_edge
from ofa_deploy.space.network import CELL_KINDS, Network, OpSpec

Weights = Mapping[str, np.ndarray]
SEPARABLE = {
    "sep_conv": ("first", "second"),
    "dil_conv": ("first",),
}  # a cell's separable convolutions, and their parts


def _bn(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def weight_shapes(op: OpSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a block, in torch's layouts (convolution ``[out, in / groups, k, k]``)."""
    if op.kind in ("stem", "head"):
        return {"conv.weight": (op.cout, op.cin, op.kernel, op.kernel), **_bn("bn", op.cout)}
    if op.kind == "classifier":
        mix: dict[str, tuple[int, ...]] = {"mix.weight": (op.mid, op.cin)} if op.mid else {}
        return {**mix, "linear.weight": (op.cout, op.mid or op.cin), "linear.bias": (op.cout,)}
    if op.kind in CELL_KINDS:
        return _cell_shapes(op)
    shapes: dict[str, tuple[int, ...]] = {}
    if op.start:
        shapes |= {"start.conv.weight": (op.cin, 1, op.start, op.start), **_bn("start.bn", op.cin)}
    if op.expands:
        shapes |= {"expand.conv.weight": (op.mid, op.cin, 1, 1), **_bn("expand.bn", op.mid)}
    if op.kernel:
        shapes |= {"depthwise.conv.weight": (op.mid, 1, op.kernel, op.kernel), **_bn("depthwise.bn", op.mid)}
    if op.se:
        shapes |= {"se.reduce.weight": (op.se, op.mid, 1, 1), "se.reduce.bias": (op.se,)}
        shapes |= {"se.expand.weight": (op.mid, op.se, 1, 1), "se.expand.bias": (op.mid,)}
    return shapes | {"project.conv.weight": (op.cout, op.mid, 1, 1), **_bn("project.bn", op.cout)}


def _cell_shapes(op: OpSpec) -> dict[str, tuple[int, ...]]:
    if op.kind == "relu_conv":
        return {"conv.weight": (op.cout, op.cin, 1, 1), **_bn("bn", op.cout)}
    if op.kind == "fact_reduce":
        half = op.cout // 2
        halves = {"even.weight": (half, op.cin, 1, 1), "odd.weight": (op.cout - half, op.cin, 1, 1)}
        return {**halves, **_bn("bn", op.cout)}
    shapes: dict[str, tuple[int, ...]] = {}
    for i, part in enumerate(SEPARABLE.get(op.kind, ())):
        cin = op.cin if i == 0 else op.cout
        shapes |= {f"{part}.depthwise.weight": (cin, 1, op.kernel, op.kernel)}
        shapes |= {f"{part}.conv.weight": (op.cout, cin, 1, 1), **_bn(f"{part}.bn", op.cout)}
    return shapes


def network_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of a network."""
    return {
        f"{name}.{part}": shape
        for name, op in zip(network.names, network.ops, strict=True)
        for part, shape in weight_shapes(op).items()
    }


def check_weights(network: Network, weights: Weights) -> None:
    """Compare weights with what a network needs.

    Raises:
        OfaDeployError: lists what is missing, unknown or misshapen.
    """
    shapes = network_shapes(network)
    wrong = [f"missing {name}" for name in shapes if name not in weights]
    wrong += [f"unknown {name}" for name in weights if name not in shapes]
    wrong += [
        f"{name} is {weights[name].shape}, not {shape}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    if wrong:
        raise OfaDeployError(f"weights do not match the network: {'; '.join(wrong[:8])} ({len(wrong)} in all)")


def random_weights(network: Network, seed: int = 0) -> dict[str, np.ndarray]:
    """Random fp32 weights that keep activations in range: He-normal convolutions, batch statistics near (0, 1)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in network_shapes(network).items():
        part = name.rsplit(".", 1)[-1]
        if len(shape) > 1:
            value = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        elif part == "running_var" or (part == "weight" and ".bn." in name):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0.0, 0.1, shape)
        if name.endswith("project.bn.weight") or (name.endswith("bn.weight") and is_edge(name.partition(".")[0])):
            value *= 0.5  # or activations grow from block to block, and fp32 cannot tell a deep network's logits apart
        weights[name] = value.astype(np.float32)
    return weights
