"""`darts`: search for cells by gradient, and train the network built from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import json_option, option, output_option
from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.differentiable import DartsRecipe
    from ofa_deploy.space import Genotype

CONFIG = option(
    "-c",
    "--config",
    required=True,
    metavar="FILE",
    help="Recipe in YAML: your own, or one of the package such as pipelines/darts_digits.yaml.",
)
RESUME = option("--resume", is_flag=True, help="Continue after an interruption; the result comes out the same.")


@click.group()
def darts() -> None:
    """Search for cells by gradient (DARTS), and train them.

    \b
    Example:
      ofa-deploy darts search -c pipelines/darts_digits.yaml
    """


def _folder(workspace: Path | None, output: Path | None, *names: str) -> Path:
    from ofa_deploy.store import Workspace

    return output or Workspace.open(workspace).root.joinpath("darts", *names)


@darts.command()
@CONFIG
@RESUME
@option(
    "--strategy",
    "strategies",
    multiple=True,
    default=("gradient",),
    show_default=True,
    type=click.Choice(["gradient", "evolution", "regularized", "reinforce", "random", "predictor-guided"]),
    help="Search strategy. Repeat the option to compare several.",
)
@option(
    "--evaluations",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Number of genotypes that a strategy other than gradient evaluates.",
)
@output_option("Folder to write.  [default: darts/NAME in the workspace]")
@json_option
@click.pass_obj
def search(
    workspace: Path | None,
    config: str,
    resume: bool,
    strategies: tuple[str, ...],
    evaluations: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Search for cells.

    The command writes search.json, which holds the cells and the architecture weights of every epoch.

    Strategies other than gradient evaluate genotypes with the shared weights of one network that contains them all.
    They write STRATEGY.json, which `darts train --genotype` takes. With several strategies, a table compares what they
    found.

    \b
    Examples:
      ofa-deploy darts search -c pipelines/darts_digits.yaml
      ofa-deploy darts search -c pipelines/darts_digits.yaml \\
        --strategy gradient --strategy evolution
    """
    from ofa_deploy.cli.compare_strategies import compare_strategies
    from ofa_deploy.differentiable.found_cells import read_recipe

    recipe = read_recipe(config)
    folder = _folder(workspace, output, recipe.name)
    if strategies == ("gradient",):
        _by_gradient(recipe, folder, resume, config, as_json)
        return
    with progress() as tell:
        rows = compare_strategies(recipe, folder, resume, tuple(dict.fromkeys(strategies)), evaluations, tell)
    if as_json:
        emit({"folder": str(folder), "strategies": [vars(row) for row in rows]})
        return
    from ofa_deploy.report.text import accuracy

    click.echo("strategy           shared weights        evaluations  skips  parameters")
    for row in rows:
        asked, judged = "–" if row.evaluations is None else row.evaluations, accuracy(row.accuracy, row.n)
        click.echo(f"{row.strategy:18} {judged:20}  {asked!s:>11}  {row.skips:5}  {row.params:10,}")
    click.echo(f"next: ofa-deploy darts train -c {config} --genotype {folder / (strategies[-1] + '.json')}")


def _by_gradient(recipe: DartsRecipe, folder: Path, resume: bool, config: str, as_json: bool) -> None:
    from ofa_deploy.differentiable import search_cells
    from ofa_deploy.space import Genotype

    with progress() as tell:
        found = search_cells(recipe, folder, resume, lambda p: tell(f"search {recipe.name}", p))
    if as_json:
        emit(
            {"search": str(folder / "search.json"), **{k: found[k] for k in ("genotype", "epoch", "acted", "seconds")}}
        )
        return
    click.echo(described(Genotype.of(found["genotype"])))
    for guard in found["acted"]:
        click.echo(f"guard {guard['guard']}: {guard['why']}")
    click.echo(f"search: {folder / 'search.json'}\nnext: ofa-deploy darts train -c {config}")


@darts.command()
@click.argument("found", metavar="SEARCH", type=click.Path(path_type=Path))
@option(
    "--epoch", type=click.IntRange(min=1), help="Use the weights of this epoch.  [default: the one the search chose]"
)
@option("--max-skips", type=click.IntRange(min=0), help="Allow N skip connections in the normal cell at most.")
@output_option("JSON file to write.")
@json_option
def derive(found: Path, epoch: int | None, max_skips: int | None, output: Path | None, as_json: bool) -> None:
    """Derive cells from a finished search again, under other rules.

    \b
    Example:
      ofa-deploy darts derive .ofa/darts/darts_digits --max-skips 1 -o cells.json
    """
    from ofa_deploy.differentiable import derive as run
    from ofa_deploy.differentiable.search_document import read_search
    from ofa_deploy.errors import UsageError
    from ofa_deploy.files import write_atomic

    data = read_search(found / "search.json" if found.is_dir() else found)
    chosen, last = epoch or data["epoch"], len(data["history"])
    if chosen > last:
        raise UsageError(f"--epoch {chosen}: the search has only {last} epochs")
    genotype = run(data["history"][chosen - 1]["weights"], max_skips)
    if output is not None:
        write_atomic(output, (json.dumps(genotype.to_json()) + "\n").encode())
    if as_json:
        emit({"genotype": genotype.to_json(), "epoch": chosen, "skips": genotype.skips})
    else:
        click.echo(described(genotype))


