"""Cells by the strategies that look for subnets: each genotype is judged with the weights of one network that holds all
of them (random search with weight sharing, Li & Talwalkar, UAI 2019, §3.2; one-shot models, Bender et al., ICML 2018).

Every step of the network's training takes the operations of one random genotype. Batch norm takes its statistics from
the images at hand, in training and in judging: running ones would be those of a mixture of genotypes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ofa_deploy.config import TrainRecipe
from ofa_deploy.differentiable.cell_search import halves
from ofa_deploy.differentiable.derivation import random_genotype
from ofa_deploy.differentiable.genotypes import GenotypeCodec
from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, SearchNetwork, Settings, edge_count, initialise
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.differentiable.search_document import GenotypeSearchDocument
from ofa_deploy.files import write_atomic
from ofa_deploy.notices import Progress
from ofa_deploy.search import Constraints, Problem, search
from ofa_deploy.space import Genotype, Population
from ofa_deploy.supernet import read_tensors, write_tensors
from ofa_deploy.training import ALONE, Data, load_data, prepare
from ofa_deploy.training.devices import choose_device, torch_settings
from ofa_deploy.training.guards import tally
from ofa_deploy.training.optimiser import Optimiser
from ofa_deploy.training.same_recipe import check_same
from ofa_deploy.training.trainer import Batch, Checkpoint, Loop, Outcome, trained

WEIGHTS, KIND = "one_shot.safetensors", "one-shot cell network"
CHECKPOINT, CHECKPOINT_KIND = "one_shot-checkpoint.safetensors", "one-shot checkpoint"
IMAGES = 1024  # of the half that teaches architectures, on which genotypes are judged
BATCH = 256


def search_genotypes(
    recipe: DartsRecipe, folder: Path, strategy: str, evaluations: int, report: Progress | None = None
) -> GenotypeSearchDocument:
    """Look for cells with one of ``search``'s strategies; finds the same ones each time.

    Args:
        folder: keeps the shared weights, which all strategies use, and receives ``STRATEGY.json``.
        strategy: one of ``search.STRATEGIES``.
        evaluations: genotypes that are judged at most.

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
    found: GenotypeSearchDocument = {
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

    def __init__(self, recipe: DartsRecipe, folder: Path, report: Progress | None = None) -> None:
        """Read the weights that are in a folder, or train and keep them there."""
        self.recipe, self.known = recipe, dict[Genotype, float]()
        self.data, device = load_data(recipe.data), choose_device(recipe.device, ALONE)
        images = halves(self.data)[1]
        self.network = (
            _weights(recipe, self.data, folder, report).to(device).train()
        )  # batch norm by the images at hand
        items = [images[i] for i in range(min(len(images), IMAGES))]
        pixels, labels = torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items])
        x = prepare(pixels, recipe.resolution, self.data.mean, self.data.std).to(device)
        self._images = list(zip(x.split(BATCH), labels.to(device).split(BATCH), strict=True))

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


def _weights(recipe: DartsRecipe, data: Data, folder: Path, report: Progress | None) -> SearchNetwork:
    """The network with the weights that are in a folder; or with new ones, which then are."""
    path, identity = folder / WEIGHTS, {"recipe": recipe.identity("search")}
    if path.exists():
        header, tensors = read_tensors(path, KIND)
        check_same(path, header, identity)
        network = _network(recipe, data)
        network.load_state_dict(tensors)
        return network
    steps = recipe.steps(recipe.search, sum(stage.epochs for stage in recipe.search.plan))
    checkpoint = Checkpoint(folder / CHECKPOINT, CHECKPOINT_KIND, identity)
    with trained(lambda _: _OneShot(recipe, steps, data), steps, checkpoint, True, report) as run:
        write_tensors(path, run.model.state_dict(), {"kind": KIND, **identity})
    return run.model


class _OneShot(Loop):
    """Shared weights: every step teaches those of one random genotype."""

    model: SearchNetwork

    def __init__(self, darts: DartsRecipe, steps: TrainRecipe, data: Data) -> None:
        self.darts = darts
        super().__init__(steps, data, halves(data)[0])
        self.model = _network(darts, data).to(self.device)
        initialise(self.model, darts.seed)
        self.optimiser = Optimiser(self.model.learned, steps)

    def batches(self) -> Iterator[Batch]:
        """Images and labels; the genotypes begin where the steps do."""
        self.rng = np.random.default_rng(self.darts.seed)
        for _ in range(self.step):
            random_genotype(self.darts.nodes, self.rng)
        return super().batches()

    def rate(self) -> float:
        return self.darts.search.rate_at(self.step / self.total)

    def gradients(self, batch: Batch, rate: float) -> Outcome:
        images, labels = batch
        x = prepare(images, self.darts.resolution, self.data.mean, self.data.std)
        logits = self.model(x, random_genotype(self.darts.nodes, self.rng))
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        return Outcome({"loss": loss.item()}, {"genotype": tally(logits, labels)})


def _network(recipe: DartsRecipe, data: Data) -> SearchNetwork:
    config = recipe.search
    alive = {kind: torch.ones(edge_count(recipe.nodes), len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
    sizes = (recipe.resolution, config.channels, config.plan[-1].cells, recipe.nodes)
    return SearchNetwork(Settings(data.in_channels, data.num_classes, *sizes, alive, config.partial))
