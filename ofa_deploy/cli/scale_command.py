"""`scale`: scale a network in depth, width and resolution together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ofa_deploy.cli.options import GRID, command, json_option, option, output_option
from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.documents.scaling_document import ScalingPoint
    from ofa_deploy.space import Scaling, SearchSpace


@command(first=("phi", "base", "as_grid", "config", "output"))
@option("--phi", type=float, help="Scaling exponent φ, any number. 0 gives the base network.")
@option("--base", default="efficientnet_b0", show_default=True, help="Base network: preset or YAML file.")
@option("--alpha", type=float, default=1.2, show_default=True, help="Multiply the depth by α^φ.")
@option("--beta", type=float, default=1.1, show_default=True, help="Multiply the width by β^φ.")
@option("--gamma", type=float, default=1.15, show_default=True, help="Multiply the resolution by γ^φ.")
@option(
    "--grid", "as_grid", is_flag=True, group=GRID, help="Search for α, β and γ with α·β²·γ² ≈ 2 by training networks."
)
@option("-c", "--config", metavar="FILE", group=GRID, help="With --grid: training recipe of each network, in YAML.")
@option("--step", type=float, default=0.1, show_default=True, group=GRID, help="Step of the grid in α, β and γ.")
@option(
    "--tolerance",
    type=float,
    default=0.05,
    show_default=True,
    group=GRID,
    help="How far α·β²·γ² may be from 2.",
)
@output_option("YAML file to write; with --grid, an HTML page.")
@json_option
@click.pass_obj
def scale(
    workspace: Path | None,
    phi: float | None,
    base: str,
    alpha: float,
    beta: float,
    gamma: float,
    as_grid: bool,
    config: str | None,
    step: float,
    tolerance: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Scale a network in depth, width and resolution.

    Compound scaling multiplies depth by α^φ, width by β^φ and resolution by γ^φ (EfficientNet, Tan & Le, ICML 2019).
    With --grid the command searches for the best α, β and γ on your images. The workspace keeps every network that it
    trains.

    \b
    Examples:
      ofa-deploy scale --phi 1.5 -o mine.yaml
      ofa-deploy scale --grid -c recipe.yaml
    """
    from ofa_deploy.errors import UsageError
    from ofa_deploy.space import Scaling, load_space

    if as_grid != (phi is None) or as_grid != (config is not None):
        raise UsageError("give either --phi, or --grid together with a recipe (-c FILE)")
    if config is not None:
        _grid(workspace, config, step, tolerance, output, as_json)
    elif phi is not None:
        _scale(load_space(base), phi, Scaling(alpha, beta, gamma), output, as_json)


def _scale(base: SearchSpace, phi: float, scaling: Scaling, output: Path | None, as_json: bool) -> None:
    from ofa_deploy.space import compound

    scaled = compound(base, phi, scaling, f"{base.name}_phi{phi:g}")
    counts, before = _counts(scaled), _counts(base)
    ratio, unrounded, published = counts.macs / before.macs, scaling.flops**phi, _published(base, phi, scaling)
    answer = {
        "phi": phi,
        "alpha": scaling.alpha,
        "beta": scaling.beta,
        "gamma": scaling.gamma,
        **vars(counts),
        "macs_ratio": ratio,
        "macs_ratio_unrounded": unrounded,
        "space": scaled.to_json(),
        "published": published and {"space": published.name, **vars(_counts(published))},
    }
    if output is not None:
        _write(scaled, output)
    if as_json:
        emit(answer)
        return
    click.echo(f"{scaled.name}: {_words(counts)}")
    click.echo(
        f"  depth × {scaling.alpha**phi:.4g}, width × {scaling.beta**phi:.4g}, resolution × {scaling.gamma**phi:.4g}; "
        f"MACs × {ratio:.3g} ({unrounded:.3g} without rounding)"
    )
    click.echo(f"  blocks {counts.depths}, channels {counts.widths}")
    if published is not None:
        click.echo(
            f"  the authors rounded their network for this φ differently, preset {published.name}: "
            f"{_words(_counts(published))}"
        )
    if output is not None:
        click.echo(f"wrote {output}; use it in a recipe as space: {output}, or as the base: of elastic:")


@dataclass(frozen=True)
class Counts:
    """The counts of a space's largest network: blocks of each stage, and channels from the stem to the head."""

    params: int
    macs: int
    resolution: int
    depths: list[int]
    widths: list[int]


def _counts(space: SearchSpace) -> Counts:
    from ofa_deploy.space import network_macs, network_params

    network = space.network(space.largest)
    return Counts(
        params=network_params(network),
        macs=network_macs(network),
        resolution=space.largest.resolution,
        depths=list(space.largest.depths),
        widths=[space.stem_width, *(stage.width for stage in space.stages), space.head_width],
    )


def _words(counts: Counts | ScalingPoint) -> str:
    return f"{counts.params:,} parameters, {counts.macs / 1e6:,.0f} M MACs at {counts.resolution} pixels"


def _published(base: SearchSpace, phi: float, scaling: Scaling) -> SearchSpace | None:
    """The published network for a whole φ and the published coefficients, which its authors rounded by hand."""
    from ofa_deploy.space import PRESETS, Scaling

    preset = PRESETS.get(f"efficientnet_b{phi:.0f}") if phi.is_integer() else None
    if preset is None or base != PRESETS["efficientnet_b0"] or scaling != Scaling():
        return None
    return preset


def _write(space: SearchSpace, output: Path) -> None:
    import yaml

    from ofa_deploy.files import write_atomic

    write_atomic(output, yaml.safe_dump(space.to_json(), sort_keys=False, default_flow_style=None).encode())


def _grid(
    workspace: Path | None, config: str, step: float, tolerance: float, output: Path | None, as_json: bool
) -> None:
    from ofa_deploy.config import TrainRecipe, find_file, read_document
    from ofa_deploy.files import write_atomic
    from ofa_deploy.report import render_scaling
    from ofa_deploy.space import grid
    from ofa_deploy.store import Workspace
    from ofa_deploy.training.scaling_grid import search_scaling

    recipe = read_document(TrainRecipe, find_file(config, "pipelines"))
    scalings = grid(step, tolerance)
    folder = Workspace.open(workspace).supernets.parent / "scaling" / recipe.name
    click.echo(f"{len(scalings)} networks to train, {recipe.epochs} epochs each", err=True)
    with progress() as tell:
        points = search_scaling(recipe, scalings, folder, lambda p: tell(f"train network {p['network']}", p))
    html = output or folder / "grid.html"
    write_atomic(html, render_scaling(points, f"Compound scaling of {recipe.name}").encode())
    if as_json:
        emit({"networks": [point.to_json() for point in points], "page": str(html)})
        return
    from ofa_deploy.report.text import accuracy

    for point in points:
        factors = "  ".join(f"{name} {getattr(point, name):<4g}" for name in ("alpha", "beta", "gamma"))
        click.echo(f"{factors}  {accuracy(point.accuracy, point.n):20}  {_words(point)}")
    best = points[0]
    click.echo(f"page: {html}")
    click.echo(f"next: ofa-deploy scale --alpha {best.alpha:g} --beta {best.beta:g} --gamma {best.gamma:g} --phi …")


COMMANDS = (scale,)
