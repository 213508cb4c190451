"""The state of a training run on disk: everything that the next step depends on, in one file, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Supernet, read_summary, read_tensors, write_tensors
from ofa_deploy.training.data import check_unchanged
from ofa_deploy.training.distributed import World

# what may change between a kill and its resume without changing the weights
_FREE = {
    *("accuracy", "checkpoint_seconds", "device", "parallel_subnets"),
    *("data.corrupt_limit", "data.licence", "data.root", "data.workers"),
}


@dataclass
class TrainingState:
    """A supernet in training.

    Attributes:
        momentum: SGD's buffer of every parameter.
        copies: other weights of the same space, none of them trained: ``average`` over the steps, frozen ``teacher``,
            ``best`` by the evaluations so far.
        best: what the best evaluations were, and when.
        step: steps done.
        seconds: spent so far, over all runs.
        fingerprint: of the images that it is trained on.
    """

    supernet: Supernet
    momentum: dict[str, Tensor]
    copies: dict[str, Supernet] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    fingerprint: dict[str, Any] = field(default_factory=dict)

    @property
    def evaluated(self) -> Supernet:
        """The weights that count: the average over the steps, where there is one."""
        return self.copies.get("average", self.supernet)

    def copy(self, name: str, source: Supernet) -> None:
        """Keep a copy of some weights, instead of one of that name."""
        self.copies[name] = deepcopy(source).requires_grad_(False)

    def save(self, path: Path, recipe: TrainRecipe) -> None:
        """Write the state as safetensors, with its recipe and space as JSON in the header."""
        header = {"kind": "training checkpoint", "step": self.step, "seconds": self.seconds, "best": self.best}
        header |= {"copies": list(self.copies), "fingerprint": self.fingerprint}
        write_tensors(path, self._tensors(), {**header, **_identity(recipe)})

    def restore(self, path: Path, recipe: TrainRecipe) -> None:
        """Take over a saved state.

        Raises:
            UsageError: the file is damaged, or belongs to other images or a different recipe; names the key that
                differs.
        """
        header, tensors = read_tensors(path, "training checkpoint")
        check_same_recipe(path, header, recipe)
        check_unchanged(recipe.data.name, self.fingerprint, header.get("fingerprint"), f"{path} was written")
        self._make_copies(header.get("copies", []))
        targets = self._tensors()
        if {name: value.shape for name, value in targets.items()} != {name: v.shape for name, v in tensors.items()}:
            raise UsageError(f"{path} does not hold the weights of its space; remove it and train again")
        with torch.no_grad():
            for name, value in targets.items():
                value.copy_(tensors[name])
        self.step, self.seconds, self.best = int(header["step"]), float(header["seconds"]), header.get("best", {})

    def copy_from_main(self, world: World) -> None:
        """Take over the main process's state, which alone needs the checkpoint's file."""
        self._make_copies(world.ask_main(lambda: list(self.copies)))
        world.copy_from_main(self._tensors().values())
        self.step, self.seconds, self.best = world.ask_main(lambda: [self.step, self.seconds, self.best])

    def _make_copies(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.copies:
                self.copy(name, self.supernet)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"momentum.{name}": value for name, value in self.momentum.items()}
        for prefix, supernet in {"model": self.supernet, **self.copies}.items():
            tensors |= {f"{prefix}.{name}": value for name, value in supernet.state_dict().items()}
        return tensors


def finished(path: Path, recipe: TrainRecipe) -> bool:
    """Whether this recipe's supernet is already there.

    Raises:
        UsageError: another recipe's is.
    """
    if not path.exists():
        return False
    space, summary = read_summary(path)
    check_same_recipe(path, {"recipe": summary.get("recipe", {}), "space": space.to_json()}, recipe)
    return True


def check_same_recipe(path: Path, header: dict[str, Any], recipe: TrainRecipe) -> None:
    """Compare what a file was trained with to what is asked for now.

    Raises:
        UsageError: names the first key that differs, with both values.
    """
    now = _flat(_identity(recipe))
    before = _flat(_completed({"recipe": header.get("recipe", {}), "space": header.get("space", {})}))
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key) and key.removeprefix("recipe.") not in _FREE:
            raise UsageError(
                f"{path} was trained with another recipe: {key.removeprefix('recipe.')} was {before.get(key)!r}, "
                f"is now {now.get(key)!r}; restore it, or give the recipe another name"
            )


def _completed(header: dict[str, Any]) -> dict[str, Any]:
    """A recipe and a space in which later versions' settings are at their defaults, which change nothing."""
    try:
        recipe = recipe_json(TrainRecipe.model_validate(header["recipe"]))
        return {"recipe": recipe, "space": load_space(header["space"]).to_json()}
    except (ValidationError, UsageError):  # of no version known here: it differs in any case
        return header


def recipe_json(recipe: TrainRecipe) -> dict[str, Any]:
    """The recipe as a JSON object."""
    return recipe.model_dump(mode="json")


def _identity(recipe: TrainRecipe) -> dict[str, Any]:
    """What must be equal for a resume: the recipe, with its space spelled out, since a space's file may change."""
    return {"recipe": recipe_json(recipe), "space": load_space(recipe.space).to_json()}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys; the keys in ``_FREE`` and the space's name in the recipe stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        here = f"{prefix}{key}"
        if here == "recipe.space":
            continue
        nested = isinstance(value, dict) and here.removeprefix("recipe.") not in _FREE
        flat |= _flat(value, f"{here}.") if nested else {here: value}
    return flat


def keep_metrics(path: Path, steps: int) -> None:
    """Drop the lines beyond a checkpoint's step, and one that a kill cut short."""
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            if json.loads(line)["step"] > steps:
                break
        except (ValueError, KeyError, TypeError):
            break
        kept.append(line + "\n")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OfaDeployError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
