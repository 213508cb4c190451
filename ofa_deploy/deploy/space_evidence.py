"""What says more of a space's networks than their sizes: zero-cost proxies, and short trainings that are kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ofa_deploy.accuracy.proxies import PROXIES
from ofa_deploy.accuracy.proxy_gate import ProxyScores
from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import Numbers, Progress, Tell
from ofa_deploy.space import Arch, SearchSpace, network_macs, network_params
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import read_summary
from ofa_deploy.training import Data, alone_recipe, load_data, train_supernet, training_id
from ofa_deploy.training.arrays import TensorImages
from ofa_deploy.training.data import fingerprint_of

SCORED = 12  # networks of a space and budget that the proxies score
NOISE = "noise"
SHORT = (  # default recipes; the first one whose data set is on this machine is used
    {
        "data": {"name": "fashion_mnist", "valid": 5000},
        "epochs": 1,
        "batch_size": 128,
        "warmup_epochs": 0.1,
        "weight_decay": 5e-5,
    },
    {
        "data": {"name": "digits", "valid": 297},
        "epochs": 10,
        "batch_size": 64,
        "warmup_epochs": 1,
        "weight_decay": 1e-4,
    },
)


@dataclass(frozen=True)
class Evidence:
    """Scores and trains networks on the same images.

    Attributes:
        recipe: how a network is trained; its space does not count. None if the images are noise.
        data: the images.
        trained: how many networks of a space and budget are trained.
        scored: how many are scored by proxies.
        seed: of weights and of the order of images.
    """

    workspace: Workspace
    data: Data
    recipe: TrainRecipe | None
    trained: int = 0
    scored: int = SCORED
    seed: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What an answer says of the images and trainings."""
        epochs = self.recipe.epochs if self.recipe and self.trained else None
        return {"data": self.data.name, "epochs": epochs}

    def proxies(self, space: SearchSpace, archs: Sequence[Arch], what: str, tell: Tell) -> dict[str, list[float]]:
        """Each proxy of untrained networks, by its name; minus infinity where a network tells no images apart."""
        scores = ProxyScores(space, self.data, PROXIES, self.seed)
        rows = np.empty((len(archs), len(PROXIES)))
        for i, arch in enumerate(archs):
            rows[i] = scores([arch])[0]
            tell(what, {"done": i + 1, "total": len(archs)})
        return dict(zip(PROXIES, rows.T.tolist(), strict=True))

    def train(self, space: SearchSpace, archs: Sequence[Arch], what: str, tell: Tell) -> list[dict[str, Any]]:
        """Train networks alone, one after the other; one that was trained so before is not trained again, and one whose
        training was interrupted goes on.

        Returns:
            For each ``key``, ``arch``, ``macs``, ``params``, ``accuracy`` on held-out images, and their number ``n``.
        """
        rows = []
        for i, arch in enumerate(archs):
            network = space.network(arch)
            facts = {"key": arch.key, "macs": network_macs(network), "params": network_params(network)}
            rows.append(
                {**facts, **self._alone(space, arch, _within(tell, what, i, len(archs))), "arch": arch.to_json()}
            )
            tell(what, {"done": i + 1, "total": len(archs)})
        return rows

    def _alone(self, space: SearchSpace, arch: Arch, report: Progress) -> dict[str, Any]:
        if self.recipe is None:
            raise UsageError("noise cannot be learnt: give the images with -c RECIPE.yaml")
        recipe = alone_recipe(self.recipe, space, arch, self.recipe.epochs, self.seed)
        store, identity = self.workspace.store, training_id(recipe, self.data)
        known = {artefact.sha256: artefact.meta for artefact in store.artefacts("alone")}
        if identity not in known:
            folder = self.workspace.root / "alone" / identity[:16]
            summary = read_summary(train_supernet(recipe, folder, resume=True, report=report))[1]
            known[identity] = {"accuracy": summary["valid"]["largest"], "n": summary["valid_images"]}
            store.add_artefact("alone", str(folder), identity, known[identity])
            shutil.rmtree(folder, ignore_errors=True)
        return known[identity]


def _within(tell: Tell, what: str, done: int, total: int) -> Progress:
    """A training's progress as that of all."""

    def told(p: Numbers) -> None:
        share = float(p["done"]) / float(p["total"])
        tell(what, {"done": round(done + share, 2), "total": total, "loss": p["loss"]})

    return told


def gather(
    workspace: Workspace,
    spaces: Sequence[SearchSpace],
    recipe: TrainRecipe | None = None,
    trained: int = 0,
    epochs: int | None = None,
    seed: int = 0,
) -> Evidence:
    """What scores and trains the networks of spaces.

    Args:
        recipe: whose images and training count, but for its space. By default a short one on Fashion-MNIST where its
            files are on this machine, else on scikit-learn's digits; where the spaces need other images, on noise,
            which is enough for proxies.
        epochs: of a training; by default a quarter of the recipe's, or the short one's.

    Raises:
        UsageError: the spaces are for different images, or the images do not fit them.
    """
    shapes = {(space.in_channels, space.num_classes) for space in spaces}
    if len(shapes) > 1:
        each = ", ".join(f"{s.name} {s.in_channels} and {s.num_classes}" for s in spaces)
        raise UsageError(f"the spaces are for different images (channels and classes: {each}); compare like with like")
    chosen, data = (recipe, load_data(recipe.data)) if recipe else _at_hand()
    if (shape := shapes.pop()) != (data.in_channels, data.num_classes):
        if recipe or trained:
            raise UsageError(
                f"the spaces are for images of {shape[0]} channels and {shape[1]} classes, and {data.name} has "
                f"{data.in_channels} and {data.num_classes}; give others with -c RECIPE.yaml"
            )
        return Evidence(workspace, noise(*shape, seed), None, seed=seed)
    asked = epochs or (max(1, chosen.epochs // 4) if recipe else chosen.epochs)
    ratio = asked / chosen.epochs
    chosen = chosen.model_copy(update={"epochs": asked, "warmup_epochs": chosen.warmup_epochs * ratio})
    return Evidence(workspace, data, chosen, trained, seed=seed)


def _at_hand() -> tuple[TrainRecipe, Data]:
    """The first of the short recipes whose images are on this machine; the digits always are."""
    for fields in SHORT:
        recipe = TrainRecipe.model_validate({"name": "short", "space": "small_28", **fields})
        try:
            return recipe, load_data(recipe.data, fetch=False)
        except UsageError:
            continue
    raise UsageError("there are no images on this machine; give some with -c RECIPE.yaml")


def noise(channels: int, classes: int, seed: int = 0, side: int = 32, count: int = 64) -> Data:
    """Random images with random labels."""
    made = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=made)
    labels = torch.randint(0, classes, (count,), generator=made)
    every = TensorImages(images, labels)
    half = (0.5,) * channels
    names = tuple(map(str, range(classes)))
    return Data(NOISE, every, every, every, half, half, names, fingerprint_of([every], [every]))
