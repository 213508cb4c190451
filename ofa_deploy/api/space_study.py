"""``compare_spaces`` and ``suggest_space``: the search space for a device, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.api.common import Where, in_frame, opened, save_figures, targets_in
from ofa_deploy.config import Constraints, TrainRecipe, find_file, read_document
from ofa_deploy.documents.spaces_document import SpacesCompared
from ofa_deploy.errors import UsageError
from ofa_deploy.files import write_atomic
from ofa_deploy.notices import Tell, silent
from ofa_deploy.space import SearchSpace, load_space

if TYPE_CHECKING:
    from ofa_deploy.deploy.space_suggestion import Suggestion


@dataclass(frozen=True)
class SpaceComparison:
    """Spaces compared on a device.

    Attributes:
        answer: what ``ofa-deploy space compare --json`` prints: ``spaces``, an entry for each space and budget, and
            ``verdicts``, one for each budget.
    """

    answer: dict[str, Any]

    @property
    def verdicts(self) -> list[str]:
        """For each budget, which space promises more, and why."""
        return [f"{one['budget_ms']:g} ms: {one['text']}" for one in self.answer["verdicts"]]

    def save(self, path: str | Path) -> None:
        """Write the figures (``.json``), the page (``.html``) or its first plot (``.svg``).

        Raises:
            UsageError: the name ends otherwise.
        """
        from ofa_deploy.report.spaces_page import render_spaces, spaces_svg

        save_figures(path, self.answer, SpacesCompared, spaces_svg, render_spaces)

    def _repr_html_(self) -> str:
        from ofa_deploy.report.spaces_page import render_spaces

        return in_frame(render_spaces(SpacesCompared.read(self.answer)))


def compare_spaces(
    spaces: Sequence[str | SearchSpace],
    target: str = "local",
    *,
    max_ms: float | Sequence[float],
    train: int = 0,
    epochs: int | None = None,
    recipe: str | Path | None = None,
    precision: str | None = None,
    profile: bool = True,
    seed: int = 0,
    workspace: Where = None,
    progress: Tell = silent,
    **bounds: Any,
) -> SpaceComparison:
    """Compare search spaces on a device by the networks that use a latency budget.

    The function measures the blocks that the device's table lacks, samples each space, and compares sizes, zero-cost
    proxies and, if asked, the accuracies of a few networks after a short training.

    Args:
        spaces: at least two presets' names, YAML files or spaces.
        target: the device: ``local``, a registered one, or a kind of device to simulate.
        max_ms: a latency budget in ms, or several.
        train: how many networks of each space and budget to train alone.
        epochs: of each training; by default one on Fashion-MNIST, ten on the digits, or a quarter of the recipe's.
        recipe: a training recipe whose images and settings count. By default Fashion-MNIST if its files are here, else
            scikit-learn's digits; noise where the spaces need other images.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default the one of the device's profile.
        profile: whether to measure blocks that the table lacks.
        seed: random seed of the choice of networks and of their weights.
        workspace: the workspace or its folder; it keeps tables and trainings.
        progress: called with a description and a dictionary of numbers.
        bounds: ``statistic``, ``confidence`` and other constraints, as in ``search``.

    Returns:
        The figures and, for each budget, which space promises more. In a notebook they show as a page.

    Raises:
        UsageError: there is no such device or space, or the spaces are for different images.
        OpNotProfiled: the table lacks blocks, and ``profile`` is False.
        InfeasibleBudget: no network of any space meets any budget.
        DeviceUnavailable: the device does not answer.

    Example:
        >>> ofa_deploy.compare_spaces(["small_28", "resnet_28"], max_ms=0.1).answer["verdicts"][0]["order"]
        ['resnet_28', 'small_28']
    """
    where = opened(workspace)
    (found,) = targets_in(target, precision, where, measure=profile)
    loaded = tuple(space if isinstance(space, SearchSpace) else load_space(space) for space in spaces)
    budgets = (max_ms,) if isinstance(max_ms, (int, float)) else tuple(max_ms)
    read = read_document(TrainRecipe, find_file(recipe, "pipelines")) if recipe else None
    from ofa_deploy.deploy.space_comparison import Contest
    from ofa_deploy.deploy.space_comparison import compare_spaces as compare
    from ofa_deploy.deploy.space_evidence import gather  # and with it torch
    from ofa_deploy.fleet import Fleet

    contest = Contest(loaded, tuple(Constraints(max_ms=ms, **bounds) for ms in budgets), seed)
    evidence = gather(where, loaded, read, train, epochs, seed)
    measure = partial(Fleet.open, where) if profile else None
    return SpaceComparison(compare(measure, where, found, contest, evidence, progress))


def suggest_space(
    target: str = "local",
    *,
    max_ms: float,
    image: tuple[int, int, int] = (1, 28, 28),
    classes: int = 10,
    name: str = "suggested",
    precision: str | None = None,
    output: str | Path | None = None,
    workspace: Where = None,
    progress: Tell = silent,
) -> Suggestion:
    """Compose a search space of the blocks that a device runs at the best rate.

    The function measures a small grid of blocks: kinds, widths and kernels at the shape of each stage.

    Args:
        target: the device: ``local``, a registered one, or a kind of device to simulate.
        max_ms: the latency budget in ms.
        image: channels, height and width of the images; height and width are equal.
        classes: the number of classes.
        name: of the space.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default the one of the device's profile.
        output: the YAML file to write.
        workspace: the workspace or its folder; it keeps the measurements.
        progress: called with a description and a dictionary of numbers.

    Returns:
        The space, and the rates that it rests on.

    Raises:
        UsageError: there is no such device, or no space is for such images.
        InfeasibleBudget: not even the fastest network of the space meets the budget.
        DeviceUnavailable: the device does not answer.

    Example:
        >>> ofa_deploy.suggest_space("local", max_ms=0.1, output="space.yaml").space.stages[0].block
        'conv'
    """
    from ofa_deploy.deploy.space_suggestion import Wish
    from ofa_deploy.deploy.space_suggestion import suggest_space as suggest
    from ofa_deploy.fleet import Fleet

    where = opened(workspace)
    (found,) = targets_in(target, precision, where, measure=True)
    if image[1] != image[2]:
        raise UsageError(f"images of {image[1]} × {image[2]} pixels: a space's images are square")
    Constraints(max_ms=max_ms)  # a wrong budget must fail now, not after measuring
    with Fleet.open(where) as fleet:
        suggestion = suggest(fleet, where, found, Wish(name, image[0], image[1], classes, max_ms), progress)
    if output is not None:
        write_atomic(Path(output), suggestion.text.encode())
    return suggestion
