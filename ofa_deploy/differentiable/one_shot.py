"""Cells by the strategies that look for subnets: each genotype is judged with the weights of one network that holds all
of them (random search with weight sharing, Li & Talwalkar, UAI 2019, §3.2; one-shot models, Bender et al., ICML 2018).

Every step of the network's training takes the operations of one random genotype. Batch norm takes its statistics from
the images at hand, in training and in judging: running ones would be those of a mixture of genotypes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from ofa_deploy.differentiable.cell_search import check_same
from ofa_deploy.differentiable.derivation import random_genotype
from ofa_deploy.differentiable.genotypes import GenotypeCodec
from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, SearchNetwork, Settings, edge_count, initialise
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.space import Genotype, Population
from ofa_deploy.supernet import read_tensors, write_tensors
from ofa_deploy.training import ALONE, Data, load_data, prepare
from ofa_deploy.training.devices import choose_device
from ofa_deploy.training.loop import torch_settings
from ofa_deploy.training.sampling import steps_per_epoch, train_batches

Report = Callable[[dict[str, Any]], None]
WEIGHTS, KIND = "one_shot.safetensors", "one-shot cell network"
IMAGES = 1024  # of the half that teaches architectures, on which genotypes are judged
BATCH = 256


def search_genotypes(
    recipe: DartsRecipe, folder: Path, strategy: str, evaluations: int, report: Report | None = None
) -> dict[str, Any]:
    """Look for cells with one of ``search``'s strategies; finds the same ones each time.

    Args:
        folder: keeps the shared weights, which all strategies use, and receives ``STRATEGY.json``.
        strategy: one of ``search.STRATEGIES``.
        evaluations: genotypes that are judged at most.

    Returns:
        ``recipe``, ``strategy``, ``genotype``, ``accuracy`` (with the shared weights, on images of the training split
        that taught no weights), ``evaluations``, ``trace`` (every improvement), ``seconds``.

    Raises:
        UsageError: there is no such strategy, the data is too small, or another recipe's weights are in the folder.
    """
    with torch_settings(recipe.threads):
        judge = Judge(recipe, folder, report)
        codec = GenotypeCodec(recipe.nodes)

        def accuracy(population: Population) -> np.ndarray:
            found = []
            for genotype in codec.genotypes(population):
                found.append(judge.accuracy(genotype))
                if report is not None:
                    report({"done": len(judge.known), "total": evaluations})
            return np.array(found)

        result = search(Problem(codec, accuracy, None, Constraints()), recipe.seed, strategy, evaluations)
    best = codec.genotypes(codec.encode([result.best.arch]))[0]
    found = {
        "recipe": recipe.identity("search"),
        "strategy": strategy,
        "genotype": best.to_json(),
        "accuracy": result.best.accuracy,
        "evaluations": result.evaluations,
        "trace": [{"evaluations": step.evaluations, "accuracy": step.accuracy} for step in result.trace],
        "seconds": round(result.seconds, 1),
    }
    write_atomic(folder / f"{strategy}.json", (json.dumps(found, indent=1) + "\n").encode())
    return found


class Judge:
    """Accuracies of genotypes with shared weights.

    Attributes:
        known: those that were judged.
    """

    def __init__(self, recipe: DartsRecipe, folder: Path, report: Report | None = None) -> None:
        """Read the weights that are in a folder, or train and keep them there."""
        self.recipe, self.known = recipe, dict[Genotype, float]()
        self.data, self.device = load_data(recipe.data), choose_device(recipe.device, ALONE)
        half = len(self.data.train) // 2
        if not half:
            raise UsageError(f"{self.data.name}: a search needs two training images at least")
        self.network = _network(recipe, self.data).to(self.device)
        path, identity = folder / WEIGHTS, recipe.identity("search")
        if path.exists():
            header, tensors = read_tensors(path, KIND)
            check_same(path, header["recipe"], identity)
            self.network.load_state_dict(tensors)
        else:
            self._train(half, report)
            write_tensors(path, self.network.state_dict(), {"kind": KIND, "recipe": identity})
        self.network.train()  # batch norm by the images at hand
        images = self.data.train.take(np.arange(half, min(2 * half, half + IMAGES)))
        pixels = torch.stack([images[i][0] for i in range(len(images))])
        labels = torch.tensor([images[i][1] for i in range(len(images))])
        x = prepare(pixels, recipe.resolution, self.data.mean, self.data.std).to(self.device)
        self._images = list(zip(x.split(BATCH), labels.to(self.device).split(BATCH), strict=True))

    @property
    def images(self) -> int:
        """How many images an accuracy is counted on."""
        return sum(len(y) for _, y in self._images)

    @torch.no_grad()
    def accuracy(self, genotype: Genotype) -> float:
        """Share of the images that a genotype gets right."""
        if genotype not in self.known:
            hits = [int((self.network(x, genotype).argmax(1) == y).sum()) for x, y in self._images]
            self.known[genotype] = sum(hits) / self.images
        return self.known[genotype]

    def _train(self, half: int, report: Report | None) -> None:
        recipe, config, network = self.recipe, self.recipe.search, self.network
        initialise(network, recipe.seed)
        train, epochs = self.data.train.take(np.arange(half)), sum(stage.epochs for stage in config.plan)
        steps, rng = recipe.steps(config, epochs), np.random.default_rng(recipe.seed)
        weights, total = list(network.learned.values()), epochs * steps_per_epoch(steps, train)
        sgd = torch.optim.SGD(weights, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        started = time.monotonic()
        network.train()
        for step, (images, labels) in zip(range(total), train_batches(train, steps, 0), strict=False):
            done = 0.5 * (1 + math.cos(math.pi * step / total))
            sgd.param_groups[0]["lr"] = config.lr_min + (config.lr - config.lr_min) * done
            x = prepare(images.to(self.device), recipe.resolution, self.data.mean, self.data.std)
            loss = F.cross_entropy(network(x, random_genotype(recipe.nodes, rng)), labels.to(self.device))
            sgd.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, config.clip_norm)
            sgd.step()
            if report is not None:
                report({"done": step + 1, "total": total, "loss": loss.item(), "seconds": time.monotonic() - started})


def _network(recipe: DartsRecipe, data: Data) -> SearchNetwork:
    config = recipe.search
    alive = {kind: torch.ones(edge_count(recipe.nodes), len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
    sizes = (recipe.resolution, config.channels, config.plan[-1].cells, recipe.nodes)
    return SearchNetwork(Settings(data.in_channels, data.num_classes, *sizes, alive, config.partial))
