"""The search for cells: weights and architecture in turns, resumable (DARTS, Liu et al., ICLR 2019, algorithm 1)."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.differentiable.bilevel import Batch, dominant_eigenvalue, first_order, second_order
from ofa_deploy.differentiable.collapse import Stop, should_stop
from ofa_deploy.differentiable.derivation import derive, derive_nodes
from ofa_deploy.differentiable.mixing import CANDIDATES, KINDS, SearchNetwork, Settings, edge_count, initialise
from ofa_deploy.differentiable.recipe import DartsRecipe
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.supernet import read_tensors, write_tensors
from ofa_deploy.training import ALONE, load_data, prepare
from ofa_deploy.training.data import check_unchanged
from ofa_deploy.training.devices import choose_device
from ofa_deploy.training.guards import Guards, tally
from ofa_deploy.training.loop import torch_settings
from ofa_deploy.training.sampling import steps_per_epoch, train_batches

Report = Callable[[dict[str, Any]], None]
RESULT, CHECKPOINT = "search.json", "checkpoint.safetensors"
KIND = "cell search checkpoint"


def search_cells(
    recipe: DartsRecipe, folder: Path, resume: bool = False, report: Report | None = None
) -> dict[str, Any]:
    """Search for cells, or finish the search that a kill interrupted: to the same bits on a CPU.

    Half of the training images teach the weights, the other half the architecture.

    Args:
        folder: receives ``search.json`` (the result) and, until the end, ``checkpoint.safetensors``.
        report: called after every step with done, total and the step's figures.

    Returns:
        ``recipe``, ``genotype``, ``epoch`` (the one it was derived from),
        ``nodes`` (the genotype in the order of the weights),
        ``acted`` (what guards did), ``candidates``, and ``history``: for every epoch its figures and all weights.

    Raises:
        UsageError: the recipe does not fit the data, another recipe's search is here, or an unfinished one is and
            ``resume`` was not asked for.
        OfaDeployError: the loss is not finite or diverges, or the folder cannot be written.
    """
    result, checkpoint = folder / RESULT, folder / CHECKPOINT
    if result.exists():
        found = read_search(result)
        check_same(result, found["recipe"], recipe.identity("search"))
        return found
    if checkpoint.exists() and not resume:
        raise UsageError(f"{checkpoint} is an unfinished search: pass --resume to continue it, or remove {folder}")
    with torch_settings(recipe.threads):
        run = _Search(recipe, checkpoint, report)
        if checkpoint.exists():
            run.restore()
        found = run.run()
    write_atomic(result, (json.dumps(found, indent=1) + "\n").encode())
    checkpoint.unlink(missing_ok=True)
    return found


def read_search(path: Path) -> dict[str, Any]:
    """A finished search's result.

    Raises:
        UsageError: the file is missing, or no search's.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["candidates"] != list(CANDIDATES) or not found["history"]:
            raise ValueError("no history")
    except OSError as error:
        raise UsageError(f"cannot read the search {path}: {error.strerror}; run: ofa-deploy darts search") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no whole result of a search; run: ofa-deploy darts search") from error
    return found


