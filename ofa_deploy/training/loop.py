"""Training a supernet with the sandwich rule and in-place distillation (US-Nets, Yu & Huang, ICCV 2019, §3; BigNAS, Yu
et al., ECCV 2020, §3.1), resumable to the bit."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.space import Arch, PopulationCodec, SearchSpace, load_space
from ofa_deploy.supernet import Supernet, initialise, save_supernet, synchronised
from ofa_deploy.training.data import Data, batches, load_data
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.evaluation import BATCH_SIZE, evaluate, specialise
from ofa_deploy.training.images import prepare
from ofa_deploy.training.sampling import step_archs, steps_per_epoch, train_batches
from ofa_deploy.training.state import TrainingState, finished, keep_metrics, recipe_json

Report = Callable[[dict[str, Any]], None]


def train_supernet(
    recipe: TrainRecipe, folder: Path, resume: bool = False, report: Report | None = None, world: World = ALONE
) -> Path:
    """Train a supernet, or finish the training that a kill interrupted.

    On a CPU, with the same number of processes and threads, a resumed run ends with the same bits as one that was never
    interrupted; with another number, with the same weights but for rounding.

    Args:
        folder: receives ``supernet.safetensors`` (the result, batch norm recalibrated for the largest subnet),
            ``metrics.jsonl`` (a line a step) and, until the end, ``checkpoint.safetensors``.
        resume: continue from the checkpoint if there is one.
        report: called after every step with epoch, epochs, step, steps, loss and images_per_second.
        world: the processes that train together; its main one alone reads and writes the folder, and reports.

    Returns:
        The path of the supernet; where this recipe's is already there, nothing is trained.

    Raises:
        UsageError: recipe, space and data do not fit, another recipe was trained here, or an unfinished run is here
            and ``resume`` was not asked for.
        OfaDeployError: the loss is no longer finite, or the folder cannot be written.
    """
    result, checkpoint = folder / "supernet.safetensors", folder / "checkpoint.safetensors"
    if world.ask_main(lambda: finished(result, recipe)):
        return result
    unfinished = world.ask_main(checkpoint.exists)
    if unfinished and not resume:
        raise UsageError(f"{checkpoint} is an unfinished training: pass --resume to continue it, or remove {folder}")
    with _torch_settings(recipe.threads), synchronised(world.group):
        run = _Run(recipe, folder, report, world)
        if unfinished and world.is_main:
            run.state.restore(checkpoint, recipe)
        run.state.copy_from_main(world)
        run.train(checkpoint)
        summary = run.conclude()
        if world.is_main:
            save_supernet(result, run.state.supernet, summary)
            checkpoint.unlink(missing_ok=True)
    return result


@contextmanager
def _torch_settings(threads: int | None) -> Iterator[None]:
    """Deterministic kernels and the recipe's threads, for a while."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads or before[0])
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


