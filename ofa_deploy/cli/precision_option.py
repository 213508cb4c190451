"""`--precision`: the number format of a network. Commands that measure or predict take one, searches take several."""

from __future__ import annotations

import click

from ofa_deploy.cli.options import BUDGET, option

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

precision_option = option(
    "--precision",
    type=click.Choice(PRECISIONS),
    group=BUDGET,
    help="Number format.  [default: the one in the target's profile]",
)


def _several(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(value.split(","))) if value else ()
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PRECISIONS)}", context, option)
    return names


precisions_option = option(
    "--precision",
    "precisions",
    metavar="PRECISION[,PRECISION…]",
    callback=_several,
    group=BUDGET,
    help=f"{', '.join(PRECISIONS)}, or several: the best network wins.  [default: the one in the target's profile]",
)
