"""Training a supernet by its recipe's schedule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ofa_deploy.config import TrainRecipe
from ofa_deploy.errors import UsageError
from ofa_deploy.notices import Progress
from ofa_deploy.space import Arch, PopulationCodec, SearchSpace, load_space
from ofa_deploy.supernet import (
    Header,
    Supernet,
    inherit,
    initialise,
    load_supernet,
    read_summary,
    save_supernet,
    synchronised,
)
from ofa_deploy.training.compiling import Forward, compiled
from ofa_deploy.training.data import Data, load_data
from ofa_deploy.training.distributed import ALONE, World
from ofa_deploy.training.evaluation import evaluate_all
from ofa_deploy.training.metrics_log import last_epoch
from ofa_deploy.training.optimiser import Optimiser, update_average
from ofa_deploy.training.recalibration import specialise, specialise_all
from ofa_deploy.training.same_recipe import check_same, completed, identity, recipe_json
from ofa_deploy.training.sampling import step_archs
from ofa_deploy.training.schedules import Phase, plan
from ofa_deploy.training.steps import Backward, Step, backward_of
from ofa_deploy.training.trainer import Batch, Checkpoint, Loop, Outcome, trained

KIND = "training checkpoint"


def train_supernet(
    recipe: TrainRecipe, folder: Path, resume: bool = False, report: Progress | None = None, world: World = ALONE
) -> Path:
    """Train a supernet, or finish the training that a kill interrupted (``trainer.trained``).

    Args:
        folder: receives ``supernet.safetensors`` (the result, batch norm recalibrated for the largest subnet),
            ``metrics.jsonl`` and, until the end, ``checkpoint.safetensors``.
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
    result, metrics = folder / "supernet.safetensors", folder / "metrics.jsonl"
    if world.ask_main(lambda: finished(result, recipe)):
        return result
    checkpoint = Checkpoint(folder / "checkpoint.safetensors", KIND, identity(recipe), completed, metrics)
    with (
        synchronised(world.group),
        trained(lambda fresh: _SupernetLoop(recipe, world, fresh), recipe, checkpoint, resume, report, world) as run,
    ):
        supernet, summary = run.conclude(metrics)
        if world.is_main:
            save_supernet(result, supernet, summary)
    return result


def finished(path: Path, recipe: TrainRecipe) -> bool:
    """Whether this recipe's supernet is already there.

    Raises:
        UsageError: another recipe's is.
    """
    if not path.exists():
        return False
    space, summary = read_summary(path)
    check_same(path, completed({"recipe": summary.get("recipe", {}), "space": space.to_json()}), identity(recipe))
    return True


