"""A supernet as it can be given away: weights, accuracy predictor, a sample of the images, and a card that says of all
that what it is worth. Where the data set is not at hand, subnets are extracted and checked with the sample."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ofa_deploy
from ofa_deploy.deploy.subject import BATCH, PREDICTOR, SAMPLE, SUPERNET, Subject
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import write_atomic
from ofa_deploy.space import Arch, network_macs, network_params
from ofa_deploy.training import Data, batches, evaluate, write_sample

CARD = "card.json"
VALID, TEST = 500, 1000  # images of the sample; of the training split, those that batch norm is recalibrated with
Progress = Callable[[dict[str, Any]], None]


def pack(subject: Subject, folder: Path, random: int = 20, seed: int = 0, progress: Progress | None = None) -> Path:
    """Measure a supernet and pack it.

    Args:
        folder: where to; made if it is not there.
        random: how many random subnets the card has test accuracies of, beside the largest and the smallest one's.

    Returns:
        The card's file. ``random`` in it has the least, the mean and the largest of their accuracies, fractions.

    Raises:
        OfaDeployError: the supernet's data is not at hand, or it has no accuracy predictor beside it.
    """
    data = subject.data
    if subject.path is None or data is None or data.sampled or subject.recipe is None:
        reason = subject.data_error or "no more of its images are at hand than the sample that came with it"
        raise OfaDeployError(f"{subject.name} cannot be packed: {reason}")
    if not (predictor := subject.path.with_name(PREDICTOR)).is_file():
        raise OfaDeployError(f"{subject.name} has no accuracy predictor beside it; run: ofa-deploy predictor fit")
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((subject.path, SUPERNET), (predictor, PREDICTOR)):
        if source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    counts = {"train": subject.recipe.accuracy.recalibration_images, "valid": VALID, "test": TEST}
    write_sample(folder / SAMPLE, data, counts)
    card = _facts(subject, data) | {"test": _accuracies(subject, data, random, seed, progress), "sample": counts}
    write_atomic(folder / CARD, json.dumps(card, indent=2).encode() + b"\n")
    return folder / CARD


def _facts(subject: Subject, data: Data) -> dict[str, Any]:
    space, recipe = subject.space, subject.recipe
    return {
        "name": subject.name,
        "space": space.name,
        "supernet_sha256": subject.sha256,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True) if recipe else None,
        "data": {"name": data.name, **data.fingerprint},
        "predictor": subject.predictor.error if subject.predictor else None,
        "versions": {"ofa_deploy": ofa_deploy.__version__, "torch": torch.__version__},
    }


def _accuracies(subject: Subject, data: Data, random: int, seed: int, progress: Progress | None) -> dict[str, Any]:
    """Accuracies on the whole test split, with batch norm recalibrated as ``extract`` does it."""
    space, codec = subject.space, subject.codec
    drawn = codec.decode(codec.sample(random, np.random.default_rng(seed)))
    found = []
    for done, arch in enumerate(archs := [space.largest, space.smallest, *drawn], 1):
        found.append(_figures(subject, data, arch))
        if progress:
            progress({"done": done, "total": len(archs)})
    others = [row["accuracy"] for row in found[2:]]
    summary = {
        "n": len(others),
        "seed": seed,
        "least": min(others),
        "mean": float(np.mean(others)),
        "most": max(others),
    }
    return {"images": len(data.test), "largest": found[0], "smallest": found[1], "random": summary}


def _figures(subject: Subject, data: Data, arch: Arch) -> dict[str, Any]:
    images = batches(data.test, arch.resolution, BATCH, data.mean, data.std)
    network = subject.space.network(arch)
    accuracy = evaluate(subject.subnet(arch), images).accuracy
    return {"accuracy": accuracy, "macs": network_macs(network), "params": network_params(network)}
