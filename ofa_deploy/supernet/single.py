"""A subnet as the only one of a supernet, and back: in ``space.frozen`` the same blocks have other names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ofa_deploy.blocks import Network
from ofa_deploy.space import SearchSpace
from ofa_deploy.supernet.subnet import Subnet
from ofa_deploy.supernet.supernet import Supernet


def as_supernet(subnet: Subnet, space: SearchSpace) -> Supernet:
    """The supernet of a space that has this subnet alone, with copies of its weights, in evaluation mode."""
    supernet = Supernet(space)
    weights = _renamed(subnet.weights(), subnet.network, space.network(space.largest))
    supernet.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    return supernet.eval()


def as_subnet(supernet: Supernet, network: Network) -> Subnet:
    """The largest subnet of a supernet under the names of an equal network, in evaluation mode."""
    largest, subnet = supernet.extract(supernet.space.largest), Subnet(network)
    subnet.load_weights(_renamed(largest.weights(), largest.network, network))
    return subnet.eval()


def _renamed(weights: Mapping[str, np.ndarray], old: Network, new: Network) -> dict[str, np.ndarray]:
    """Weights under the names that another network of the same blocks gives them."""
    names = dict(zip(old.names, new.names, strict=True))
    parts = {name: name.split(".", 1) for name in weights}
    return {f"{names[block]}.{part}": weights[name] for name, (block, part) in parts.items()}