class _SupernetLoop(Loop):
    """A supernet, by the phases of its recipe's schedule.

    Attributes:
        copies: other weights of the same space, none of them trained: ``average`` over the steps, frozen ``teacher``,
            ``best`` by the evaluations so far.
        best: what the best evaluations were, and when.
    """

    model: Supernet

    def __init__(self, recipe: TrainRecipe, world: World, fresh: bool) -> None:
        if recipe.compile and world.size > 1:
            raise UsageError(
                "compile: true works in a single process only; remove it from the recipe, or start without torchrun"
            )
        self.space = load_space(recipe.space)
        with world.one_by_one():
            data = load_data(recipe.data)
        _check_fit(self.space, data)
        super().__init__(recipe, data, data.train, world)
        self.teacher = self._load_teacher()
        self.phases = plan(recipe, self.space, self.per_epoch)
        self.codecs = {phase: PopulationCodec(phase.space) for phase in self.phases}
        self.copies: dict[str, Supernet] = {}
        self.best: dict[str, float] = {}
        self._build(recipe.init if fresh else None)

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
        self.model = supernet.to(self.device)
        named = dict(self.model.named_parameters())
        self.optimiser = Optimiser(named, self.recipe, nesterov=True, all_decay=False, all_move=True)
        self.forward: Forward = supernet
        if self.recipe.ema:
            self._copy("average", supernet)

    @property
    def evaluated(self) -> Supernet:
        """The weights that count: the average over the steps, where there is one."""
        return self.copies.get("average", self.model)

    def _copy(self, name: str, source: Supernet) -> None:
        self.copies[name] = deepcopy(source).requires_grad_(False)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.model.train()
        if self.recipe.compile:
            self.forward = compiled(self.model, self._fixed_archs(), self.recipe)
        with backward_of(self.recipe, self.optimiser.parameters, self.world) as backward:
            self.backward: Backward = backward
            yield

    @property
    def _phase(self) -> Phase:
        """That of the next step."""
        return next(phase for phase in self.phases if self.step < phase.end)

    def rate(self) -> float:
        return self._phase.rate.at(self.step)

    def gradients(self, batch: Batch, rate: float) -> Outcome:
        phase, (images, labels) = self._phase, batch
        self.phase = phase.name
        if 0 < self.step == phase.first:
            self._start(phase)
        step = Step(self.recipe, self.data, images, labels, self.batch_size)
        archs = step_archs(self.codecs[phase], self.recipe, self.step, phase.subnets)
        if self.recipe.schedule == "progressive":
            if self.teacher is not None:
                resolution = max(self.teacher.space.resolutions)
                return step.progressive(self.forward, archs, self.teacher, resolution, self.backward)
            own = self.copies.get("teacher")
            return step.progressive(self.forward, archs, own, archs[0].resolution, self.backward)
        others = [phase.space.smallest, *archs] if phase.name == "sandwich" else []
        return step.sandwich(self.forward, phase.space.largest, others, self.backward)

    def _fixed_archs(self) -> list[Arch]:
        """The subnets that come again in every step of some phase, or in all resolutions of one."""
        if self.recipe.schedule == "sandwich":
            return [self.space.largest, self.space.smallest]
        return [replace(self.space.largest, resolution=resolution) for resolution in self.space.resolutions]

    def update(self, rate: float) -> None:
        super().update(rate)
        if "average" in self.copies:
            update_average(self.copies["average"], self.model, self.recipe.ema, self.step - self._phase.first)

    def _start(self, phase: Phase) -> None:
        """Prepare for what a phase opens: channels in order of importance; momentum and average start anew."""
        own_teacher = self.recipe.schedule == "progressive" and self.teacher is None
        if own_teacher and "teacher" not in self.copies:
            self._copy("teacher", self.evaluated)
        if phase.trained is not None:
            self.model.sort_channels(phase.trained)
        for buffer in self.optimiser.momentum.values():
            buffer.zero_()
        if "average" in self.copies:
            self._copy("average", self.model)

    def evaluate(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Held-out accuracies of the whole space's largest and smallest subnets, where the recipe asks for them now."""
        every = self.recipe.evaluate_every * self.per_epoch
        if not every or (self.step % every and self.step != self.total):
            return {}
        valid = {f"valid_{name}": accuracy for name, accuracy in self._accuracies(self.evaluated).items()}
        if self.recipe.patience and self.step > self.phases[-1].first:
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
        if any(accuracy > self.best.get(name, -1) for name, accuracy in valid.items()):
            self.best["step"] = self.step
        if sum(valid.values()) > self.best.get("sum", -1):
            self.best["sum"] = sum(valid.values())
            self._copy("best", self.evaluated)
        for name, accuracy in valid.items():
            self.best[name] = max(accuracy, self.best.get(name, accuracy))

    @property
    def over(self) -> bool:
        """Whether the last phase has brought nothing better for as long as the recipe allows."""
        return bool(self.best) and self.step - self.best["step"] >= self.recipe.patience * self.per_epoch

    def tensors(self) -> dict[str, Tensor]:
        tensors = super().tensors()
        for prefix, supernet in self.copies.items():
            tensors |= {f"{prefix}.{name}": value for name, value in supernet.state_dict().items()}
        return tensors

    def beside(self) -> Header:
        return {**super().beside(), "best": self.best, "copies": list(self.copies)}

    def take(self, beside: Header) -> None:
        super().take(beside)
        self.best = beside.get("best", {})
        for name in beside.get("copies", []):
            if name not in self.copies:
                self._copy(name, self.model)

    def conclude(self, metrics: Path) -> tuple[Supernet, Header]:
        """The supernet, its own statistics recalibrated for its largest subnet, and the summary for its file."""
        supernet = self.copies.get("best", self.evaluated).eval()
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
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "train": self.world.ask_main(lambda: last_epoch(metrics)),
            "valid": self._accuracies(supernet),
            "valid_images": min(self.recipe.accuracy.images, len(self.data.valid)),
        }


def _check_fit(space: SearchSpace, data: Data) -> None:
    for field in ("in_channels", "num_classes"):
        needed, given = getattr(data, field), getattr(space, field)
        if needed != given:
            raise UsageError(f"space {space.name}: {field} is {given}, but {data.name} needs {needed}; set it in space")
