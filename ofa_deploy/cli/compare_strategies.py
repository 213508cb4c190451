"""`darts search` with several strategies, to compare them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.notices import Tell

if TYPE_CHECKING:
    from ofa_deploy.differentiable import DartsRecipe
    from ofa_deploy.json_types import JSON


@dataclass(frozen=True)
class StrategyCells:
    """The cells that a strategy found, and their accuracy with the shared weights: a fraction, over ``n`` images.

    Attributes:
        evaluations: genotypes that it evaluated; None of the gradient, which evaluates none.
        skips, params: skip connections, and parameters of the network.
    """

    strategy: str
    accuracy: float
    n: int
    evaluations: int | None
    skips: int
    params: int
    seconds: float
    genotype: Mapping[str, JSON]


def compare_strategies(
    recipe: DartsRecipe, folder: Path, resume: bool, strategies: tuple[str, ...], evaluations: int, tell: Tell
) -> list[StrategyCells]:
    """Search with each strategy, and judge what each found with the same shared weights.

    ``strategies.json`` keeps the answer.
    """
    from ofa_deploy.differentiable import search_cells, search_genotypes
    from ofa_deploy.differentiable.one_shot import Judge
    from ofa_deploy.files import write_atomic
    from ofa_deploy.space import Genotype, network_params

    judge, rows = Judge(recipe, folder, lambda p: tell("shared weights", p)), []
    for strategy in strategies:
        found: Mapping[str, Any]
        if strategy == "gradient":
            found = search_cells(recipe, folder, resume, lambda p: tell("search by gradient", p))
        else:
            found = search_genotypes(recipe, folder, strategy, evaluations, lambda p: tell("search", p))
        genotype, asked = Genotype.of(found["genotype"]), found.get("evaluations")
        space = recipe.space(genotype, judge.data.in_channels, judge.data.num_classes)
        rows.append(
            StrategyCells(
                strategy=strategy,
                accuracy=judge.accuracy(genotype),
                n=judge.images,
                evaluations=asked if isinstance(asked, int) else None,
                skips=genotype.skips,
                params=network_params(space.network(space.largest)),
                seconds=found["seconds"],
                genotype=genotype.to_json(),
            )
        )
    write_atomic(folder / "strategies.json", (json.dumps([vars(row) for row in rows], indent=1) + "\n").encode())
    return rows
