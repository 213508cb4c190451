"""Training a supernet by its recipe's schedule, resumable to the bit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.space import Arch, PopulationCodec, SearchSpace, load_space
from ofa_deploy.supernet import Supernet, inherit, initialise, load_supernet, save_supernet, synchronised
from ofa_deploy.training.compiling import Forward, compiled
from ofa_deploy.training.data import Data, load_data
from ofa_deploy.training.devices import choose_device, keep_freed_memory
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.evaluation import evaluate_all
from ofa_deploy.training.guards import Guards
from ofa_deploy.training.optimiser import Optimiser, update_average
from ofa_deploy.training.recalibration import specialise, specialise_all
from ofa_deploy.training.sampling import step_archs, steps_per_epoch, train_batches
from ofa_deploy.training.schedules import Phase, plan
from ofa_deploy.training.state import TrainingState, finished, keep_metrics, recipe_json
from ofa_deploy.training.steps import Backward, Outcome, Step, backward_of

Report = Callable[[dict[str, Any]], None]


def train_supernet(
    recipe: TrainRecipe, folder: Path, resume: bool = False, report: Report | None = None, world: World = ALONE
) -> Path:
    """Train a supernet, or finish the training that a kill interrupted.

    On a CPU, with the same number of processes and threads, a resumed run ends with the same bits as one that was never
    interrupted; with another number, with the same weights but for rounding.

    Args:
        folder: receives ``supernet.safetensors`` (the result, batch norm recalibrated for the largest subnet),
            ``metrics.jsonl`` (a line for each step and each evaluation) and, until the end, ``checkpoint.safetensors``.
        resume: continue from the checkpoint if there is one.
        report: called after every step with done and total, its line of the metrics, and valid_largest and
            valid_smallest once they are known.
        world: the processes that train together; its main one alone reads and writes the folder, and reports.

    Returns:
        The path of the supernet; where this recipe's is already there, nothing is trained.

    Raises:
        UsageError: recipe, space and data do not fit, another recipe was trained here, or an unfinished run is here
            and ``resume`` was not asked for.
        OfaDeployError: a guard stops it (``guards.Guards.check``), or the folder cannot be written.
    """
    result, checkpoint = folder / "supernet.safetensors", folder / "checkpoint.safetensors"
    if world.ask_main(lambda: finished(result, recipe)):
        return result
    unfinished = world.ask_main(checkpoint.exists)
    if unfinished and not resume:
        raise UsageError(f"{checkpoint} is an unfinished training: pass --resume to continue it, or remove {folder}")
    with torch_settings(recipe.threads), synchronised(world.group):
        run = _Run(recipe, folder, report, world, fresh=not unfinished)
        if unfinished and world.is_main:
            run.state.restore(checkpoint, recipe)
        run.state.copy_from_main(world)
        run.train(checkpoint)
        supernet, summary = run.conclude()
        if world.is_main:
            save_supernet(result, supernet, summary)
            checkpoint.unlink(missing_ok=True)
    return result


@contextmanager
def torch_settings(threads: int | None) -> Iterator[None]:
    """Deterministic kernels and the recipe's threads, for a while; memory that is freed is kept from now on."""
    filled: Any = torch.utils.deterministic
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode(), filled.fill_uninitialized_memory
    torch.set_num_threads(threads or before[0])
    # use_deterministic_algorithms would load torch's compiler only to tell it, which takes seconds (``compiled`` does)
    torch.set_deterministic_debug_mode("error")
    keep_freed_memory()
    # torch would also fill every new tensor, before a kernel overwrites it: a sixth of the time of a small network
    filled.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        filled.fill_uninitialized_memory = before[2]


