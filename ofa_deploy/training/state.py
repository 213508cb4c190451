"""The state of a training run on disk: everything that the next step depends on, in one file, written atomically."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import load_space
from ofa_deploy.supernet import Supernet, read_summary, read_tensors, write_tensors
from ofa_deploy.training.distributed import World

# what may change between a kill and its resume without changing the weights
_FREE = {"accuracy", "checkpoint_seconds", "data.root", "data.workers"}


@dataclass
class TrainingState:
    """A supernet in training.

    Attributes:
        momentum: SGD's buffer of every parameter.
        step: steps done.
        seconds: spent so far, over all runs.
    """

    supernet: Supernet
    momentum: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path, recipe: TrainRecipe) -> None:
        """Write the state as safetensors, with its recipe and space as JSON in the header."""
        tensors = {f"model.{name}": value for name, value in self.supernet.state_dict().items()}
        tensors |= {f"momentum.{name}": value for name, value in self.momentum.items()}
        header = {"kind": "training checkpoint", "step": self.step, "seconds": self.seconds, **_identity(recipe)}
        write_tensors(path, tensors, header)

    def restore(self, path: Path, recipe: TrainRecipe) -> None:
        """Take over a saved state.

        Raises:
            UsageError: the file is damaged, or belongs to a different recipe; names the key that differs.
        """
        header, tensors = read_tensors(path, "training checkpoint")
        check_same_recipe(path, header, recipe)
        targets = {f"model.{name}": value for name, value in self.supernet.state_dict().items()}
        targets |= {f"momentum.{name}": value for name, value in self.momentum.items()}
        if targets.keys() != tensors.keys():
            raise UsageError(f"{path} does not hold the weights of its space; remove it and train anew")
        with torch.no_grad():
            for name, value in targets.items():
                value.copy_(tensors[name])
        self.step, self.seconds = int(header["step"]), float(header["seconds"])

    def copy_from_main(self, world: World) -> None:
        """Take over the main process's state, which alone needs the checkpoint's file."""
        world.copy_from_main([*self.supernet.state_dict().values(), *self.momentum.values()])
        self.step, self.seconds = world.ask_main(lambda: [self.step, self.seconds])


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
    before = _flat({key: header.get(key, {}) for key in ("recipe", "space")})
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key) and key.removeprefix("recipe.") not in _FREE:
            raise UsageError(
                f"{path} was trained with another recipe: {key.removeprefix('recipe.')} was {before.get(key)!r}, "
                f"is now {now.get(key)!r}; restore it, or give the recipe another name"
            )


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
