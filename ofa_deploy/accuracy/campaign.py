"""Evaluating many subnets on held-out images of the training split; every evaluation is kept, none is repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ofa_deploy.accuracy.predictor import AccuracyPredictor
from ofa_deploy.config import AccuracyConfig
from ofa_deploy.space import Arch, PopulationCodec
from ofa_deploy.store import Store
from ofa_deploy.supernet import Subnet, Supernet
from ofa_deploy.training import ALONE, Data, RecalibrationCache, World, evaluate_all, specialise_all

SPLIT = "valid"
TOGETHER = 8  # subnets that share a pass over the images


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
        self._recalibrated = RecalibrationCache(supernet, data, config.recalibration_images)
        self._known = {row["key"]: float(row["accuracy"]) for row in store.evaluations(supernet_id, SPLIT)}

    def accuracy(self, arch: Arch, role: str = "fit") -> float:
        """Accuracy of a subnet with recalibrated batch norm on the held-out images, a fraction."""
        return self.accuracies([arch], [role])[0]

    def accuracies(self, archs: Sequence[Arch], roles: Sequence[str]) -> list[float]:
        """Accuracies of subnets; those that are not known yet come from one pass over the images."""
        new = {arch.key: (arch, role) for arch, role in zip(archs, roles, strict=True) if arch.key not in self._known}
        if new:
            unknown = [arch for arch, _ in new.values()]
            order = {"archs": [arch.to_json() for arch in unknown], "config": self._config.model_dump()}
            self.world.ask_main(lambda: order)
            results = evaluate_all(self.subnets(unknown), unknown, self._data, self._config.images, self.world)
            for (arch, role), result in zip(new.values(), results, strict=True):
                self._store.add_evaluation(
                    self.supernet_id, arch.to_json(), arch.key, result.accuracy, result.n, SPLIT, role
                )
                self._known[arch.key] = result.accuracy
        return [self._known[arch.key] for arch in archs]

    def subnets(self, archs: Sequence[Arch]) -> list[Subnet]:
        """Static modules in evaluation mode, with recalibrated batch norm."""
        if self.world.size == 1:
            return self._recalibrated.subnets(archs)
        return specialise_all(self._supernet, archs, self._data, self._config.recalibration_images, self.world)


def follow(supernet: Supernet, data: Data, world: World) -> None:
    """Take a share in every evaluation of the main process's campaign, until that is over (``let_go``)."""
    while order := world.ask_main(lambda: None):
        archs = [supernet.space.canonical(arch) for arch in order["archs"]]
        config = AccuracyConfig.model_validate(order["config"])
        subnets = specialise_all(supernet, archs, data, config.recalibration_images, world)
        evaluate_all(subnets, archs, data, config.images, world)


def let_go(world: World) -> None:
    """The main process's campaign is over, or there was none."""
    world.ask_main(lambda: None)


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
        progress: called with ``done`` and ``total`` after every few evaluations.
    """
    rng = np.random.default_rng(seed)
    population = codec.stratified(config.subnets, rng)
    heldout = np.zeros(len(population), dtype=bool)
    heldout[2 + rng.permutation(len(population) - 2)[: config.heldout]] = True
    archs, accuracies = codec.decode(population), np.empty(len(population))
    for first in range(0, len(archs), TOGETHER):
        some = slice(first, first + TOGETHER)
        roles = ["heldout" if out else "fit" for out in heldout[some]]
        accuracies[some] = campaign.accuracies(archs[some], roles)
        if progress:
            progress({"done": min(some.stop, len(archs)), "total": len(archs)})
    fit, test = ~heldout, heldout
    return AccuracyPredictor.fit(codec, population[fit], accuracies[fit], population[test], accuracies[test], seed)
