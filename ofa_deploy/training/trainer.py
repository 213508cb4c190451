"""The engine of every training: steps, guards, a clock, metrics, checkpoints, and a resume to the bit.

What is trained, and how a step finds its gradients, is a ``Loop``'s business; the engine knows neither.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

import torch
from torch import Tensor, nn

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import Numbers, Progress
from ofa_deploy.supernet import Header, read_tensors, write_tensors
from ofa_deploy.training.data import Data, check_unchanged
from ofa_deploy.training.devices import choose_device, torch_settings
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.guards import Guards
from ofa_deploy.training.metrics_log import keep_metrics
from ofa_deploy.training.optimiser import Optimiser
from ofa_deploy.training.same_recipe import check_same
from ofa_deploy.training.sampling import steps_per_epoch, train_batches
from ofa_deploy.training.schedules import Rate
from ofa_deploy.training.sources import Images

Batch = tuple[Tensor, ...]


@dataclass(frozen=True)
class Outcome:
    """This process's shares of a step's figures, which add up to those of the whole batch.

    Attributes:
        losses: means over the batch, ``loss`` on the labels among them; of several networks', the mean.
        tallies: of the predictions to watch (``guards.tally``), by name; the first one's accuracy is told.
    """

    losses: dict[str, float]
    tallies: dict[str, dict[str, float]]


class Loop(ABC):
    """What is trained, and what the next step depends on. A loop is a step, and what it evaluates and keeps.

    Attributes:
        model, optimiser: set by the loop, and sometimes anew between two steps.
        total: steps of a whole run.
        per_epoch: steps of an epoch.
        step: steps done.
        seconds: spent so far, over all runs.
        phase: what part of the training the last step belonged to, for the metrics; empty where there are no parts.
    """

    model: nn.Module
    optimiser: Optimiser

    def __init__(self, recipe: TrainRecipe, data: Data, images: Images, world: World = ALONE) -> None:
        """Prepare.

        Args:
            recipe: of its steps; what it says of a space means nothing here.
            images: of the data, those that a step sees.
        """
        self.recipe, self.data, self.images, self.world = recipe, data, images, world
        self.device = choose_device(recipe.device, world)
        self.per_epoch = steps_per_epoch(recipe, images)
        self.total = recipe.epochs * self.per_epoch
        self.batch_size = min(recipe.batch_size, len(images))
        warm = recipe.warmup_epochs * self.per_epoch
        self._rate = Rate(0, self.total, warm, recipe.lr)
        self.guards = Guards(data.num_classes, watch_from=round((recipe.warmup_epochs + 1) * self.per_epoch))
        self.step, self.seconds, self.phase = 0, 0.0, ""

    @property
    def over(self) -> bool:
        """Whether it ends before all steps are done."""
        return False

    def running(self) -> AbstractContextManager[object]:
        """Within: the steps."""
        self.model.train()
        return nullcontext()

    def batches(self) -> Iterator[Batch]:
        """What every step sees, from the next one on, without end."""
        return train_batches(self.images, self.recipe, self.step, self.world)

    def rate(self) -> float:
        """The learning rate of the next step."""
        return self._rate.at(self.step)

    @abstractmethod
    def gradients(self, batch: Batch, rate: float) -> Outcome:
        """Add this process's share of the gradients to the parameters', which have none yet."""

    def update(self, rate: float) -> None:
        """Let the gradients move the weights."""
        self.optimiser.step(rate)

    def evaluate(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Look at what a step left, and say what is new.

        Args:
            figures: of the step: its losses and ``accuracy``.
        """
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds, by name."""
        momentum = {f"momentum.{name}": value for name, value in self.optimiser.momentum.items()}
        return momentum | {f"model.{name}": value for name, value in self.model.state_dict().items()}

    def beside(self) -> Header:
        """What a checkpoint holds beside tensors, as JSON."""
        return {"step": self.step, "seconds": self.seconds}

    def take(self, beside: Header) -> None:
        """Take over what ``beside`` said, and make place for the tensors of then."""
        self.step, self.seconds = int(beside["step"]), float(beside["seconds"])


LoopT = TypeVar("LoopT", bound=Loop)


@dataclass(frozen=True)
class Checkpoint:
    """Where a run that is not finished yet is kept.

    Attributes:
        path: a safetensors file, written atomically.
        kind: of the file.
        identity: what must be equal for a resume.
        completed: the identity in a header, in which what later versions added is at its defaults.
        metrics: a file that gets a line for each step and each evaluation.
    """

    path: Path
    kind: str
    identity: Header
    completed: Callable[[Header], Header] = lambda header: header
    metrics: Path | None = None


@contextmanager
def trained(
    make: Callable[[bool], LoopT],
    recipe: TrainRecipe,
    checkpoint: Checkpoint,
    resume: bool = False,
    report: Progress | None = None,
    world: World = ALONE,
) -> Iterator[LoopT]:
    """Run all steps of a loop, or those that a kill left; within, the loop has done them. The checkpoint goes last.

    On a CPU, with the same number of processes and threads, a resumed run ends with the same bits as one that was never
    interrupted; with another number, with the same weights but for rounding.

    Args:
        make: makes the loop; told whether it starts from the beginning.
        recipe: threads, and seconds between checkpoints.
        resume: continue from the checkpoint if there is one.
        report: called after every step with done and total, its line of the metrics, and the last evaluation.
        world: the processes that train together; its main one alone reads and writes files, and reports.

    Raises:
        UsageError: an unfinished run is here and ``resume`` was not asked for, or the checkpoint is damaged, or belongs
            to other images or another recipe.
        OfaDeployError: a guard stops it (``guards.Guards.check``), or a file cannot be written.
    """
    path = checkpoint.path
    unfinished = world.ask_main(path.exists)
    if unfinished and not resume:
        raise UsageError(f"{path} is an unfinished training: pass --resume to continue it, or remove {path.parent}")
    with torch_settings(recipe.threads):
        loop = make(not unfinished)
        run = _Run(loop, checkpoint, report if world.is_main else None, world)
        if unfinished and world.is_main:
            run.restore()
        run.copy_from_main()
        run.all_steps()
        yield loop
    if world.is_main:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Run:
    loop: Loop
    checkpoint: Checkpoint
    report: Progress | None
    world: World

    def all_steps(self) -> None:
        """Those that are left, with a checkpoint now and then and one at the end."""
        loop, known = self.loop, dict[str, float]()
        started = saved = time.monotonic() - loop.seconds
        with ExitStack() as stack:
            log = self._log(stack)
            stack.enter_context(loop.running())
            batches = loop.batches()
            while not self._ended():
                batch = tuple(tensor.to(loop.device) for tensor in next(batches))
                before, rate = time.monotonic(), loop.rate()
                figures = self._step(batch, rate)
                place: Numbers = {"step": loop.step, "epoch": (loop.step - 1) // loop.per_epoch + 1}
                place |= {"phase": loop.phase} if loop.phase else {}
                line: Numbers = {**place, "lr": rate, **figures}
                line["images_per_second"] = round(loop.batch_size / (time.monotonic() - before), 1)
                _write(log, line)
                if found := loop.evaluate(figures):
                    _write(log, {**place, **found})
                    known = found
                now = time.monotonic()
                loop.seconds = now - started
                due = now - saved >= loop.recipe.checkpoint_seconds or self._ended()
                if due and self.world.is_main and not loop.guards.suspicious:
                    self._save()
                    saved = time.monotonic()
                if self.report is not None:
                    self.report({"done": line.pop("step"), "total": loop.total, **line, **known})

    def _ended(self) -> bool:
        return self.loop.step >= self.loop.total or self.loop.over

    def _log(self, stack: ExitStack) -> TextIO | None:
        path = self.checkpoint.metrics
        if path is None or not self.world.is_main:
            return None
        keep_metrics(path, self.loop.step)
        return stack.enter_context(path.open("a", encoding="utf-8", buffering=1))

    def _step(self, batch: Batch, rate: float) -> dict[str, float]:
        """A step's figures over all processes; the weights move once the guards have looked at them."""
        loop = self.loop
        loop.optimiser.zero_grad()
        outcome = self._over_all(loop.gradients(batch, rate))
        loop.guards.check(loop.step + 1, outcome.losses, outcome.tallies, loop.recipe.lr)
        self.world.sum_gradients(loop.optimiser.parameters)
        loop.update(rate)
        loop.step += 1
        first = next(iter(outcome.tallies.values()))
        return {**outcome.losses, "accuracy": first["hits"] / first["count"]}

    def _over_all(self, own: Outcome) -> Outcome:
        parts = {"": own.losses, **own.tallies}
        total = self.world.total({(name, key): value for name, sums in parts.items() for key, value in sums.items()})
        losses, *tallies = ({key: total[name, key] for key in sums} for name, sums in parts.items())
        return Outcome(losses, dict(zip(own.tallies, tallies, strict=True)))

    def _save(self) -> None:
        """Write all that the next step depends on."""
        kept = self.checkpoint
        header = {"kind": kept.kind, **kept.identity, "fingerprint": self.loop.data.fingerprint, **self.loop.beside()}
        write_tensors(kept.path, self.loop.tensors(), header)

    def restore(self) -> None:
        """Go on where a checkpoint was written."""
        kept, data = self.checkpoint, self.loop.data
        header, tensors = read_tensors(kept.path, kept.kind)
        check_same(kept.path, kept.completed(header), kept.identity)
        check_unchanged(data.name, data.fingerprint, header.get("fingerprint"), f"{kept.path} was written")
        self.loop.take(header)
        targets = self.loop.tensors()
        if {name: value.shape for name, value in targets.items()} != {name: v.shape for name, v in tensors.items()}:
            raise UsageError(f"{kept.path} does not hold the weights of its recipe; remove it and train again")
        with torch.no_grad():
            for name, value in targets.items():
                value.copy_(tensors[name])

    def copy_from_main(self) -> None:
        """Take over the main process's state, which alone needs the checkpoint's file."""
        if self.world.size > 1:
            self.loop.take(self.world.ask_main(self.loop.beside))
            self.world.copy_from_main(self.loop.tensors().values())


def _write(log: TextIO | None, line: Numbers) -> None:
    if log is not None:
        log.write(json.dumps(line) + "\n")