class _Run:
    """One training run: recipe, data, phases, supernet, optimiser."""

    def __init__(self, recipe: TrainRecipe, folder: Path, report: Report | None, world: World, fresh: bool) -> None:
        self.recipe, self.report, self.world = recipe, report if world.is_main else None, world
        self.metrics = folder / "metrics.jsonl" if world.is_main else Path(os.devnull)
        if recipe.compile and world.size > 1:
            raise UsageError(
                "compile: true works in a single process only; remove it from the recipe, or start without torchrun"
            )
        self.device = choose_device(recipe.device, world)
        self.space = load_space(recipe.space)
        with world.one_by_one():
            self.data = load_data(recipe.data)
        _check_fit(self.space, self.data)
        self.teacher = self._load_teacher()
        self.per_epoch = steps_per_epoch(recipe, self.data.train)
        self.batch = min(recipe.batch_size, len(self.data.train))
        self.phases = plan(recipe, self.space, self.per_epoch)
        self.steps = self.phases[-1].end
        self.codecs = {phase: PopulationCodec(phase.space) for phase in self.phases}
        self.guards = Guards(self.data.num_classes, watch_from=round((recipe.warmup_epochs + 1) * self.per_epoch))
        self._build(self.recipe.init if fresh else None)

    def _load_teacher(self) -> Supernet | None:
        if self.recipe.teacher is None:
            return None
        teacher = load_supernet(self.recipe.teacher)[0]
        _check_fit(teacher.space, self.data)
        return teacher.requires_grad_(False).to(self.device)

    def _build(self, init: Path | None) -> None:
        supernet = Supernet(self.space)
        initialise(supernet, self.recipe.seed)
        if init is not None:
            inherit(supernet, load_supernet(init)[0])
        self.optimiser = Optimiser(supernet.to(self.device), self.recipe)
        self.state = TrainingState(supernet, self.optimiser.momentum, fingerprint=self.data.fingerprint)
        self.forward: Forward = supernet
        if self.recipe.ema:
            self.state.copy("average", supernet)

    def train(self, checkpoint: Path) -> None:
        """Run all steps from the state's on, with a checkpoint now and then and one at the end."""
        state, recipe = self.state, self.recipe
        if self.world.is_main:
            keep_metrics(self.metrics, state.step)
        state.supernet.train()
        if recipe.compile:
            self.forward = compiled(state.supernet, self._fixed_archs(), recipe)
        started = saved = time.monotonic() - state.seconds
        known: dict[str, float] = {}
        parameters = list(state.supernet.parameters())
        with (
            self.metrics.open("a", encoding="utf-8", buffering=1) as log,
            backward_of(recipe, parameters, self.world) as backward,
        ):
            for images, labels in train_batches(self.data.train, recipe, state.step, self.world):
                if state.step >= self.steps or self._exhausted():
                    break
                before = time.monotonic()
                line = self._step(images.to(self.device), labels.to(self.device), backward)
                line["images_per_second"] = round(self.batch / (time.monotonic() - before), 1)
                log.write(json.dumps(line) + "\n")
                if valid := self._validate():
                    log.write(json.dumps({key: line[key] for key in ("step", "epoch", "phase")} | valid) + "\n")
                    known = valid
                now = time.monotonic()
                state.seconds = now - started
                due = now - saved >= recipe.checkpoint_seconds or state.step == self.steps
                if due and self.world.is_main and not self.guards.suspicious:
                    state.save(checkpoint, recipe)
                    saved = time.monotonic()
                if self.report is not None:
                    self.report({"done": line.pop("step"), "total": self.steps, **line, **known})

    def _step(self, images: Tensor, labels: Tensor, backward: Backward) -> dict[str, Any]:
        step = self.state.step
        phase = next(phase for phase in self.phases if step < phase.end)
        if 0 < step == phase.first:
            self._start(phase)
        rate = phase.rate.at(step)
        self.optimiser.zero_grad()
        figures = self._figures(self._gradients(phase, images, labels, backward))
        self.world.sum_gradients(self.state.supernet.parameters())
        self._update(phase, rate)
        self.state.step += 1
        return {"step": step + 1, "epoch": step // self.per_epoch + 1, "phase": phase.name, "lr": rate, **figures}

    def _gradients(self, phase: Phase, images: Tensor, labels: Tensor, backward: Backward) -> Outcome:
        """This process's share of a step's gradients, added to the parameters'."""
        step = Step(self.recipe, self.data, images, labels, self.batch)
        archs = step_archs(self.codecs[phase], self.recipe, self.state.step, phase.subnets)
        if self.recipe.schedule == "progressive":
            if self.teacher is not None:
                return step.progressive(
                    self.forward, archs, self.teacher, max(self.teacher.space.resolutions), backward
                )
            own = self.state.copies.get("teacher")
            return step.progressive(self.forward, archs, own, archs[0].resolution, backward)
        others = [phase.space.smallest, *archs] if phase.name == "sandwich" else []
        return step.sandwich(self.forward, phase.space.largest, others, backward)

    def _fixed_archs(self) -> list[Arch]:
        """The subnets that come again in every step of some phase, or in all resolutions of one."""
        if self.recipe.schedule == "sandwich":
            return [self.space.largest, self.space.smallest]
        return [replace(self.space.largest, resolution=resolution) for resolution in self.space.resolutions]

    def _figures(self, outcome: Outcome) -> dict[str, float]:
        """A step's figures over all processes, once the guards have looked at them."""
        own = {"": outcome.losses, **outcome.tallies}
        total = self.world.total({(name, key): value for name, sums in own.items() for key, value in sums.items()})
        tallies = {name: {key: total[name, key] for key in sums} for name, sums in own.items()}
        losses = tallies.pop("")
        self.guards.check(self.state.step + 1, losses, tallies, self.recipe.lr)
        first = next(iter(tallies.values()))
        return {**losses, "accuracy": first["hits"] / first["count"]}

    def _update(self, phase: Phase, rate: float) -> None:
        """Let the gradients move the weights, and these their average."""
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.state.supernet.parameters(), self.recipe.clip_norm)
        self.optimiser.step(rate)
        if "average" in self.state.copies:
            done = self.state.step - phase.first
            update_average(self.state.copies["average"], self.state.supernet, self.recipe.ema, done)

    def _start(self, phase: Phase) -> None:
        """Prepare for what a phase opens: channels in order of importance; momentum and average start anew."""
        state = self.state
        own_teacher = self.recipe.schedule == "progressive" and self.teacher is None
        if own_teacher and "teacher" not in state.copies:
            state.copy("teacher", state.evaluated)
        if phase.trained is not None:
            state.supernet.sort_channels(phase.trained)
        for buffer in state.momentum.values():
            buffer.zero_()
        if "average" in state.copies:
            state.copy("average", state.supernet)

    def _validate(self) -> dict[str, float]:
        """Held-out accuracies of the whole space's largest and smallest subnets, where the recipe asks for them now."""
        every, step = self.recipe.evaluate_every * self.per_epoch, self.state.step
        if not every or (step % every and step != self.steps):
            return {}
        valid = {f"valid_{name}": accuracy for name, accuracy in self._accuracies(self.state.evaluated).items()}
        if self.recipe.patience and step > self.phases[-1].first:
            self._remember(valid)
        return valid

    def _accuracies(self, supernet: Supernet) -> dict[str, float]:
        archs = {"largest": self.space.largest, "smallest": self.space.smallest}
        accuracy = self.recipe.accuracy
        subnets = specialise_all(supernet, list(archs.values()), self.data, accuracy.recalibration_images, self.world)
        results = evaluate_all(subnets, list(archs.values()), self.data, accuracy.images, self.world)
        return {name: result.accuracy for name, result in zip(archs, results, strict=True)}

    def _remember(self, valid: dict[str, float]) -> None:
        """Note which accuracies are the best so far, and keep the weights that were best on the whole."""
        state = self.state
        if any(accuracy > state.best.get(name, -1) for name, accuracy in valid.items()):
            state.best["step"] = state.step
        if sum(valid.values()) > state.best.get("sum", -1):
            state.best["sum"] = sum(valid.values())
            state.copy("best", state.evaluated)
        for name, accuracy in valid.items():
            state.best[name] = max(accuracy, state.best.get(name, accuracy))

    def _exhausted(self) -> bool:
        """Whether the last phase has brought nothing better for as long as the recipe allows."""
        patience = self.recipe.patience * self.per_epoch
        return bool(self.state.best) and self.state.step - self.state.best["step"] >= patience

    def conclude(self) -> tuple[Supernet, dict[str, Any]]:
        """The supernet, its own statistics recalibrated for its largest subnet, and the summary for its file."""
        supernet = self.state.copies.get("best", self.state.evaluated).eval()
        images = self.recipe.accuracy.recalibration_images
        largest = specialise(supernet, self.space.largest, self.data, images, self.world)
        supernet.load_state_dict(dict(largest.named_buffers()), strict=False)
        return supernet, {
            "recipe": recipe_json(self.recipe),
            "data": self.data.name,
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "labels": list(self.data.classes),
            "fingerprint": self.data.fingerprint,
            "epochs": self.recipe.epochs,
            "steps": self.state.step,
            "seconds": round(self.state.seconds, 1),
            "train": self.world.ask_main(lambda: last_epoch(self.metrics)),
            "valid": self._accuracies(supernet),
            "valid_images": min(self.recipe.accuracy.images, len(self.data.valid)),
        }


def last_epoch(metrics: Path) -> dict[str, float]:
    """Means of the last epoch's training metrics."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    last = [line for line in lines if "loss" in line and line["epoch"] == lines[-1]["epoch"]]
    return {key: sum(line[key] for line in last) / len(last) for key in ("loss", "distill", "accuracy")}


def _check_fit(space: SearchSpace, data: Data) -> None:
    for field in ("in_channels", "num_classes"):
        needed, given = getattr(data, field), getattr(space, field)
        if needed != given:
            raise UsageError(f"space {space.name}: {field} is {given}, but {data.name} needs {needed}; set it in space")
