"""The small grid search for compound scaling's α, β and γ (EfficientNet, Tan & Le, ICML 2019, §3.3, step 1)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ofa_deploy.config import TrainRecipe
from ofa_deploy.documents.scaling_document import ScalingPoint
from ofa_deploy.notices import Progress
from ofa_deploy.space import Scaling, compound, largest_alone, load_space, network_macs, network_params
from ofa_deploy.supernet import read_summary
from ofa_deploy.training.supernet_training import train_supernet


def search_scaling(
    recipe: TrainRecipe,
    scalings: Sequence[Scaling],
    folder: Path,
    report: Progress | None = None,
) -> list[ScalingPoint]:
    """Train the largest network of the recipe's space, scaled by φ = 1, alone with each α, β and γ.

    A network whose training is finished is not trained again, and one whose training was interrupted goes on.

    Args:
        folder: receives a folder for each network.
        report: called with a training's progress, and ``network`` and ``networks`` beside it.

    Returns:
        The most accurate first.

    Raises:
        UsageError: a network is out of range, or the recipe does not fit its data.
    """
    base = largest_alone(load_space(recipe.space), f"{recipe.name}-base")
    spaces = [compound(base, 1, s, f"a{s.alpha:g}-b{s.beta:g}-g{s.gamma:g}") for s in scalings]
    points: list[ScalingPoint] = []
    for i, (scaling, space) in enumerate(zip(scalings, spaces, strict=True)):
        one = recipe.model_copy(update={"name": f"{recipe.name}-{space.name}", "space": space.to_json()})
        place = {"network": i + 1, "networks": len(spaces)}
        tell = None if report is None else (lambda p, place=place: report({**p, **place}))
        path = train_supernet(one, folder / space.name, resume=True, report=tell)
        network, summary = space.network(space.largest), read_summary(path)[1]
        points.append(
            ScalingPoint(
                alpha=scaling.alpha,
                beta=scaling.beta,
                gamma=scaling.gamma,
                macs=network_macs(network),
                params=network_params(network),
                resolution=space.largest.resolution,
                accuracy=summary["valid"]["largest"],
                n=summary.get("valid_images"),
            )
        )
    return sorted(points, key=lambda point: -point.accuracy)
