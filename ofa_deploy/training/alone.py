"""One network trained alone: from random weights or given ones, on the labels or under a frozen teacher too."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from ofa_deploy.config import TrainRecipe, read_document
from ofa_deploy.notices import Numbers
from ofa_deploy.space import Arch, SearchSpace, frozen, network_macs
from ofa_deploy.supernet import Header
from ofa_deploy.training.data import Data
from ofa_deploy.training.same_recipe import recipe_json
from ofa_deploy.training.sampling import steps_per_epoch
from ofa_deploy.training.supernet_training import train_supernet

TIMED_STEPS = 8
WARMING_STEPS = 2  # of these
# what says where and how a training runs, not what comes out
_PLACE = ("device", "threads", "parallel_subnets", "checkpoint_seconds", "name")
# keys that recipes got after trainings had ids: at their defaults they are left out, so that kept trainings stay known
_LATER = ("sampling",)


def alone_recipe(
    recipe: TrainRecipe,
    space: SearchSpace,
    arch: Arch,
    epochs: int,
    seed: int = 0,
    lr: float | None = None,
    init: Path | None = None,
    teacher: Path | None = None,
) -> TrainRecipe:
    """How one subnet of a space is trained as a supernet's recipe trains that: the same images, sizes and augmentation,
    optimiser and regularisation, by one cosine; the warm-up keeps its share of the epochs.

    ``train_supernet`` runs it; the accuracy of the result is ``valid`` in its summary, on the recipe's held-out images.

    Args:
        lr: the peak learning rate, where it is not the recipe's.
        init: a file that ``as_supernet`` made: the weights to start from; without it they are random, by the seed.
        teacher: a supernet's file, whose largest subnet's predictions are learnt beside the labels.

    Raises:
        UsageError: no recipe can have the epochs or the rate.
    """
    changes: Header = {
        "name": f"{recipe.name}-{arch.key[:12]}",
        "space": frozen(space, arch).to_json(),
        "init": init,
        "teacher": teacher,
        "schedule": "progressive" if teacher else "sandwich",
        "epochs": epochs,
        "seed": seed,
        "lr": recipe.lr if lr is None else lr,
        "warmup_epochs": recipe.warmup_epochs * epochs / recipe.epochs,
        "largest_epochs": 0,
        "evaluate_every": 0,
        "patience": 0,
        "compile": False,  # so short a training would not make up for the minutes that it takes to start
    }
    return read_document(TrainRecipe, {**recipe.model_dump(), **changes})


def training_id(recipe: TrainRecipe, data: Data, *sources: str) -> str:
    """sha256 of everything that a training's result depends on, but for rounding.

    Args:
        sources: sha256 of the files that it starts from or is taught by, in place of their paths.
    """
    later = {key for key in _LATER if getattr(recipe, key) == TrainRecipe.model_fields[key].default}
    left_out = {*_PLACE, *later, "init", "teacher"}
    document = {key: value for key, value in recipe_json(recipe).items() if key not in left_out}
    document["data"] = {key: value for key, value in document["data"].items() if key not in ("root", "workers")}
    whole = {"recipe": document, "data": data.fingerprint, "sources": sources}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def expected_seconds(recipe: TrainRecipe, space: SearchSpace, archs: Sequence[Arch], data: Data) -> list[float]:
    """About how long each subnet would be trained alone for the recipe's epochs: a few steps of the smallest and of the
    largest of them are timed, and the others lie between by their multiply-accumulates."""
    macs = [network_macs(space.network(arch)) for arch in archs]
    ends = [int(np.argmin(macs)), int(np.argmax(macs))]
    steps = recipe.epochs * steps_per_epoch(recipe, data.train)
    timed = [_step_seconds(alone_recipe(recipe, space, archs[end], recipe.epochs)) for end in ends]
    return (steps * np.interp(macs, [macs[end] for end in ends], timed)).tolist()


class _TimedError(Exception):
    """Enough steps were timed."""


def _step_seconds(recipe: TrainRecipe) -> float:
    """Median time of a few steps, once they run warm."""
    times: list[float] = []

    def note(_: Numbers) -> None:
        times.append(time.monotonic())
        if len(times) > WARMING_STEPS + TIMED_STEPS:
            raise _TimedError

    with TemporaryDirectory() as folder:
        try:
            train_supernet(recipe.model_copy(update={"checkpoint_seconds": 1e9}), Path(folder), report=note)
        except _TimedError:
            times = times[WARMING_STEPS:]
    return median(np.diff(times).tolist() or [0.0])
