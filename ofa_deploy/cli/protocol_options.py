"""`--se` and `--cap-s`: how precisely and how long a device measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ofa_deploy.cli.options import MEASURING, gathered, option

if TYPE_CHECKING:
    from ofa_deploy.fleet import Protocol

OPTIONS = (
    option(
        "--se",
        default=0.01,
        show_default=True,
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        group=MEASURING,
        help="Measure each item until its relative standard error is this small.",
    ),
    option(
        "--cap-s",
        default=120.0,
        show_default=True,
        type=click.FloatRange(0, 86400, min_open=True),
        group=MEASURING,
        help="Stop measuring an item after this many seconds in any case.",
    ),
)


def _protocol(values: dict[str, Any]) -> Protocol:
    from ofa_deploy.fleet import Protocol

    return Protocol.model_validate(values)


# the command's argument ``protocol``: a ``Protocol``
protocol_options = gathered("protocol", OPTIONS, _protocol)
