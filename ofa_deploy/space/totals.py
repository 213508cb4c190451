"""Counts of everything that a family can have, and what is kept of one network."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ofa_deploy.arch_record import ArchFacts
from ofa_deploy.blocks import Network, Unit, counts
from ofa_deploy.blocks.network_counts import network_macs, network_params
from ofa_deploy.space.family import Arch

LARGE_KERNEL = 5  # a kernel is large if it is larger than this


@lru_cache(maxsize=64)  # a search asks for the same few tables in every step
def unit_table(units: tuple[Unit, ...], count: str) -> np.ndarray:
    """``float64[M + 1]``: what everything that is measured as one adds to a network, and 0 for the empty place at the
    end; not to be written to.

    Args:
        count: ``macs``, ``params``, ``weights`` (as they ship), ``layers`` (blocks) or ``large_kernels``.
    """
    function = {
        "macs": lambda op: counts.macs(op.block),
        "params": lambda op: counts.params(op.block),
        "weights": lambda op: counts.shipped_weights(op.block),
        "layers": lambda op: 1,
        "large_kernels": lambda op: int(np.max(op.kernel) > LARGE_KERNEL),
    }[count]
    table = np.array([sum(map(function, unit.ops)) for unit in units] + [0], dtype=np.float64)
    table.flags.writeable = False
    return table


def arch_facts(arch: Arch, network: Network) -> ArchFacts:
    """What is kept of a subnet."""
    return ArchFacts(arch.key, arch.to_json(), network.key, network_macs(network), network_params(network))
