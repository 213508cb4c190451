"""`--family darts` of `extract` and `audit`: which cells, and which sizes of the network built from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import CELLS, gathered, option
from ofa_deploy.cli.request import Request
from ofa_deploy.notices import Tell

if TYPE_CHECKING:
    from ofa_deploy.deploy.cell_networks import CellSubject
    from ofa_deploy.differentiable import DartsRecipe
    from ofa_deploy.space import Genotype
    from ofa_deploy.store import Workspace

OPTIONS = (
    option(
        "--family",
        type=click.Choice(["darts"]),
        group=CELLS,
        help="Use networks of cells instead of a supernet's subnets.",
    ),
    option("-c", "--config", metavar="FILE", group=CELLS, help="Recipe of the cell search, in YAML."),
    option(
        "--genotype",
        type=click.Path(path_type=Path),
        group=CELLS,
        help="File or folder with the cells.  [default: what the recipe's search found]",
    ),
    option(
        "--cells",
        multiple=True,
        type=int,
        group=CELLS,
        help="Number of cells. Repeat the option to allow several.  [default: the recipe's]",
    ),
    option(
        "--channels",
        multiple=True,
        type=int,
        group=CELLS,
        help="Number of channels. Repeat the option to allow several.  [default: the recipe's]",
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
        """The options of a command that asks the same, by name."""
        return {"family": "darts", **vars(self)}

    @property
    def words(self) -> list[str]:
        """The same as the words of a command line."""
        given = {name: value if isinstance(value, tuple) else (value,) for name, value in self.options.items()}
        return [
            word for name, values in given.items() for v in values if v is not None for word in (f"--{name}", str(v))
        ]


def _choice(values: dict[str, Any]) -> CellChoice | None:
    family = values.pop("family")
    if family is None and any(values.values()):
        raise click.UsageError("--config, --genotype, --cells and --channels need --family darts")
    if family is not None and not values["config"]:
        raise click.UsageError("--family darts needs the recipe of the cell search: give -c FILE")
    return CellChoice(**values) if family else None


# the command's argument ``cells``: a ``CellChoice``; None without --family
cell_options = gathered("cells", OPTIONS, _choice)


def cell_family(workspace: Workspace, choice: CellChoice, seed: int = 0) -> tuple[DartsRecipe, CellSubject]:
    """The recipe, and the networks of its cells in every size, with random weights."""
    from dataclasses import replace

    from ofa_deploy.cli.darts_commands import read_genotype, read_recipe, search_course
    from ofa_deploy.deploy.cell_networks import family_subject
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
    workspace: Workspace,
    choice: CellChoice,
    request: Request,
    precisions: tuple[str, ...],
    measuring: dict[str, Any],
    tell: Tell,
) -> CellSubject:
    """What to extract: the whole family with random weights, or the network of the size that fits, trained.

    Args:
        measuring: how the sizes are measured: ``may_profile``, ``se`` and ``cap_s``.
    """
    from ofa_deploy.api.common import targets_in
    from ofa_deploy.deploy.cell_networks import trained_subject
    from ofa_deploy.deploy.orders import Order
    from ofa_deploy.differentiable import train_network
    from ofa_deploy.errors import UsageError
    from ofa_deploy.fleet import Fleet, Protocol

    if request.supernet or request.accuracy or request.space_name:
        raise UsageError("--supernet, --accuracy and --space do not work with --family darts: leave them out")
    recipe, family = cell_family(workspace, choice, request.seed)
    if request.random_weights:
        return family
    may_profile, protocol = measuring["may_profile"], Protocol(se=measuring["se"], cap_s=measuring["cap_s"])
    targets = targets_in(request.target, precisions, workspace, measure=True)
    order = Order(family, tuple(targets), request.constraints, request.seed, protocol=protocol)
    with Fleet.open(workspace) as fleet:
        sized = order.extraction(fleet, workspace, may_profile, lambda p: tell(f"measure on {request.target}", p))
    arch, genotype = sized.chosen.point.arch.to_json(), family.space.genotype
    size = {name: arch[name] for name in ("cells", "channels")}
    click.echo(f"training the network that fits: {size['cells']} cells of {size['channels']} channels", err=True)
    fitting = recipe.model_copy(update={"train": recipe.train.model_copy(update=size)})
    folder = (
        workspace.root / "darts" / recipe.name / f"network-{size['cells']}x{size['channels']}-{arch_digest(genotype)}"
    )
    trained = train_network(fitting, genotype, folder, True, lambda p: tell(f"train {recipe.name}", p))
    subject = trained_subject(fitting, trained)
    subject.found, subject.options, subject.sizes = family.found, family.options, family.space
    return subject


def arch_digest(genotype: Genotype) -> str:
    """A short name of a genotype. It keeps networks of different cells in different folders."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(genotype.to_json()).encode()).hexdigest()[:8]
