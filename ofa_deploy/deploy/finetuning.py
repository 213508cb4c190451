"""A subnet fine-tuned after the search, on its own: from inherited weights or from scratch, with the supernet's largest
subnet as its frozen teacher."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ofa_deploy.config import TrainRecipe
from ofa_deploy.deploy.subject import Subject
from ofa_deploy.documents.tuning_document import SplitAccuracies, SplitImages, TunedAs, TuningFacts
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.notices import Progress
from ofa_deploy.space import Arch, SearchSpace, arch_facts, frozen
from ofa_deploy.store import Workspace
from ofa_deploy.supernet import Subnet, Supernet, as_subnet, as_supernet, load_supernet, save_supernet
from ofa_deploy.training import (
    Data,
    alone_recipe,
    batches,
    evaluate,
    evaluate_all,
    load_data,
    specialise,
    train_supernet,
    training_id,
)

GENTLE = 0.1  # of the recipe's learning rate: inherited weights should not be forgotten
BATCH = 256
VALID, TEST = "valid", "test"  # images held out of the training split, and the test split, as the store names them
FINE_TUNED, SCRATCH = "fine-tuned", "scratch"  # how a subnet came to its weights; what is inherited is one-shot


@dataclass(frozen=True)
class Tuning:
    """How subnets are fine-tuned.

    Attributes:
        recipe: whose images, batches and regularisation are used; the supernet's own by default.
        lr: peak learning rate; by default the recipe's from scratch, ``GENTLE`` times that otherwise.
        scratch: start from random weights.
        teacher: whether the supernet's largest subnet teaches, beside the labels.
    """

    epochs: int
    recipe: TrainRecipe | None = None
    lr: float | None = None
    seed: int = 0
    scratch: bool = False
    teacher: bool = True

    def made(self, how: TunedAs) -> bool:
        """Whether a subnet was trained like this."""
        state, lr = SCRATCH if self.scratch else FINE_TUNED, how.lr if self.lr is None else self.lr
        return how == TunedAs(state=state, epochs=self.epochs, lr=lr, seed=self.seed, teacher=self.teacher)


def tuning_of(subject: Subject, finalists: int | None, epochs: int | None = None) -> Tuning | None:
    """How finalists are fine-tuned, by default for a quarter of the supernet's epochs; None where none are."""
    quarter = max(1, subject.recipe.epochs // 4 if subject.recipe else 1)
    return Tuning(quarter if epochs is None else epochs) if finalists else None


@dataclass(frozen=True)
class Tuned:
    """A subnet that was fine-tuned.

    Attributes:
        subnet: in evaluation mode, batch norm recalibrated, with the names that its space gives its blocks.
        file: a supernet's file of a space of this one subnet.
        facts: how it was trained, and what that changed.
    """

    subnet: Subnet
    file: Path
    facts: TuningFacts

    def save(self, path: Path) -> None:
        """Write the file for others: every command that takes a supernet takes it. It names no file of this machine."""
        supernet, summary = load_supernet(self.file)
        recipe = {**summary["recipe"], "init": None, "teacher": None}
        save_supernet(path, supernet, {**summary, "recipe": recipe, "alone": self.facts.to_json()})


def finetune(
    workspace: Workspace, subject: Subject, arch: Arch, tuning: Tuning, progress: Progress | None = None
) -> Tuned:
    """Train one subnet of a supernet on, or finish what a kill interrupted; what is finished is not trained again.

    Raises:
        UsageError: there is no supernet or no recipe, or the recipe's images are not such as the supernet sees.
    """
    supernet, recipe, data = _trainable(subject, tuning)
    alone = _recipe(recipe, supernet.space, subject, arch, tuning)
    identity = training_id(alone, data, subject.sha256, str(tuning.scratch))
    folder = workspace.root / "finetuned" / identity[:16]
    inherited = specialise(supernet, arch, data, recipe.accuracy.recalibration_images)
    if not tuning.scratch:
        init = folder / "inherited.safetensors"
        if not init.exists():
            save_supernet(init, as_supernet(inherited, frozen(supernet.space, arch)), {})
        alone = alone.model_copy(update={"init": init})
    file = train_supernet(alone, folder, resume=True, report=progress)
    subnet = as_subnet(load_supernet(file)[0], subject.space.network(arch))
    state, (after, images) = SCRATCH if tuning.scratch else FINE_TUNED, _accuracies(subnet, arch, data, recipe)
    facts = TuningFacts(
        state=state,
        space=subject.space.name,
        arch=arch.to_json(),
        key=arch.key,
        supernet_sha256=subject.sha256,
        epochs=tuning.epochs,
        lr=alone.lr,
        seed=tuning.seed,
        teacher=tuning.teacher,
        before=_accuracies(inherited, arch, data, recipe)[0],
        after=after,
        images=images,
    )
    workspace.store.architectures.add([arch_facts(arch, subject.space.network(arch))])
    add = partial(workspace.store.add_evaluation, state=state, weights=identity)
    for share, count, split in ((after.valid, images.valid, VALID), (after.test, images.test, TEST)):
        add(subject.sha256, arch.to_json(), arch.key, share, count, split, "finetune")
    return Tuned(subnet, file, facts)


def _recipe(recipe: TrainRecipe, space: SearchSpace, subject: Subject, arch: Arch, tuning: Tuning) -> TrainRecipe:
    lr = recipe.lr * (1.0 if tuning.scratch else GENTLE) if tuning.lr is None else tuning.lr
    teacher = subject.path.absolute() if tuning.teacher and subject.path else None
    return alone_recipe(recipe, space, arch, tuning.epochs, tuning.seed, lr, teacher=teacher)


def _trainable(subject: Subject, tuning: Tuning) -> tuple[Supernet, TrainRecipe, Data]:
    """What is needed to train a subject's subnets."""
    if subject.supernet is None:
        raise UsageError(f"{subject.name}: there are no weights to fine-tune: name a supernet with --supernet")
    recipe = tuning.recipe or subject.recipe
    if recipe is None:
        raise UsageError(f"{subject.name} does not say how it was trained: name a recipe with -c")
    if tuning.recipe is None and subject.data is None:
        raise OfaDeployError(f"{subject.name} cannot be fine-tuned: {subject.data_error}")
    data = load_data(recipe.data) if tuning.recipe or subject.data is None or subject.data.sampled else subject.data
    return subject.supernet, recipe, data


def check_trainable(subject: Subject, tuning: Tuning) -> None:
    """Say before minutes of measuring what would be in the way after them.

    Raises:
        UsageError: as ``finetune``.
    """
    _trainable(subject, tuning)


def _accuracies(subnet: Subnet, arch: Arch, data: Data, recipe: TrainRecipe) -> tuple[SplitAccuracies, SplitImages]:
    valid = evaluate_all([subnet], [arch], data, recipe.accuracy.images)[0]
    test = evaluate(subnet, batches(data.test, arch.resolution, BATCH, data.mean, data.std))
    return SplitAccuracies(valid=valid.accuracy, test=test.accuracy), SplitImages(valid=valid.n, test=test.n)
