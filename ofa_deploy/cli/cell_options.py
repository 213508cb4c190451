"""`--family darts` of `extract` and `audit`: which cells, and which sizes of the network built from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import CELLS, gathered, option

if TYPE_CHECKING:
    from ofa_deploy.config import CellChoice

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


def _choice(values: dict[str, Any]) -> CellChoice | None:
    family = values.pop("family")
    if family is None and any(values.values()):
        raise click.UsageError("--config, --genotype, --cells and --channels need --family darts")
    if family is not None and not values["config"]:
        raise click.UsageError("--family darts needs the recipe of the cell search: give -c FILE")
    from ofa_deploy.config import CellChoice

    return CellChoice.model_validate(values) if family else None


# the command's argument ``cells``: a ``CellChoice``; None without --family
cell_options = gathered("cells", OPTIONS, _choice)
