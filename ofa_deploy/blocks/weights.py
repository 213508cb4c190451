"""The names and shapes of a network's weights: the one contract between supernet, graph and export."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ofa_deploy.blocks.layers import Shape
from ofa_deploy.blocks.network import Network
from ofa_deploy.errors import OfaDeployError

Weights = Mapping[str, np.ndarray]
# weights of blocks on the edges of cells, whose outputs are summed
EDGE = re.compile(r"c\d+_n\d+e\d+\.")


def network_shapes(network: Network) -> dict[str, Shape]:
    """Name and shape of every weight of a network."""
    return {
        f"{name}.{part}": shape
        for name, op in zip(network.names, network.ops, strict=True)
        for part, shape in op.block.weight_shapes.items()
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
    """Random fp32 weights that keep activations in range: He-normal convolutions, norms' statistics near (0, 1)."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in network_shapes(network).items():
        part = name.rsplit(".", 1)[-1]
        if len(shape) > 1:
            value = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
        elif part == "running_var" or part == "weight":
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0.0, 0.1, shape)
        added = name.endswith("project.bn.weight") or (name.endswith("bn.weight") and EDGE.match(name))
        if added:
            value *= 0.5  # or activations grow from block to block, and fp32 cannot tell a deep network's logits apart
        weights[name] = value.astype(np.float32)
    return weights