@darts.command()
@CONFIG
@option(
    "--genotype",
    "cells",
    type=click.Path(path_type=Path),
    help="File or folder with the cells.  [default: what this recipe's search found]",
)
@RESUME
@output_option("Folder to write.  [default: darts/NAME/network in the workspace]")
@json_option
@click.pass_obj
def train(
    workspace: Path | None, config: str, cells: Path | None, resume: bool, output: Path | None, as_json: bool
) -> None:
    """Train a network of derived cells from scratch.

    \b
    Example:
      ofa-deploy darts train -c pipelines/darts_digits.yaml
    """
    from ofa_deploy.differentiable import train_network
    from ofa_deploy.differentiable.found_cells import read_genotype, read_recipe
    from ofa_deploy.space import network_macs, network_params

    recipe = read_recipe(config)
    genotype = read_genotype(cells or _folder(workspace, None, recipe.name))
    folder = _folder(workspace, output, recipe.name, "network")
    with progress() as tell:
        trained = train_network(recipe, genotype, folder, resume, lambda p: tell(f"train {recipe.name}", p))
    from ofa_deploy.report.text import accuracy

    network, n = trained.subnet.network, trained.summary.get("images", {})
    answer = {
        "network": str(folder / "network.safetensors"),
        "valid": trained.summary["valid"],
        "test": trained.summary["test"],
        "images": n,
        "params": network_params(network),
        "macs": network_macs(network),
    }
    if as_json:
        emit(answer)
        return
    click.echo(
        f"network: {answer['network']}\naccuracy: {accuracy(answer['valid'], n.get('valid'))} on held-out images, "
        f"{accuracy(answer['test'], n.get('test'))} on the test split\n"
        f"{answer['params']:,} parameters, {answer['macs'] / 1e6:.2f} M MACs"
    )


@darts.command()
@click.argument("cells", metavar="FILE", type=click.Path(path_type=Path))
@option("--svg", type=click.Path(path_type=Path), help="SVG file to write, with both cells and the search's course.")
@output_option("HTML page to write, with the same and every edge.")
@json_option
def show(cells: Path, svg: Path | None, output: Path | None, as_json: bool) -> None:
    """Show the cells in a search's folder or in a genotype's file.

    \b
    Example:
      ofa-deploy darts show .ofa/darts/darts_digits -o cells.html
    """
    from ofa_deploy.differentiable.found_cells import read_cells, read_genotype
    from ofa_deploy.documents.cells_document import CellsFound
    from ofa_deploy.files import write_atomic
    from ofa_deploy.report.cell_page import render_cells
    from ofa_deploy.report.cell_pictures import cells_svg

    data, genotype = read_cells(cells), read_genotype(cells)
    history, found = data.get("history", []), CellsFound.read({**genotype.to_json(), **data})
    if svg is not None:
        write_atomic(svg, cells_svg(found).encode())
    if output is not None:
        write_atomic(output, render_cells(found, f"Cells of {cells.stem}").encode())
    if as_json:
        course = [{k: v for k, v in record.items() if k != "weights"} for record in history]
        emit({"genotype": genotype.to_json(), "skips": genotype.skips, "acted": data.get("acted"), "history": course})
        return
    click.echo(described(genotype))
    for record in history:
        figures = "  ".join(f"{name} {record[name]:.4g}" for name in ("loss", "arch_loss", "entropy") if name in record)
        click.echo(f"epoch {record['epoch']}: {figures}")
    for guard in data.get("acted", ()):
        click.echo(f"guard {guard['guard']}: {guard['why']}")


def described(genotype: Genotype) -> str:
    """Both cells, one line for each node."""
    lines = []
    for kind, cell in (("normal", genotype.normal), ("reduce", genotype.reduce)):
        lines.append(f"{kind} cell:")
        for i, node in enumerate(cell):
            parts = [f"{operation}({_tensor(source)})" for operation, source in node]
            lines.append(f"  node {i} = {' + '.join(parts)}")
    return "\n".join(lines)


def _tensor(source: int) -> str:
    return ("cell before last", "last cell")[source] if source < 2 else f"node {source - 2}"


COMMANDS = (darts,)
