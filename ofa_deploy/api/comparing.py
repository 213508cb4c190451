"""``baseline``: hand-picked networks beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.api.common import Where, opened, targets_in
from ofa_deploy.config import TrainRecipe, find_file, read_document
from ofa_deploy.deploy.kept_baselines import known_baselines
from ofa_deploy.documents.baselines_document import BaselinesFound
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet import Fleet, Protocol
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import families, load_space, network_macs, network_params
from ofa_deploy.store import Workspace

if TYPE_CHECKING:  # they load torch
    from ofa_deploy.deploy.subject import Subject
    from ofa_deploy.training import Data

NAMES = (
    *("plain-8-16-32", "plain-16-32-64", "resnet-8-16-32", "resnet-16-32-64", "resnet-32-64-128"),
    *families(),
)


def baseline(
    target: str = "local",
    names: Sequence[str] = (),
    *,
    max_ms: Sequence[float] = (),
    supernet: str | Path | None = None,
    recipe: str | None = None,
    epochs: int | None = None,
    precision: str | None = None,
    se: float = 0.01,
    cap_s: float = 120.0,
    seed: int = 0,
    workspace: Where = None,
    progress: Tell = silent,
) -> BaselinesFound:
    """Train hand-picked networks, and measure them beside the answers of earlier extractions.

    Each network is trained by the supernet's recipe, without distillation, and by a plain one. The one that is better
    on the validation images counts. Its accuracy is that of the exported file on the test images.

    Args:
        target: the device: ``local``, or a registered one.
        names: the networks, such as ``resnet-16-32-64`` or ``mobilenet_v2@0.25``; a preset, a space's YAML file, or a
            subnet's JSON file. The default is one of each kind that fits.
        max_ms: latency budgets in milliseconds. The default is those of the answers.
        supernet: a supernet's file or folder. By default it is the newest in the workspace, or the one in the package.
        recipe: a training recipe's YAML file instead of a supernet: there are no answers to stand beside then.
        epochs: of each training; by default the recipe's own, and 15 of the plain one.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default the one of the device's profile.
        se: measure each network until its relative standard error is this small, a fraction.
        cap_s: stop measuring after this many seconds.
        seed: random seed of the trainings.
        workspace: the workspace or its folder.
        progress: called with a description and a dictionary of numbers.

    Returns:
        ``networks`` with their accuracies and latencies, ``answers`` and ``budgets`` beside the best of them, and
        ``skipped`` ones that fit no budget.

    Raises:
        InfeasibleBudget: no hand-picked network fits.
        UsageError: there is no such network, supernet or recipe, or its images are not there.
        DeviceUnavailable: the device does not answer.

    Example:
        >>> found = ofa_deploy.baseline("local", ["resnet-8-16-32"], max_ms=[0.2])
        >>> found.answers[0].text
    """
    from ofa_deploy.deploy.baselines import answers_on, candidates, compare

    where = opened(workspace)
    (found,) = targets_in(target, precision, where, measure=True)
    subject, how, data, resolution = _subject(where, supernet, recipe, progress)
    budgets = tuple(max_ms)
    if not budgets and not names and subject is not None:
        asked = (one.report.budget.max_ms for one in answers_on(where, subject, found))
        budgets = tuple(sorted({budget for budget in asked if budget is not None}))
    if not budgets and not names:
        raise UsageError(
            "which networks fit depends on the budget: give --max-ms, name networks such as resnet-16-32-64, or run "
            f"ofa-deploy extract --target {target} --max-ms … first"
        )
    ours = subject.supernet.space if subject and subject.supernet else None
    spaces = candidates(names or NAMES, resolution, data, budgets, ours)
    with Fleet.open(where) as fleet:
        protocol = Protocol(se=se, cap_s=cap_s)
        return compare(fleet, where, found, how, data, spaces, budgets, subject, epochs, seed, protocol, progress)


def _subject(
    workspace: Workspace, supernet: str | Path | None, recipe: str | None, progress: Tell
) -> tuple[Subject | None, TrainRecipe, Data, int]:
    """The supernet if there is one, the recipe, its images, and the largest resolution in pixels."""
    from ofa_deploy.deploy.subject import find_supernet, open_subject
    from ofa_deploy.training import load_data

    if recipe is not None:
        if supernet is not None:
            raise UsageError("give a supernet or a recipe, not both")
        how = read_document(TrainRecipe, find_file(recipe, "pipelines"))
        return None, how, load_data(how.data), max(load_space(how.space).resolutions)
    path = find_supernet(workspace, Path(supernet) if supernet else None)
    progress(f"supernet: {path}", {})
    subject = open_subject(workspace, path)
    if subject.recipe is None:
        raise UsageError(f"{path} does not say how it was trained: name a recipe with -c")
    data = subject.data
    if data is None or data.sampled:
        data = load_data(subject.recipe.data)
    return subject, subject.recipe, data, max(subject.space.resolutions)


def baselines(workspace: Where = None) -> list[dict[str, Any]]:
    """The hand-picked networks that were trained here.

    Args:
        workspace: the workspace or its folder.

    Returns:
        Of each its ``name``, counts and file, ``valid``: by recipe, the accuracy on the validation images, ``test``: of
        the exported file, with the number of images each, and the newest ``measurements``, one of each device.
    """
    where = opened(workspace)
    rows = []
    for one in known_baselines(where):
        arch, network = one.space.largest, one.space.network(one.space.largest)
        known = where.store.architectures.one(arch.key)
        test = [judged for judged in known.evaluations if judged.split == "test"]
        rows.append(
            {
                "name": one.name,
                "key": arch.key,
                "macs": network_macs(network),
                "params": network_params(network),
                "recipe": one.recipe,
                "epochs": one.epochs,
                "valid": one.valid,
                "valid_n": one.valid_n,
                "test": {"accuracy": test[-1].accuracy, "n": test[-1].n} if test else None,
                "measurements": [vars(measured) for measured in known.measurements],
                "file": str(one.file),
            }
        )
    return rows
