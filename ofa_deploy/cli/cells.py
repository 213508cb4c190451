"""`--family darts` of `extract` and `audit`: which cells, and which sizes of their network come into question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.output import Tell
from ofa_deploy.cli.request import Request

if TYPE_CHECKING:
    from ofa_deploy.deploy.cells import CellSubject
    from ofa_deploy.deploy.extract import Extraction
    from ofa_deploy.differentiable import DartsRecipe
    from ofa_deploy.store import Workspace

OPTIONS = (
    click.option("--family", type=click.Choice(["darts"]), help="Networks of cells, instead of a supernet's subnets."),
    click.option("-c", "--config", help="With --family darts: the recipe in YAML."),
    click.option(
        "--genotype", type=click.Path(path_type=Path), help="The cells.  [default: what the recipe's search found]"
    ),
    click.option("--cells", multiple=True, type=int, help="A number of cells; repeat it.  [default: the recipe's]"),
    click.option(
        "--channels", multiple=True, type=int, help="A number of channels; repeat it.  [default: the recipe's]"
    ),
)


@dataclass(frozen=True)
class CellChoice:
    """The options of a family of cell networks."""

    config: str
    genotype: Path | None
    cells: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def options(self) -> dict[str, object]:
        """By name, what a command is told that asks for the same."""
        return {"family": "darts", **vars(self)}

    @property
    def words(self) -> list[str]:
        """The same as words."""
        given = {name: value if isinstance(value, tuple) else (value,) for name, value in self.options.items()}
        return [
            word for name, values in given.items() for v in values if v is not None for word in (f"--{name}", str(v))
        ]


def cell_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a ``CellChoice``, and that, or None, as its argument ``cells``."""

    @wraps(command)
    def collected(*arguments: Any, **options: Any) -> Any:
        family = options.pop("family")
        given = {name: options.pop(name) for name in ("config", "genotype", "cells", "channels")}
        if family is None and any(given.values()):
            raise click.UsageError("--config, --genotype, --cells and --channels go with --family darts")
        if family is not None and not given["config"]:
            raise click.UsageError("--family darts needs the recipe: -c FILE")
        return command(*arguments, cells=CellChoice(**given) if family else None, **options)

    for option in reversed(OPTIONS):
        collected = option(collected)
    return collected


def cell_family(workspace: Workspace, choice: CellChoice, seed: int = 0) -> tuple[DartsRecipe, CellSubject]:
    """The recipe, and networks of its cells in all sizes, with random weights."""
    from dataclasses import replace

    from ofa_deploy.cli.darts import read_genotype, read_recipe, search_course
    from ofa_deploy.deploy.cells import family_subject
    from ofa_deploy.training import load_data

    recipe = read_recipe(choice.config)
    source = choice.genotype or workspace.root / "darts" / recipe.name
    genotype = read_genotype(source)
    data = load_data(recipe.data)
    single = recipe.space(genotype, data.in_channels, data.num_classes)
    channels, cells = sorted(set(choice.channels)) or single.channels, sorted(set(choice.cells)) or single.cells
    family = family_subject(replace(single, channels=tuple(channels), cells=tuple(cells)), seed)
    family.found, family.options = search_course(source), choice.options
    return recipe, family


def cell_subject(
    workspace: Workspace, choice: CellChoice, request: Request, sized: Callable[[CellSubject], Extraction], tell: Tell
) -> CellSubject:
    """What is extracted: with random weights the whole family; else the network of the size that ``sized`` finds,
    trained."""
    from ofa_deploy.deploy.cells import trained_subject
    from ofa_deploy.differentiable import train_network
    from ofa_deploy.errors import UsageError

    if request.supernet or request.accuracy or request.space_name:
        raise UsageError("--supernet, --accuracy and --space are not for --family darts")
    recipe, family = cell_family(workspace, choice, request.seed)
    if request.random_weights:
        return family
    arch, genotype = sized(family).chosen.point.arch.to_json(), family.family.genotype
    size = {name: arch[name] for name in ("cells", "channels")}
    click.echo(f"{size['cells']} cells of {size['channels']} channels fit; training them", err=True)
    fitting = recipe.model_copy(update={"train": recipe.train.model_copy(update=size)})
    folder = (
        workspace.root / "darts" / recipe.name / f"network-{size['cells']}x{size['channels']}-{arch_digest(genotype)}"
    )
    trained = train_network(fitting, genotype, folder, True, lambda p: tell(f"train {recipe.name}", p))
    subject = trained_subject(fitting, trained)
    subject.found, subject.options = family.found, family.options
    return subject


def arch_digest(genotype: Any) -> str:
    """A short name of a genotype, so that networks of other cells do not share a folder."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(genotype.to_json()).encode()).hexdigest()[:8]
