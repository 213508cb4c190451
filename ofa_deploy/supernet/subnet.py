"""A plain static network: what a subnet is once it has left its supernet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ofa_deploy.blocks import Network, check_weights
from ofa_deploy.blocks.network import INPUT
from ofa_deploy.supernet.execute import BlockModule


class Subnet(nn.Module):
    """The modules of a ``Network``.

    Attributes:
        network: what this module executes; the state's names are those of ``blocks.network_shapes`` for it.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        for name, op in zip(network.names, network.ops, strict=True):
            self.add_module(name, BlockModule(op.block))

    def forward(self, x: Tensor, after: Callable[[str, Tensor], Tensor] | None = None) -> Tensor:
        """``[N, channels, resolution, resolution] -> [N, classes]``, for a whole network.

        Args:
            after: what is made of each block's output, given its name, before others read it.
        """
        network, values = self.network, {INPUT: x}
        for i, (block, sources) in enumerate(zip(self.children(), network.sources, strict=True)):
            y = block(*(values[source] for source in sources))
            values[i] = y if after is None else after(network.names[i], y)
            for source in set(sources):
                if network.last_reader[source] == i:
                    del values[source]
        return values[len(network.ops) - 1]

    def weights(self) -> dict[str, np.ndarray]:
        """The weights as fp32 arrays: exactly the names of ``blocks.network_shapes``."""
        return {
            name: value.detach().cpu().float().numpy().copy()
            for name, value in self.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take the weights of ``weights()`` or of any other source.

        Raises:
            OfaDeployError: a weight is missing, unknown or misshapen.
        """
        check_weights(self.network, weights)
        self.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in weights.items()}, strict=False)