def check_same(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse what another recipe left.

    Raises:
        UsageError: names what differs.
    """
    for key in sorted(now.keys() | before.keys()):
        if now.get(key) != before.get(key):
            raise UsageError(f"{path} comes from another recipe: {key} differs; restore it, or choose another name")


class _Search:
    """One search: its data, the stage's network, both optimisers, and what happened so far."""

    def __init__(self, recipe: DartsRecipe, checkpoint: Path, report: Report | None) -> None:
        self.recipe, self.config, self.checkpoint, self.report = recipe, recipe.search, checkpoint, report
        self.data = load_data(recipe.data)
        self.device = choose_device(recipe.device, ALONE)
        half = len(self.data.train) // 2
        if not half:
            raise UsageError(f"{self.data.name}: a search needs two training images at least")
        self.train = self.data.train.take(np.arange(half))
        self.valid = self.data.train.take(np.arange(half, 2 * half))
        epochs = sum(stage.epochs for stage in self.config.plan)
        self.steps = recipe.steps(self.config, epochs), recipe.steps(self.config, epochs, seed=1)
        self.per_epoch = steps_per_epoch(self.steps[0], self.train)
        self.total = epochs * self.per_epoch
        self.guards = Guards(self.data.num_classes, watch_from=self.per_epoch)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        edges = edge_count(recipe.nodes)
        self.alive = {kind: torch.ones(edges, len(CANDIDATES), dtype=torch.bool) for kind in KINDS}
        self.open(0)

    def open(self, stage: int) -> None:
        """A stage's network, with fresh weights."""
        config, recipe = self.config, self.recipe
        self.stage = stage
        settings = Settings(
            self.data.in_channels,
            self.data.num_classes,
            recipe.resolution,
            config.channels,
            config.plan[stage].cells,
            recipe.nodes,
            self.alive,
            config.partial,
            config.auxiliary_skip,
            config.relaxation == "sigmoid",
        )
        self.network = SearchNetwork(settings).to(self.device)
        initialise(self.network, recipe.seed + stage)
        self.weights = self.network.learned
        self.sgd = torch.optim.SGD(
            self.weights.values(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        for weight in self.weights.values():
            self.sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        self.adam = torch.optim.Adam(
            self.network.architecture, lr=config.arch_lr, betas=(0.5, 0.999), weight_decay=config.arch_weight_decay
        )
        for parameter in self.network.architecture:
            zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.adam.state[parameter].update({"step": torch.zeros(()), **zeros})

    def run(self) -> dict[str, Any]:
        """All stages; what ``search_cells`` returns."""
        stop: Stop | None = None
        started = saved = time.monotonic() - self.seconds
        batches = zip(
            train_batches(self.train, self.steps[0], self.step),
            train_batches(self.valid, self.steps[1], self.step),
            strict=False,
        )
        self.network.train()
        while self.step < self.total and stop is None:
            train, valid = (self._prepared(batch) for batch in next(batches))
            line = self._step(train, valid)
            if self.step % self.per_epoch == 0:
                self._close_epoch(valid)
                stop = should_stop(self.config, self._of_this_stage())
                self._maybe_next_stage()
            now = time.monotonic()
            self.seconds = now - started
            if now - saved >= self.recipe.checkpoint_seconds and not self.guards.suspicious and stop is None:
                self.save()
                saved = now
            if self.report is not None:
                self.report({"done": self.step, "total": self.total, **line})
        return self._conclude(stop)

    def _prepared(self, batch: tuple[Tensor, Tensor]) -> Batch:
        images = prepare(batch[0].to(self.device), self.recipe.resolution, self.data.mean, self.data.std)
        return images, batch[1].to(self.device)

    @property
    def _span(self) -> tuple[int, int]:
        """First epoch of the stage, and the first after it."""
        first = sum(stage.epochs for stage in self.config.plan[: self.stage])
        return first, first + self.config.plan[self.stage].epochs

    def _progress(self) -> float:
        """Share of the stage that is done."""
        first, end = (epoch * self.per_epoch for epoch in self._span)
        return (self.step - first) / (end - first)

    @property
    def _frozen(self) -> bool:
        return self.step < (self._span[0] + self.config.frozen_epochs) * self.per_epoch

    def _step(self, train: Batch, valid: Batch) -> dict[str, float]:
        config, done = self.config, self._progress()
        rate = config.lr_min + (config.lr - config.lr_min) * 0.5 * (1 + math.cos(math.pi * done))
        self.network.extra = 1.0 - done if config.auxiliary_skip else 0.0
        self.sgd.param_groups[0]["lr"] = rate
        figures = {} if self._frozen else {"arch_loss": self._architecture(train, valid, rate)}
        logits = self.network(train[0])
        loss = F.cross_entropy(logits, train[1])
        gradients = torch.autograd.grad(loss, list(self.weights.values()))
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            weight.grad = gradient
        figures["loss"] = loss.item()
        hits = tally(logits, train[1])
        self.guards.check(self.step + 1, figures, {"search": hits}, config.lr)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), config.clip_norm)
        self.sgd.step()
        figures["accuracy"] = hits["hits"] / hits["count"]
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.step += 1
        return figures

    def _architecture(self, train: Batch, valid: Batch, rate: float) -> float:
        config = self.config
        if config.order == "first":
            loss, gradients = first_order(self.network, valid, config.zero_one)
        else:
            buffers = {n: config.momentum * self.sgd.state[w]["momentum_buffer"] for n, w in self.weights.items()}
            loss, gradients = second_order(
                self.network, train, valid, config.zero_one, rate, buffers, config.weight_decay
            )
        for parameter, gradient in zip(self.network.architecture, gradients, strict=True):
            parameter.grad = gradient
        self.adam.step()
        return loss

    def _close_epoch(self, valid: Batch) -> None:
        """Write down what an epoch brought."""
        frozen = self.step <= (self._span[0] + self.config.frozen_epochs) * self.per_epoch
        record: dict[str, Any] = {
            "epoch": self.step // self.per_epoch,
            "stage": self.stage,
            "frozen": frozen,
            **{name: total / self.per_epoch for name, total in self.sums.items()},
            "entropy": self._entropy(),
            "weights": self._mixture(),
        }
        if self.config.stop_eigenvalue is not None and not frozen:
            record["eigenvalue"] = dominant_eigenvalue(self.network, valid, self.recipe.seed)
        self.history.append(record)
        self.sums = {}

    @torch.no_grad()
    def _mixture(self) -> dict[str, list[list[float]]]:
        return {k: (self.network.weights(k) * self.network.shares(k)[:, None]).tolist() for k in KINDS}

    @torch.no_grad()
    def _entropy(self) -> float:
        """Mean over the edges of how undecided they are, in nats."""
        weights = torch.cat([self.network.weights(kind) for kind in KINDS])
        parts = weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
        return float(-(parts * parts.clamp_min(1e-12).log()).sum(1).mean())

    def _of_this_stage(self) -> list[dict[str, Any]]:
        return [record for record in self.history if record["stage"] == self.stage]

    def _maybe_next_stage(self) -> None:
        if self.step < self._span[1] * self.per_epoch or self.stage + 1 == len(self.config.plan):
            return
        keep = self.config.plan[self.stage + 1].operations
        with torch.no_grad():
            for kind in KINDS:
                best = self.network.weights(kind).topk(keep, dim=1).indices.cpu()
                self.alive[kind] = torch.zeros_like(self.alive[kind]).scatter_(1, best, True)
        self.open(self.stage + 1)
        self.network.train()

    def _conclude(self, stop: Stop | None) -> dict[str, Any]:
        epoch = stop.epoch if stop else self.history[-1]["epoch"]
        weights = self.history[epoch - 1]["weights"]
        free, genotype = derive(weights), derive(weights, self.config.max_skips)
        acted = [{"guard": stop.guard, "epoch": stop.epoch, "why": stop.why}] if stop else []
        if free != genotype:
            why = f"the normal cell had {free.skips} skip connections, and keeps {genotype.skips}"
            acted.append({"guard": "max_skips", "epoch": epoch, "why": why})
        return {
            "recipe": self.recipe.identity("search"),
            "genotype": genotype.to_json(),
            "nodes": derive_nodes(weights, self.config.max_skips),
            "epoch": epoch,
            "acted": acted,
            "candidates": list(CANDIDATES),
            "seconds": round(self.seconds, 1),
            "fingerprint": self.data.fingerprint,
            "history": self.history,
        }

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.network.state_dict().items():
            yield f"model.{name}", value
        for name, weight in self.weights.items():
            yield f"momentum.{name}", self.sgd.state[weight]["momentum_buffer"]
        for i, parameter in enumerate(self.network.architecture):
            for name, value in self.adam.state[parameter].items():
                yield f"adam.{i}.{name}", value

    def save(self) -> None:
        """Write all that the next step depends on."""
        header: dict[str, Any] = {
            "kind": KIND,
            "recipe": self.recipe.identity("search"),
            "fingerprint": self.data.fingerprint,
        }
        header |= {"step": self.step, "stage": self.stage, "seconds": self.seconds, "sums": self.sums}
        alive = {kind: self.alive[kind].tolist() for kind in KINDS}
        tensors = {name: value.detach().clone() for name, value in self._tensors()}
        write_tensors(self.checkpoint, tensors, {**header, "history": self.history, "alive": alive})

    def restore(self) -> None:
        """Go on where ``save`` was.

        Raises:
            UsageError: the checkpoint is another recipe's, or damaged.
        """
        header, tensors = read_tensors(self.checkpoint, KIND)
        check_same(self.checkpoint, header["recipe"], self.recipe.identity("search"))
        now, then = self.data.fingerprint, header["fingerprint"]
        check_unchanged(self.data.name, now, then, f"{self.checkpoint} was written")
        self.alive = {kind: torch.tensor(header["alive"][kind], dtype=torch.bool) for kind in KINDS}
        self.open(header["stage"])
        for name, value in self._tensors():
            if name not in tensors or tensors[name].shape != value.shape:
                raise OfaDeployError(f"{self.checkpoint} lacks {name}; remove it and search anew")
            with torch.no_grad():
                value.copy_(tensors[name])
        self.step, self.seconds = int(header["step"]), float(header["seconds"])
        self.sums, self.history = dict(header["sums"]), list(header["history"])
