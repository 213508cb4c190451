"""Multiply-accumulates and parameters of blocks, networks, whole populations and supernets."""

from __future__ import annotations

from math import prod

import numpy as np

from ofa_deploy.space.network import Network, OpSpec
from ofa_deploy.space.spec import SearchSpace
from ofa_deploy.space.weights import weight_shapes


def op_macs(op: OpSpec) -> int:
    """Multiply-accumulates of one block for one image: convolutions and linear layers (batch norm folds away)."""
    area_in, (oh, ow) = op.h * op.w, op.out_hw
    if op.kind == "stem":
        return oh * ow * op.kernel**2 * op.cin * op.cout
    if op.kind == "head":
        return area_in * op.cin * op.cout
    if op.kind == "classifier":
        return op.cin * op.mid + op.mid * op.cout if op.mid else op.cin * op.cout
    expansion = area_in * op.cin * op.mid if op.mid != op.cin else 0
    return expansion + oh * ow * op.mid * (op.kernel**2 + op.cout) + 2 * op.mid * op.se


def op_params(op: OpSpec) -> int:
    """Learned parameters of one block, with batch norm's scale and shift, without its running statistics."""
    return sum(prod(shape) for name, shape in weight_shapes(op).items() if not name.endswith(("mean", "var")))


def network_macs(network: Network) -> int:
    """Multiply-accumulates of a network for one image."""
    return sum(map(op_macs, network.ops))


def network_params(network: Network) -> int:
    """Learned parameters of a network."""
    return sum(map(op_params, network.ops))


def supernet_params(space: SearchSpace) -> int:
    """Parameters of the supernet: the largest subnet, and one kernel transform per slot and step (7→5, 5→3)."""
    transforms = 0
    for stage, _ in space.slots:
        smaller = sorted(space.stages[stage].kernels)[:-1]
        transforms += sum(kernel**4 for kernel in smaller)
    return network_params(space.network(space.largest)) + transforms


def op_table(ops: tuple[OpSpec, ...], count: str) -> np.ndarray:
    """``float64[M + 1]``: macs or params of every block, and 0 for the empty slot at the end."""
    function = {"macs": op_macs, "params": op_params}[count]
    return np.array([function(op) for op in ops] + [0], dtype=np.float64)
