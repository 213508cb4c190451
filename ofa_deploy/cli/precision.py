"""`--precision`: in which a target computes. Commands that measure or predict take one, searches several."""

from __future__ import annotations

import click

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

precision_option = click.option("--precision", type=click.Choice(PRECISIONS), help="[default: the target's own]")


def _several(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(value.split(","))) if value else ()
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(PRECISIONS)}", context, option)
    return names


precisions_option = click.option(
    "--precision",
    "precisions",
    metavar="PRECISION[,PRECISION…]",
    callback=_several,
    help=f"{', '.join(PRECISIONS)}; of several the best is taken.  [default: the target's own]",
)
