"""Zero-cost proxies as a gate: what scores too low, compared with random subnets, is not worth an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ofa_deploy.accuracy.proxies import proxy_scores
from ofa_deploy.config import Proxy
from ofa_deploy.space import Arch, Family, PopulationCodec
from ofa_deploy.supernet import Subnet, initialise
from ofa_deploy.training import Data, batches

COMPARED = 32  # random subnets that say what is little
BATCH = 32  # training images


class ProxyScores:
    """Proxies of subnets at initialisation, on one batch of training images.

    Not with the weights of a supernet: there, a large gradient is a sign of a subnet that fits them badly, and the
    proxies that grow with it may order subnets the wrong way round (``tests/benchmarks/proxies.py``).

    About as costly as a training step of the subnet: a filter for tens or hundreds of subnets, not for the hundreds of
    thousands that a search looks at.
    """

    def __init__(self, space: Family, data: Data, names: Sequence[str], seed: int = 0) -> None:
        self._space, self._data, self._names, self._seed = space, data, tuple(names), seed

    def __call__(self, archs: Sequence[Arch]) -> np.ndarray:
        """``float64[N, names]``."""
        rows = [list(self._of(arch).values()) for arch in archs]
        return np.array(rows, dtype=float).reshape(-1, len(self._names))

    def _of(self, arch: Arch) -> dict[str, float]:
        subnet = Subnet(self._space.network(arch))
        initialise(subnet, self._seed)
        return proxy_scores(subnet, *self._images(arch.resolution), self._names)

    def _images(self, resolution: int) -> tuple[Tensor, Tensor]:
        data = self._data
        return next(iter(batches(data.train, resolution, BATCH, data.mean, data.std, BATCH)))


class ProxyGate:
    """Which subnets score at least as a share of random subnets does, by every proxy that is asked for.

    Args:
        least: by name, the share of random subnets that score less than what passes.
    """

    def __init__(self, codec: PopulationCodec, data: Data, least: Mapping[Proxy, float], seed: int = 0) -> None:
        self._scores = ProxyScores(codec.space, data, tuple(least), seed)
        random = codec.decode(codec.sample(COMPARED, np.random.default_rng(seed)))
        self._bounds = np.array(
            [np.quantile(scores, share) for scores, share in zip(self._scores(random).T, least.values(), strict=True)]
        )

    def passes(self, archs: Sequence[Arch]) -> np.ndarray:
        """``bool[N]``."""
        return np.all(self._scores(archs) >= self._bounds, axis=1)
