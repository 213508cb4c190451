"""Evaluating many subnets on held-out images; every evaluation is kept, none is repeated.

Those of the training split are looked at in four ways, which the store keeps apart by name. ``valid``: all of them.
For the accuracy predictor, parts that share no image: ``fit``, the first half, which it is fitted and tested on;
``calibration`` and ``check``, a quarter each, on which batch norm is recalibrated with other training images as well.
And ``test``: the test split, for what is said of a finished supernet, never for a choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ofa_deploy.accuracy.belief import Validation
from ofa_deploy.config import AccuracyConfig
from ofa_deploy.space import Arch, arch_facts
from ofa_deploy.store import Store
from ofa_deploy.supernet import Subnet, Supernet
from ofa_deploy.training import ALONE, Data, RecalibrationCache, World, cpu_threads, evaluate_all, specialise_all

SPLIT = "valid"
QUARTERS = {SPLIT: (0, 4), "fit": (0, 2), "calibration": (2, 3), "check": (3, 4)}
SECOND_LOOK = ("calibration", "check")
TEST = "test"


def look(data: Data, config: AccuracyConfig, split: str) -> Data:
    """The data with those images alone that a look evaluates and recalibrates on."""
    if split == TEST:
        return replace(look(data, config, SPLIT), valid=data.test)
    total = min(config.images, len(data.valid))
    first, last = (total * quarter // 4 for quarter in QUARTERS[split])
    count = config.recalibration_images
    start = min(count, max(len(data.train) - count, 0)) if split in SECOND_LOOK else 0
    own = np.arange(start, min(start + count, len(data.train)))
    return replace(data, valid=data.valid.take(np.arange(first, last)), train=data.train.take(own))


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
        threads: int | None = None,
    ) -> None:
        """Look at a supernet's subnets.

        Args:
            threads: of torch, as the supernet was trained with; by default as many as it takes.
        """
        self._store, self._supernet, self._config, self._threads = store, supernet, config, threads
        self.supernet_id, self.world = supernet_id, world
        self._sampled = data.sampled
        self._looks = {split: look(data, config, split) for split in (*QUARTERS, TEST)}
        caches = [
            RecalibrationCache(supernet, self._looks[split], config.recalibration_images)
            for split in (SPLIT, "calibration")
        ]
        self._recalibrated = {split: caches[split in SECOND_LOOK] for split in self._looks}
        self._known: dict[str, dict[str, Validation]] = {}

    def images(self, split: str) -> int:
        """How many images a look evaluates on, damaged ones among them."""
        return len(self._looks[split].valid)

    def accuracy(self, arch: Arch, role: str = "fit") -> float:
        """Accuracy of a subnet with recalibrated batch norm on the held-out images, a fraction."""
        return self.accuracies([arch], [role])[0]

    def accuracies(self, archs: Sequence[Arch], roles: Sequence[str], split: str = SPLIT) -> list[float]:
        """Accuracies of subnets in one of the looks, as ``results`` finds them."""
        return [result.accuracy for result in self.results(archs, roles, split)]

    def results(self, archs: Sequence[Arch], roles: Sequence[str], split: str = SPLIT) -> list[Validation]:
        """Accuracies and image counts of subnets in one of the looks. One pass over its images evaluates those that
        are not known yet.

        Args:
            roles: what each is evaluated for, as the store keeps it.
        """
        known = self._known_in(split)
        new = {arch.key: (arch, role) for arch, role in zip(archs, roles, strict=True) if arch.key not in known}
        if new:
            unknown = [arch for arch, _ in new.values()]
            order = {"archs": [a.to_json() for a in unknown], "config": self._config.model_dump(), "split": split}
            self.world.ask_main(lambda: order)
            subnets = self._subnets(unknown, split)
            with cpu_threads(self._threads):
                results = evaluate_all(subnets, unknown, self._looks[split], world=self.world)
            space = self._supernet.space
            self._store.architectures.add(arch_facts(arch, space.network(arch)) for arch in unknown)
            for (arch, role), result in zip(new.values(), results, strict=True):
                self._store.add_evaluation(
                    self.supernet_id, arch.to_json(), arch.key, result.accuracy, result.n, self._stored(split), role
                )
                known[arch.key] = Validation(result.accuracy, result.n)
        return [known[arch.key] for arch in archs]

    def subnets(self, archs: Sequence[Arch]) -> list[Subnet]:
        """Static modules in evaluation mode, with recalibrated batch norm."""
        return self._subnets(archs, SPLIT)

    def _stored(self, split: str) -> str:
        """Under which name the store keeps a look: a sample's few images are no substitute for the data set's."""
        return f"{split}-sample" if self._sampled else split

    def _known_in(self, split: str) -> dict[str, Validation]:
        if split not in self._known:
            rows = self._store.evaluations(self.supernet_id, self._stored(split))
            self._known[split] = {row.key: Validation(row.accuracy, row.n) for row in rows}
        return self._known[split]

    def _subnets(self, archs: Sequence[Arch], split: str) -> list[Subnet]:
        with cpu_threads(self._threads):
            if self.world.size == 1:
                return self._recalibrated[split].subnets(archs)
            images = self._config.recalibration_images
            return specialise_all(self._supernet, archs, self._looks[split], images, self.world)


def follow(supernet: Supernet, data: Data, world: World) -> None:
    """Take a share in every evaluation of the main process's campaign, until that is over (``let_go``)."""
    while order := world.ask_main(lambda: None):
        archs = [supernet.space.canonical(arch) for arch in order["archs"]]
        config = AccuracyConfig.model_validate(order["config"])
        seen = look(data, config, order["split"])
        subnets = specialise_all(supernet, archs, seen, config.recalibration_images, world)
        evaluate_all(subnets, archs, seen, world=world)


def let_go(world: World) -> None:
    """The main process's campaign is over, or there was none."""
    world.ask_main(lambda: None)
