"""The command line: one file for each group of commands, no logic. An error becomes one line and an exit code.

No heavy module is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

import ofa_deploy
from ofa_deploy.cli import (
    agent_commands,
    archs,
    baseline_command,
    darts_commands,
    deploying,
    finetune_command,
    fleet,
    fronts,
    import_commands,
    measure_commands,
    pipelines,
    predictors,
    scale_command,
    search_commands,
    spaces,
    table_commands,
    training,
)
from ofa_deploy.errors import OfaDeployError


class Sections(click.Group):
    """The commands of the program, listed under headings."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list for each heading."""
        width = max(map(len, self.commands))
        for title, modules in SECTIONS.items():
            rows = [(c.name or "", c.get_short_help_str(100)) for m in modules for c in m.COMMANDS]
            with formatter.section(title):
                formatter.write_dl([(f"{name:{width}}", text) for name, text in rows])


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(ofa_deploy.__version__, prog_name="ofa-deploy")
@click.option(
    "--workspace",
    type=click.Path(path_type=Path),
    envvar="OFA_WORKSPACE",
    help="Folder with everything that the program keeps.  [default: $OFA_WORKSPACE, or .ofa in this folder]",
)
@click.pass_context
def cli(context: click.Context, workspace: Path | None) -> None:
    """Train one supernet, measure your devices, and ship each device the most accurate subnet that meets its latency
    budget.

    \b
    Examples:
      ofa-deploy quickstart                         see the whole walk, small
      ofa-deploy profile --target local             measure this machine
      ofa-deploy extract --target local --max-ms 2  extract a subnet for it
      ofa-deploy extract --help                     explain a command
    """
    context.obj = workspace


SECTIONS = {
    "Pipelines": (pipelines,),
    "Train a supernet": (training, predictors),
    "Measure devices": (measure_commands, table_commands, fleet, agent_commands),
    "Search and extract": (deploying, finetune_command, search_commands, fronts, baseline_command, archs),
    "Search spaces": (spaces, scale_command, darts_commands, import_commands),
}
for group in (module for modules in SECTIONS.values() for module in modules):
    for command in group.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Entry point: run a command and exit with its documented code."""
    ofa_deploy.settle_threads()
    try:
        cli(prog_name="ofa-deploy", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = 2
    except click.Abort:
        click.echo("ofa-deploy: interrupted; finished work is kept", err=True)
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
