"""`darts search` with several strategies, to compare them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_deploy.notices import Tell

if TYPE_CHECKING:
    from ofa_deploy.differentiable import DartsRecipe


def compare_strategies(
    recipe: DartsRecipe, folder: Path, resume: bool, strategies: tuple[str, ...], evaluations: int, tell: Tell
) -> list[dict[str, Any]]:
    """Search with each strategy, and judge what each found with the same shared weights.

    ``strategies.json`` keeps the answer. The gradient evaluates no genotypes, so its evaluations are None.
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
        genotype = Genotype.of(found["genotype"])
        space = recipe.space(genotype, judge.data.in_channels, judge.data.num_classes)
        rows.append(
            {
                "strategy": strategy,
                "accuracy": judge.accuracy(genotype),
                "n": judge.images,
                "evaluations": found.get("evaluations"),
                "skips": genotype.skips,
                "params": network_params(space.network(space.largest)),
                "seconds": found["seconds"],
                "genotype": genotype.to_json(),
            }
        )
    write_atomic(folder / "strategies.json", (json.dumps(rows, indent=1) + "\n").encode())
    return rows
