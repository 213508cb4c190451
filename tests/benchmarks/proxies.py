"""What zero-cost proxies are worth: how far they order a supernet's subnets as their accuracies do, and what they cost.

python tests/benchmarks/proxies.py .ofa/supernets/fashion_mnist/supernet.safetensors [--networks 60] [--json]

Every proxy is computed at initialisation and with the weights that a subnet inherits, beside two scores that cost
nothing: the numbers of multiply-accumulates and of parameters. Accuracies are those with inherited weights, of random
subnets, on all held-out images; the workspace keeps them. Then the accuracy predictor is fitted on half of the networks
and ranks the other half, without and with the proxies as features, five times over.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ofa_deploy.accuracy import AccuracyPredictor
from ofa_deploy.accuracy.proxies import PROXIES, proxy_scores
from ofa_deploy.accuracy.rank_agreement import agreement
from ofa_deploy.deploy.subject import Subject, open_subject
from ofa_deploy.space import Arch
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet, initialise
from ofa_deploy.training import batches

SPLITS = 5  # of the networks into those fitted and those ranked


def main() -> None:
    """Score, evaluate, and print a table or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("supernet", type=Path)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--images", type=int, default=64, help="of the batch that the proxies see")
    parser.add_argument("--workspace", type=Path, help="keeps the evaluations  [default: .ofa here]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    answer = study(open_subject(Workspace.open(options.workspace), options.supernet), options)
    print(json.dumps(answer, indent=2) if options.json else table(answer))


def study(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Every score's Kendall τ with the accuracies, and its milliseconds a network."""
    if subject.campaign is None or subject.data is None:
        raise SystemExit(f"no subnet can be evaluated: {subject.data_error}")
    codec = subject.codec
    population = np.unique(codec.sample(options.networks, np.random.default_rng(0)), axis=0)
    archs = codec.decode(population)
    accuracy = np.array(subject.campaign.accuracies(archs, ["proxies"] * len(archs)))
    scores = {"macs": (codec.macs(population), 0.0), "params": (codec.params(population), 0.0)}
    for weights, build in (("init", at_initialisation), ("inherited", inherited)):
        for name in PROXIES:
            scores[f"{name}, {weights}"] = timed(subject, archs, build, name, options.images)
    proxies = {kind: [scores[f"{name}, {kind}"][0] for name in PROXIES] for kind in ("init", "inherited")}
    predictors = {kind: ranked(codec, population, accuracy, np.stack(columns, 1)) for kind, columns in proxies.items()}
    return {
        "supernet": subject.name,
        "networks": len(archs),
        "images": options.images,
        "threads": options.threads,
        "accuracy": {"least": accuracy.min(), "most": accuracy.max()},
        "scores": {name: {**agreement(s, accuracy[None]), "ms": ms} for name, (s, ms) in scores.items()},
        "predictor": {"genes alone": ranked(codec, population, accuracy, None), **predictors},
    }


def at_initialisation(subject: Subject, arch: Arch) -> Subnet:
    """A subnet that saw no image."""
    subnet = Subnet(subject.space.network(arch))
    initialise(subnet, 0)
    return subnet


def inherited(subject: Subject, arch: Arch) -> Subnet:
    """A subnet with the supernet's weights."""
    return subject.supernet.extract(arch)


def timed(
    subject: Subject, archs: Sequence[Arch], build: Callable[[Subject, Arch], Subnet], name: str, images: int
) -> tuple[np.ndarray, float]:
    """A proxy of every network, and the median of its milliseconds; building the network does not count."""
    batch, values, milliseconds = one_batches(subject, images), [], []
    for arch in archs:
        subnet = build(subject, arch)
        start = time.perf_counter()
        values.append(proxy_scores(subnet, *batch[arch.resolution], (name,))[name])
        milliseconds.append(1000 * (time.perf_counter() - start))
    return np.array(values), float(np.median(milliseconds))


def one_batches(subject: Subject, images: int) -> dict[int, tuple[Tensor, Tensor]]:
    """The same training images in every resolution."""
    data = subject.data
    return {
        size: next(iter(batches(data.train, size, images, data.mean, data.std, images)))
        for size in subject.space.resolutions
    }


def ranked(codec: Any, population: np.ndarray, accuracy: np.ndarray, scores: np.ndarray | None) -> float:
    """Mean Kendall τ of predictors of one half of the networks on the other half."""
    taus = []
    for seed in range(SPLITS):
        halves = np.array_split(np.random.default_rng(seed).permutation(len(population)), 2)
        (fit, test), columns = halves, [None if scores is None else scores[half] for half in halves]
        fitted = AccuracyPredictor.fit(
            codec, population[fit], accuracy[fit], population[test], accuracy[test], seed, *columns
        )
        taus.append(fitted.error.kendall)
    return float(np.mean(taus))


def table(answer: dict[str, Any]) -> str:
    """For people, as Markdown."""
    least, most = (100 * answer["accuracy"][name] for name in ("least", "most"))
    lines = [
        f"{answer['supernet']}: {answer['networks']} random subnets, accuracies {least:.1f} to {most:.1f} %; "
        f"{answer['images']} images, {answer['threads']} threads",
        "",
        "| score | Kendall τ | 95 % interval | ms a network |",
        "|---|---|---|---|",
    ]
    for name, score in answer["scores"].items():
        lines.append(f"| {name} | {score['tau']:.2f} | {score['low']:.2f} to {score['high']:.2f} | {score['ms']:.1f} |")
    lines += ["", "| predictor, fitted on half of them | Kendall τ on the others |", "|---|---|"]
    lines += [f"| {name} | {tau:.2f} |" for name, tau in answer["predictor"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
