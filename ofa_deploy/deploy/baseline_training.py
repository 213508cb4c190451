"""Hand-picked networks trained alone, each by the supernet's recipe and by a plain one; the better one counts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ofa_deploy.config import TrainRecipe, read_document
from ofa_deploy.deploy.finetuning import SCRATCH, VALID
from ofa_deploy.deploy.kept_baselines import KIND, Baseline
from ofa_deploy.notices import Numbers, Tell, silent
from ofa_deploy.space import SearchSpace, arch_facts, picked_name
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import read_summary
from ofa_deploy.training import Data, alone_recipe, train_supernet, training_id

OWN, PLAIN = "the supernet's", "plain"  # the two recipes
FOLDER = "baselines"  # in the workspace
# What people do first: SGD with momentum and weight decay, one cosine, the labels as they are, images as they are or
# mirrored where the supernet's are.
_PLAIN: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 128,
    "lr": 0.1,
    "warmup_epochs": 0.5,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "label_smoothing": 0.0,
}
_KEPT = ("device", "precision", "threads", "accuracy")  # of the supernet's recipe: where it runs, how it is judged


def baseline_recipes(recipe: TrainRecipe, space: SearchSpace, epochs: int | None, seed: int) -> dict[str, TrainRecipe]:
    """How a network is trained: as the supernet is, but on the labels alone, and plainly.

    Args:
        recipe: the supernet's.
        space: of one network.
        epochs: of both; by default the recipe's own, and 15.
    """
    own = alone_recipe(recipe, space, space.largest, epochs or recipe.epochs, seed)
    flip = [name for name in recipe.data.augment if name == "flip"]
    plain = {
        **{name: value for name, value in recipe.model_dump().items() if name in _KEPT},
        **_PLAIN,
        "name": own.name,
        "space": space.to_json(),
        "data": {**recipe.data.model_dump(), "augment": flip},
        "seed": seed,
    }
    if epochs is not None:
        plain |= {"epochs": epochs, "warmup_epochs": _PLAIN["warmup_epochs"] * epochs / _PLAIN["epochs"]}
    return {PLAIN: read_document(TrainRecipe, plain), OWN: own.model_copy(update={"space": space.to_json()})}


def train_baseline(
    workspace: Workspace,
    recipe: TrainRecipe,
    data: Data,
    space: SearchSpace,
    epochs: int | None = None,
    seed: int = 0,
    progress: Tell = silent,
) -> Baseline:
    """Train a hand-picked network by both recipes, or finish what an interruption left; what is trained stays.

    Args:
        data: the recipe's images.

    Raises:
        UsageError: the recipe's images are not there.
        OfaDeployError: the training diverged, or the folder cannot be written.
    """
    files, found = dict[str, Path](), dict[str, dict[str, Any]]()
    for name, one in baseline_recipes(recipe, space, epochs, seed).items():
        folder = workspace.root / FOLDER / training_id(one, data)[:16]

        def report(numbers: Numbers, name: str = name) -> None:
            progress(f"train {picked_name(space)}, {name} recipe", numbers)

        files[name] = train_supernet(one, folder, resume=True, report=report)
        found[name] = read_summary(files[name])[1]
    valid = {name: float(summary["valid"]["largest"]) for name, summary in found.items()}
    best = max(valid, key=valid.__getitem__)
    summary = found[best]
    seconds = sum(float(one["seconds"]) for one in found.values())
    baseline = Baseline(space, files[best], best, int(summary["epochs"]), valid, int(summary["valid_images"]), seconds)
    _keep(workspace, baseline, data)
    return baseline


def _keep(workspace: Workspace, baseline: Baseline, data: Data) -> None:
    """Remember a network, its file, and its accuracy on the validation images."""
    store, space = workspace.store, baseline.space
    meta = {**vars(baseline), "space": space.to_json(), "fingerprint": data.fingerprint}
    del meta["file"]
    kept = store.artefacts(KIND)
    if not any(one.path == str(baseline.file) and one.meta == meta for one in kept):
        store.add_artefact(KIND, str(baseline.file), space.largest.key, meta)
    store.architectures.add([arch_facts(space.largest, space.network(space.largest))])
    keep_accuracy(workspace, baseline, baseline.valid[baseline.recipe], baseline.valid_n, VALID)


def keep_accuracy(workspace: Workspace, baseline: Baseline, accuracy: float, n: int, split: str) -> None:
    """Add an accuracy of a network to the workspace's architectures."""
    arch, digest = baseline.space.largest, hashlib.sha256(baseline.file.read_bytes()).hexdigest()
    workspace.store.add_evaluation(digest, arch.to_json(), arch.key, accuracy, n, split, KIND, SCRATCH, digest)
