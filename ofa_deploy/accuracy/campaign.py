"""Evaluating many subnets on held-out images of the training split; every evaluation is kept, none is repeated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ofa_deploy.accuracy.predictor import AccuracyPredictor
from ofa_deploy.config import AccuracyConfig
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.store import Store
from ofa_deploy.supernet import Supernet
from ofa_deploy.training import ALONE, Data, Evaluation, World, batches, evaluate, specialise

SPLIT = "valid"
BATCH = 256


class Campaign:
    """Accuracies of one supernet's subnets, through the store.

    Attributes:
        supernet_id: sha256 of the supernet's file: evaluations of other weights are never taken for these.
        world: the processes that share the work; the others are in ``follow``.
    """

    def __init__(
        self,
        store: Store,
        supernet_id: str,
        supernet: Supernet,
        data: Data,
        config: AccuracyConfig,
        world: World = ALONE,
    ) -> None:
        self._store, self._supernet, self._data, self._config = store, supernet, data, config
        self.supernet_id, self.world = supernet_id, world
        self._known = {row["key"]: float(row["accuracy"]) for row in store.evaluations(supernet_id, SPLIT)}

    def accuracy(self, arch: Arch, role: str = "fit") -> float:
        """Accuracy of a subnet with recalibrated batch norm on the held-out images, a fraction."""
        if arch.key not in self._known:
            order = {"arch": arch.to_json(), "config": self._config.model_dump()}
            self.world.ask_main(lambda: order)
            result = _evaluate(self._supernet, arch, self._data, self._config, self.world)
            self._store.add_evaluation(
                self.supernet_id, arch.to_json(), arch.key, result.accuracy, result.n, SPLIT, role
            )
            self._known[arch.key] = result.accuracy
        return self._known[arch.key]


def follow(supernet: Supernet, data: Data, world: World) -> None:
    """Take a share in every evaluation of the main process's campaign, until that is over (``let_go``)."""
    while order := world.ask_main(lambda: None):
        arch = supernet.space.canonical(order["arch"])
        _evaluate(supernet, arch, data, AccuracyConfig.model_validate(order["config"]), world)


def let_go(world: World) -> None:
    """The main process's campaign is over, or there was none."""
    world.ask_main(lambda: None)


def _evaluate(supernet: Supernet, arch: Arch, data: Data, config: AccuracyConfig, world: World) -> Evaluation:
    subnet = specialise(supernet, arch, data, config.recalibration_images, world)
    images = batches(data.valid, arch.resolution, BATCH, data.mean, data.std, config.images, world=world)
    return evaluate(subnet, images, world)


def run_campaign(
    campaign: Campaign,
    codec: PopulationCodec,
    config: AccuracyConfig,
    seed: int = 0,
    progress: Callable[[dict], None] | None = None,
) -> AccuracyPredictor:
    """Evaluate ``config.subnets`` subnets, fit the predictor on all but ``config.heldout``, test it on those.

    A killed campaign goes on where it stopped.

    Args:
        progress: called with ``done`` and ``subnets`` after every evaluation.
    """
    rng = np.random.default_rng(seed)
    population = codec.stratified(config.subnets, rng)
    heldout = np.zeros(len(population), dtype=bool)
    heldout[2 + rng.permutation(len(population) - 2)[: config.heldout]] = True
    accuracies = np.empty(len(population))
    for i, arch in enumerate(codec.decode(population)):
        accuracies[i] = campaign.accuracy(arch, "heldout" if heldout[i] else "fit")
        if progress:
            progress({"done": i + 1, "subnets": len(population)})
    fit, test = ~heldout, heldout
    return AccuracyPredictor.fit(codec, population[fit], accuracies[fit], population[test], accuracies[test], seed)
