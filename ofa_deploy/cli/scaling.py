"""`scale`: networks that grow in depth, width and resolution together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.output import emit, progress

if TYPE_CHECKING:
    from ofa_deploy.space import Scaling, SearchSpace


@click.command()
@click.option("--phi", type=float, help="Steps of scaling: any number; 0 is the base.")
@click.option("--base", default="efficientnet_b0", show_default=True, help="Preset or YAML file.")
@click.option("--alpha", type=float, default=1.2, show_default=True, help="Depth grows by α^φ.")
@click.option("--beta", type=float, default=1.1, show_default=True, help="Width grows by β^φ.")
@click.option("--gamma", type=float, default=1.15, show_default=True, help="Resolution grows by γ^φ.")
@click.option("--grid", "as_grid", is_flag=True, help="Search α, β and γ under α·β²·γ² ≈ 2 by training networks.")
@click.option("-c", "--config", help="With --grid: the recipe by which each network is trained.")
@click.option("--step", type=float, default=0.1, show_default=True, help="With --grid: of α, β and γ.")
@click.option("--tolerance", type=float, default=0.05, show_default=True, help="With --grid: how far from 2.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="YAML file; with --grid the page's HTML file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
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
    """Scale a base network: depth by α^φ, width by β^φ, resolution by γ^φ (EfficientNet, Tan & Le, ICML 2019).

    Example: ofa-deploy scale --phi 1.5 -o mine.yaml

    Or look for α, β and γ of your own base and images, where every network that is trained stays in the workspace:
    ofa-deploy scale --grid -c recipe.yaml
    """
    from ofa_deploy.errors import UsageError
    from ofa_deploy.space import Scaling, load_space

    if as_grid != (phi is None) or as_grid != (config is not None):
        raise UsageError("give either --phi, or --grid with the recipe -c FILE")
    if config is not None:
        _grid(workspace, config, step, tolerance, output, as_json)
    elif phi is not None:
        _scale(load_space(base), phi, Scaling(alpha, beta, gamma), output, as_json)


def _scale(base: SearchSpace, phi: float, scaling: Scaling, output: Path | None, as_json: bool) -> None:
    from ofa_deploy.space import compound

    scaled = compound(base, phi, scaling, f"{base.name}_phi{phi:g}")
    counts, before = _counts(scaled), _counts(base)
    answer = {
        "phi": phi,
        "alpha": scaling.alpha,
        "beta": scaling.beta,
        "gamma": scaling.gamma,
        **counts,
        "macs_ratio": counts["macs"] / before["macs"],
        "macs_ratio_unrounded": scaling.flops**phi,
        "space": scaled.to_json(),
        "published": _published(base, phi, scaling),
    }
    if output is not None:
        _write(scaled, output)
    if as_json:
        emit(answer)
        return
    click.echo(f"{scaled.name}: {_words(counts)}")
    click.echo(
        f"  depth × {scaling.alpha**phi:.4g}, width × {scaling.beta**phi:.4g}, resolution × {scaling.gamma**phi:.4g}; "
        f"MACs × {answer['macs_ratio']:.3g} ({answer['macs_ratio_unrounded']:.3g} without rounding)"
    )
    click.echo(f"  blocks {counts['depths']}, channels {counts['widths']}")
    if answer["published"] is not None:
        name, published = answer["published"]["space"], answer["published"]
        click.echo(f"  the network published for this φ has factors of its own, preset {name}: {_words(published)}")
    if output is not None:
        click.echo(f"{output}: written; next: space: {output} in a recipe, or elastic: over base: {output}")


def _counts(space: SearchSpace) -> dict[str, Any]:
    """Of its largest network."""
    from ofa_deploy.space import network_macs, network_params

    network = space.network(space.largest)
    return {
        "params": network_params(network),
        "macs": network_macs(network),
        "resolution": space.largest.resolution,
        "depths": list(space.largest.depths),
        "widths": [space.stem_width, *(stage.width for stage in space.stages), space.head_width],
    }


def _words(counts: dict[str, Any]) -> str:
    return f"{counts['params']:,} parameters, {counts['macs'] / 1e6:,.0f} M MACs at {counts['resolution']} pixels"


def _published(base: SearchSpace, phi: float, scaling: Scaling) -> dict[str, Any] | None:
    """The preset for whole steps of the published base and coefficients, whose authors rounded by hand."""
    from ofa_deploy.space import PRESETS, Scaling

    preset = PRESETS.get(f"efficientnet_b{phi:.0f}") if phi.is_integer() else None
    if preset is None or base != PRESETS["efficientnet_b0"] or scaling != Scaling():
        return None
    return {"space": preset.name, **_counts(preset)}


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
        emit({"networks": points, "page": str(html)})
        return
    for point in points:
        factors = "  ".join(f"{name} {point[name]:<4g}" for name in ("alpha", "beta", "gamma"))
        click.echo(f"{factors}  {100 * point['accuracy']:6.2f} %  {_words(point)}")
    best = points[0]
    click.echo(f"{html}: the plot")
    click.echo(
        f"next: ofa-deploy scale --alpha {best['alpha']:g} --beta {best['beta']:g} --gamma {best['gamma']:g} --phi …"
    )


COMMANDS = (scale,)
