"""The command line: one file per group of commands, no logic; errors become one line and an exit code.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

import ofa_deploy
from ofa_deploy.cli import (
    agents,
    archs,
    darts,
    deploying,
    finetuning,
    fleet,
    fronts,
    importing,
    measuring,
    pipelines,
    predictors,
    scaling,
    searching,
    spaces,
    tables,
    training,
)
from ofa_deploy.errors import OfaDeployError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(ofa_deploy.__version__, prog_name="ofa-deploy")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    envvar="OFA_WORKSPACE",
    help="Folder that remembers everything.  [default: .ofa here, or $OFA_WORKSPACE]",
)
@click.pass_context
def cli(context: click.Context, workspace: Path | None) -> None:
    """Train one supernet, measure real devices, ship each the subnet that fits its latency budget.

    \b
    First steps:
      ofa-deploy quickstart                                      the whole walk, small, on this machine
      ofa-deploy train-supernet -c pipelines/fashion_mnist.yaml  a real supernet
      ofa-deploy profile --target local                          measure this machine
      ofa-deploy extract --target local --max-ms 2               the most accurate subnet that fits
    """
    context.obj = workspace


GROUPS = (
    pipelines,
    training,
    predictors,
    measuring,
    deploying,
    finetuning,
    searching,
    fronts,
    archs,
    fleet,
    agents,
    tables,
    importing,
    spaces,
    scaling,
    darts,
)
for group in GROUPS:
    for command in group.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Entry point: run a command and exit with its documented code."""
    # read when torch is loaded: OpenMP threads that wait for each other by spinning for long starve as soon as another
    # process wants a core; training then all but stops
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    # likewise: a lost connection is one line of ours; torch's own adds a page of stack frames
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        click.echo("ofa-deploy: interrupted; what was done is kept", err=True)
        code = 130
    except OfaDeployError as error:
        code = _say(error, error.exit_code)
    except OSError as error:  # a full disk or a lost permission, wherever it happens
        code = _say(f"{error.strerror or error}: {error.filename or 'input/output'}", 1)
    else:
        code = 0
    sys.exit(code)


def _say(error: object, code: int) -> int:
    click.echo(f"ofa-deploy: error: {' '.join(str(error).split())}", err=True)
    return code
