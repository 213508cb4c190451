"""A supernet as it can be given away: weights, accuracy predictor, a sample of the images, and a card that says of all
that what it is worth. Where the data set is not at hand, subnets are extracted and checked with the sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

import ofa_deploy
from ofa_deploy.accuracy.campaign import TEST, Campaign
from ofa_deploy.accuracy.collection import TOGETHER
from ofa_deploy.accuracy.predictor import prediction_error
from ofa_deploy.deploy.subject import PREDICTOR, SAMPLE, SUPERNET, Subject
from ofa_deploy.documents.card_document import Card, CardData, CardTest, TestedSubnet, TestedSubnets
from ofa_deploy.errors import OfaDeployError
from ofa_deploy.files import write_atomic
from ofa_deploy.notices import Progress
from ofa_deploy.space import network_macs, network_params
from ofa_deploy.training import write_sample

CARD = "card.json"
SAMPLED = {"valid": 500, "test": 1000}  # images; of the training split, those that batch norm is recalibrated with


def pack(subject: Subject, folder: Path, random: int = 20, seed: int = 0, progress: Progress | None = None) -> Path:
    """Measure a supernet and pack it.

    Args:
        folder: where to; made if it is not there.
        random: how many random subnets the card has test accuracies of, beside the largest and the smallest one's.

    Returns:
        The card's file. ``random`` in it has the least, the mean and the largest of their accuracies, fractions, and
        how far the predictor errs on them. Every accuracy is kept: after an interruption none is measured again.

    Raises:
        OfaDeployError: the supernet's data is not at hand, or it has no accuracy predictor beside it.
    """
    data, campaign = subject.data, subject.campaign
    if subject.path is None or data is None or data.sampled or subject.recipe is None or campaign is None:
        reason = subject.data_error or "no more of its images are at hand than the sample that came with it"
        raise OfaDeployError(f"{subject.name} cannot be packed: {reason}")
    if not (predictor := subject.path.with_name(PREDICTOR)).is_file():
        raise OfaDeployError(f"{subject.name} has no accuracy predictor beside it; run: ofa-deploy predictor fit")
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((subject.path, SUPERNET), (predictor, PREDICTOR)):
        if source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    counts = {"train": subject.recipe.accuracy.recalibration_images, **SAMPLED}
    write_sample(folder / SAMPLE, data, counts)
    card = Card(
        name=subject.name,
        space=subject.space.name,
        supernet_sha256=subject.sha256,
        recipe=subject.recipe.model_dump(mode="json", exclude_defaults=True),
        data=CardData(name=data.name, **data.fingerprint),
        predictor=subject.predictor.error if subject.predictor else None,
        versions={"ofa_deploy": ofa_deploy.__version__, "torch": torch.__version__},
        test=_accuracies(subject, campaign, random, seed, progress or (lambda numbers: None)),
        sample=counts,
    )
    write_atomic(folder / CARD, json.dumps(card.to_json(), indent=2).encode() + b"\n")
    return folder / CARD


def _accuracies(subject: Subject, campaign: Campaign, random: int, seed: int, progress: Progress) -> CardTest:
    """Accuracies on the whole test split, with batch norm recalibrated as ``extract`` does it."""
    space, codec = subject.space, subject.codec
    population = codec.sample(random, np.random.default_rng(seed))
    archs, found = [space.largest, space.smallest, *codec.decode(population)], list[float]()
    for first in range(0, len(archs), TOGETHER):
        some = archs[first : first + TOGETHER]
        found += campaign.accuracies(some, ["pack"] * len(some), TEST)
        progress({"done": len(found), "total": len(archs)})
    ends = [
        TestedSubnet(accuracy=accuracy, macs=network_macs(network), params=network_params(network))
        for accuracy, network in zip(found, map(space.network, archs[:2]), strict=False)
    ]
    others = np.array(found[2:])
    low, mean, high = others.min().item(), others.mean().item(), others.max().item()
    summary = TestedSubnets(n=len(others), seed=seed, least=low, mean=mean, most=high)
    if subject.predictor is not None:
        error = prediction_error(*subject.predictor.predict(population), others, seed)
        summary = TestedSubnets(**summary.to_json(), predictor=error)
    return CardTest(images=campaign.images(TEST), largest=ends[0], smallest=ends[1], random=summary)