class _Run:
    """One training run: recipe, data, supernet, optimiser."""

    def __init__(self, recipe: TrainRecipe, folder: Path, report: Report | None, world: World) -> None:
        self.recipe, self.report, self.world = recipe, report if world.is_main else None, world
        self.metrics = folder / "metrics.jsonl" if world.is_main else Path(os.devnull)
        space = load_space(recipe.space)
        with world.one_by_one():
            self.data = load_data(recipe.data)
        _check_fit(space, self.data)
        self.per_epoch = steps_per_epoch(recipe, self.data.train)
        self.steps = recipe.epochs * self.per_epoch
        self.batch = min(recipe.batch_size, len(self.data.train))  # type: ignore[arg-type]
        supernet = Supernet(space)
        initialise(supernet, recipe.seed)
        self.codec = PopulationCodec(space)
        self.optimizer = _optimizer(supernet, recipe)
        buffers = {name: self.optimizer.state[p]["momentum_buffer"] for name, p in supernet.named_parameters()}
        self.state = TrainingState(supernet, buffers)

    def train(self, checkpoint: Path) -> None:
        """Run all steps from the state's on, with a checkpoint now and then and one at the end."""
        state, recipe = self.state, self.recipe
        if self.world.is_main:
            keep_metrics(self.metrics, state.step)
        state.supernet.train()
        started = saved = time.monotonic() - state.seconds
        with self.metrics.open("a", encoding="utf-8", buffering=1) as log:
            for images, labels in train_batches(self.data.train, recipe, state.step, self.world):
                if state.step >= self.steps:
                    break
                before = time.monotonic()
                line = self._step(images, labels)
                now = time.monotonic()
                state.seconds = now - started
                line["images_per_second"] = round(self.batch / (now - before), 1)
                log.write(json.dumps(line) + "\n")
                due = now - saved >= recipe.checkpoint_seconds or state.step == self.steps
                if due and self.world.is_main:
                    state.save(checkpoint, recipe)
                    saved = time.monotonic()
                if self.report is not None:
                    self.report({**line, "epochs": recipe.epochs, "steps": self.steps})

    def _step(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        step = self.state.step
        if 0 < step == round(self.recipe.largest_epochs * self.per_epoch):
            self._start_shrinking()
        rate = learning_rate(self.recipe, step, self.steps, self.per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=False)
        losses = self.world.total(self._sandwich(images, labels))
        self.world.sum_gradients(self.state.supernet.parameters())
        if not all(math.isfinite(value) for value in losses.values()):
            raise OfaDeployError(
                f"the loss is not finite at step {step + 1}: lower lr in the recipe (now {self.recipe.lr}); "
                "the last checkpoint is kept"
            )
        self.optimizer.step()
        self.state.step += 1
        return {"step": step + 1, "epoch": step // self.per_epoch + 1, "lr": rate, **losses}

    def _sandwich(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Gradients of the largest subnet on the labels, and of the others on the largest one's soft outputs.

        Everything is this process's share of the mean over the whole batch.
        """
        share = len(labels) / self.batch
        largest = self.codec.space.largest
        logits = self._logits(images, largest)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing) * share
        loss.backward()
        teacher = logits.detach().log_softmax(1)
        distill = [self._distil(images, arch, teacher, share) for arch in self._students()]
        return {
            "loss": loss.item(),
            "distill": sum(distill) / max(len(distill), 1),
            "accuracy": int((teacher.argmax(1) == labels).sum()) / self.batch,
        }

    def _students(self) -> list[Arch]:
        if self.state.step < self.recipe.largest_epochs * self.per_epoch:
            return []
        return [self.codec.space.smallest, *step_archs(self.codec, self.recipe, self.state.step)]

    def _distil(self, images: Tensor, arch: Arch, teacher: Tensor, share: float) -> float:
        student = self._logits(images, arch).log_softmax(1)
        loss = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * share
        loss.backward()
        return loss.item()

    def _logits(self, images: Tensor, arch: Arch) -> Tensor:
        return self.state.supernet(prepare(images, arch.resolution, self.data.mean, self.data.std), arch)

    def _start_shrinking(self) -> None:
        """The largest subnet has been trained alone: let its most important channels lead, and momentum start anew."""
        self.state.supernet.sort_channels()
        for buffer in self.state.momentum.values():
            buffer.zero_()

    def conclude(self) -> dict[str, Any]:
        """Recalibrate the supernet's own statistics, for its largest subnet; the summary for the file's header."""
        supernet, data, space = self.state.supernet.eval(), self.data, self.codec.space
        largest = specialise(supernet, space.largest, data, self.recipe.accuracy.recalibration_images, self.world)
        supernet.load_state_dict(dict(largest.named_buffers()), strict=False)
        held_out = batches(data.valid, space.largest.resolution, BATCH_SIZE, data.mean, data.std, world=self.world)
        return {
            "recipe": recipe_json(self.recipe),
            "data": data.name,
            "mean": list(data.mean),
            "std": list(data.std),
            "epochs": self.recipe.epochs,
            "steps": self.steps,
            "seconds": round(self.state.seconds, 1),
            "train": self.world.ask_main(lambda: last_epoch(self.metrics, self.recipe.epochs)),
            "valid": {"largest": evaluate(largest, held_out, self.world).accuracy},
        }


def learning_rate(recipe: TrainRecipe, step: int, steps: int, per_epoch: int) -> float:
    """Linear warm-up, then a cosine to zero (SGDR, Loshchilov & Hutter, ICLR 2017, §3, without restarts)."""
    warm = min(recipe.warmup_epochs * per_epoch, steps - 1)
    if step < warm:
        return recipe.lr * (step + 1) / (warm + 1)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def last_epoch(metrics: Path, epoch: int) -> dict[str, float]:
    """Means of the last epoch's training metrics."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if line["epoch"] == epoch]
    return {key: sum(line[key] for line in last) / len(last) for key in ("loss", "distill", "accuracy")}


def _optimizer(supernet: Supernet, recipe: TrainRecipe) -> torch.optim.SGD:
    """SGD with Nesterov momentum; decay on convolution and linear weights only.

    Gradients and buffers exist from the start: a parameter that no subnet of a step uses must not make that step, or a
    resume after it, any different.
    """
    decayed: list[Tensor] = []
    free: list[Tensor] = []
    for name, parameter in supernet.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        (decayed if name.endswith("weight") and parameter.ndim > 1 else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    for parameter in supernet.parameters():
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _check_fit(space: SearchSpace, data: Data) -> None:
    for field in ("in_channels", "num_classes"):
        needed, given = getattr(data, field), getattr(space, field)
        if needed != given:
            raise UsageError(f"space {space.name}: {field} is {given}, but {data.name} needs {needed}; set it in space")
