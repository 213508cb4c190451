"""The search for cells: weights and architecture in turns, resumable (DARTS, Liu et al., ICLR 2019, algorithm 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.config import TrainRecipe
from ofa_deploy.differentiable import bilevel
from ofa_deploy.differentiable.collapse import Stop, should_stop
from ofa_deploy.differentiable.derivation import derive, derive_nodes
from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, SearchNetwork, Settings, edge_count, initialise
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.differentiable.search_document import Acted, CellSearchDocument, Epoch, read_search
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.notices import Progress
from ofa_deploy.supernet import Header
from ofa_deploy.training import Data, load_data, prepare
from ofa_deploy.training.guards import tally
from ofa_deploy.training.optimiser import Optimiser
from ofa_deploy.training.same_recipe import check_same
from ofa_deploy.training.sampling import train_batches
from ofa_deploy.training.sources import Images
from ofa_deploy.training.trainer import Batch, Checkpoint, Loop, Outcome, trained

RESULT, CHECKPOINT = "search.json", "checkpoint.safetensors"
KIND = "cell search checkpoint"


def search_cells(
    recipe: DartsRecipe, folder: Path, resume: bool = False, report: Progress | None = None
) -> CellSearchDocument:
    """Search for cells, or finish the search that a kill interrupted (``trainer.trained``).

    Half of the training images teach the weights, the other half the architecture.

    Args:
        folder: receives ``search.json`` (the result) and, until the end, ``checkpoint.safetensors``.
        report: called after every step with done, total and the step's figures.

    Raises:
        UsageError: the recipe does not fit the data, another recipe's search is here, or an unfinished one is and
            ``resume`` was not asked for.
        OfaDeployError: a guard stops it (``guards.Guards.check``), or the folder cannot be written.
    """
    result, identity = folder / RESULT, {"recipe": recipe.identity("search")}
    if result.exists():
        found = read_search(result)
        check_same(result, {"recipe": found["recipe"]}, identity)
        return found
    checkpoint = Checkpoint(folder / CHECKPOINT, KIND, identity)
    steps = recipe.steps(recipe.search, sum(stage.epochs for stage in recipe.search.plan))
    with trained(lambda _: _CellSearch(recipe, steps), steps, checkpoint, resume, report) as run:
        found = run.conclude()
        write_atomic(result, (json.dumps(found, indent=1) + "\n").encode())
    return found


def halves(data: Data) -> tuple[Images, Images]:
    """The training images that teach weights, and those that teach architectures: as many.

    Raises:
        UsageError: there are too few.
    """
    half = len(data.train) // 2
    if not half:
        raise UsageError(f"{data.name}: a search needs two training images at least")
    return data.train.take(np.arange(half)), data.train.take(np.arange(half, 2 * half))


class _CellSearch(Loop):
    """The stage's network, both optimisers, and what happened so far."""

    model: SearchNetwork

    def __init__(self, darts: DartsRecipe, steps: TrainRecipe) -> None:
        self.darts, self.config = darts, darts.search
        data = load_data(darts.data)
        train, self.valid = halves(data)
        super().__init__(steps, data, train)
        self.history: list[Epoch] = []
        self.sums: dict[str, float] = {}
        self.stop: Stop | None = None
        edges = edge_count(darts.nodes)
        self.alive = {kind: torch.ones(edges, len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
        self.open(0)

    def open(self, stage: int) -> None:
        """A stage's network, with fresh weights."""
        config, darts = self.config, self.darts
        self.stage = stage
        settings = Settings(
            self.data.in_channels,
            self.data.num_classes,
            darts.resolution,
            config.channels,
            config.plan[stage].cells,
            darts.nodes,
            self.alive,
            config.partial,
            config.auxiliary_skip,
            config.relaxation == "sigmoid",
        )
        self.model = SearchNetwork(settings).to(self.device)
        initialise(self.model, darts.seed + stage)
        self.model.train()
        self.optimiser = Optimiser(self.model.learned, self.recipe)
        self.adam = torch.optim.Adam(
            self.model.architecture, lr=config.arch_lr, betas=(0.5, 0.999), weight_decay=config.arch_weight_decay
        )
        for parameter in self.model.architecture:
            zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.adam.state[parameter].update({"step": torch.zeros(()), **zeros})

    @property
    def over(self) -> bool:
        return self.stop is not None

    def batches(self) -> Iterator[Batch]:
        """Images and labels for the weights, and images and labels for the architecture."""
        steps = self.recipe.model_copy(update={"seed": self.recipe.seed + 1})
        other = train_batches(self.valid, steps, self.step)
        return ((*train, *valid) for train, valid in zip(super().batches(), other, strict=False))

    def _prepared(self, images: Tensor) -> Tensor:
        return prepare(images, self.darts.resolution, self.data.mean, self.data.std)

    @property
    def _span(self) -> tuple[int, int]:
        """First epoch of the stage, and the first after it."""
        first = sum(stage.epochs for stage in self.config.plan[: self.stage])
        return first, first + self.config.plan[self.stage].epochs

    def _progress(self) -> float:
        """Share of the stage that is done."""
        first, end = (epoch * self.per_epoch for epoch in self._span)
        return (self.step - first) / (end - first)

    def rate(self) -> float:
        return self.config.rate_at(self._progress())

    def gradients(self, batch: Batch, rate: float) -> Outcome:
        """Move the architecture, unless it is frozen; then add the gradients of the weights."""
        train, valid = (self._prepared(batch[0]), batch[1]), (self._prepared(batch[2]), batch[3])
        self.model.extra = 1.0 - self._progress() if self.config.auxiliary_skip else 0.0
        frozen = self.step < (self._span[0] + self.config.frozen_epochs) * self.per_epoch
        losses = {} if frozen else {"arch_loss": self._architecture(train, valid, rate)}
        logits = self.model(train[0])
        loss = F.cross_entropy(logits, train[1])
        gradients = torch.autograd.grad(loss, self.optimiser.parameters)
        for weight, gradient in zip(self.optimiser.parameters, gradients, strict=True):
            weight.grad = gradient
        self._last_valid = valid
        return Outcome({**losses, "loss": loss.item()}, {"search": tally(logits, train[1])})

    def _architecture(self, train: bilevel.Batch, valid: bilevel.Batch, rate: float) -> float:
        config = self.config
        if config.order == "first":
            loss, gradients = bilevel.first_order(self.model, valid, config.zero_one)
        else:
            steps = {name: config.momentum * buffer for name, buffer in self.optimiser.momentum.items()}
            loss, gradients = bilevel.second_order(
                self.model, train, valid, config.zero_one, rate, steps, config.weight_decay
            )
        for parameter, gradient in zip(self.model.architecture, gradients, strict=True):
            parameter.grad = gradient
        self.adam.step()
        return loss

    def evaluate(self, figures: Mapping[str, float]) -> dict[str, float]:
        """At the end of an epoch write down what it brought, ask the guards, and open the next stage if it is time."""
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if self.step % self.per_epoch == 0:
            self._close_epoch()
            self.stop = should_stop(self.config, [record for record in self.history if record["stage"] == self.stage])
            self._maybe_next_stage()
        return {}

    def _close_epoch(self) -> None:
        frozen = self.step <= (self._span[0] + self.config.frozen_epochs) * self.per_epoch
        means = {name: total / self.per_epoch for name, total in self.sums.items()}
        record: Epoch = {
            "epoch": self.step // self.per_epoch,
            "stage": self.stage,
            "frozen": frozen,
            "loss": means["loss"],
            "accuracy": means["accuracy"],
            "entropy": self._entropy(),
            "weights": self._mixture(),
        }
        if "arch_loss" in means:
            record["arch_loss"] = means["arch_loss"]
        if self.config.stop_eigenvalue is not None and not frozen:
            record["eigenvalue"] = bilevel.dominant_eigenvalue(self.model, self._last_valid, self.darts.seed)
        self.history.append(record)
        self.sums = {}

    @torch.no_grad()
    def _mixture(self) -> dict[str, list[list[float]]]:
        return {k: (self.model.weights(k) * self.model.shares(k)[:, None]).tolist() for k in KINDS}

    @torch.no_grad()
    def _entropy(self) -> float:
        """Mean over the edges of how undecided they are, in nats."""
        weights = torch.cat([self.model.weights(kind) for kind in KINDS])
        parts = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        return float(-(parts * parts.clamp_min(1e-12).log()).sum(1).mean())

    def _maybe_next_stage(self) -> None:
        if self.step < self._span[1] * self.per_epoch or self.stage + 1 == len(self.config.plan):
            return
        keep = self.config.plan[self.stage + 1].operations
        with torch.no_grad():
            for kind in KINDS:
                best = self.model.weights(kind).topk(keep, dim=1).indices.cpu()
                self.alive[kind] = torch.zeros_like(self.alive[kind]).scatter_(1, best, True)
        self.open(self.stage + 1)

    def conclude(self) -> CellSearchDocument:
        stop = self.stop
        epoch = stop.epoch if stop else self.history[-1]["epoch"]
        weights = self.history[epoch - 1]["weights"]
        free, genotype = derive(weights), derive(weights, self.config.max_skips)
        acted: list[Acted] = [{"guard": stop.guard, "epoch": stop.epoch, "why": stop.why}] if stop else []
        if free != genotype:
            why = f"the normal cell had {free.skips} skip connections, and keeps {genotype.skips}"
            acted.append({"guard": "max_skips", "epoch": epoch, "why": why})
        return {
            "recipe": self.darts.identity("search"),
            "genotype": genotype.to_json(),
            "nodes": derive_nodes(weights, self.config.max_skips),
            "epoch": epoch,
            "acted": acted,
            "candidates": list(CANDIDATES),
            "seconds": round(self.seconds, 1),
            "fingerprint": self.data.fingerprint,
            "history": self.history,
        }

    def tensors(self) -> dict[str, Tensor]:
        tensors = super().tensors()
        for i, parameter in enumerate(self.model.architecture):
            tensors |= {f"adam.{i}.{name}": value for name, value in self.adam.state[parameter].items()}
        return tensors

    def beside(self) -> Header:
        alive = {kind: self.alive[kind].tolist() for kind in KINDS}
        return {
            **super().beside(),
            "stage": self.stage,
            "sums": self.sums,
            "history": self.history,
            "alive": alive,
        }

    def take(self, beside: Header) -> None:
        super().take(beside)
        self.sums, self.history = dict(beside["sums"]), list(beside["history"])
        self.alive = {kind: torch.tensor(beside["alive"][kind], dtype=torch.bool) for kind in KINDS}
        self.open(beside["stage"])
        if self.history:
            last = self.history[-1]["stage"]
            self.stop = should_stop(self.config, [record for record in self.history if record["stage"] == last])
