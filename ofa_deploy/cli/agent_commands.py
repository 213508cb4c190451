"""`agent`: the program that measures on a device, as one file or in a browser."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import click

from ofa_deploy.cli.options import json_option, option, output_option
from ofa_deploy.cli.output import emit


@click.group()
def agent() -> None:
    """Pack, run or serve the agent, the program that measures on a device.

    \b
    Example:
      ofa-deploy agent pack
    """


@agent.command()
@output_option(
    "File to write.", type=click.Path(path_type=Path, dir_okay=False), default="ofa-agent.pyz", show_default=True
)
@json_option
def pack(output: Path, as_json: bool) -> None:
    """Write the agent as one file that you copy to a device.

    The device needs Python 3.6 or newer, and one of the runtimes that the agent measures with.

    \b
    Example:
      ofa-deploy agent pack
      scp ofa-agent.pyz phone:
      ssh phone python3 ofa-agent.pyz --server URL --code CODE
    """
    from device_agents import VERSION
    from ofa_deploy.fleet.agent_archive import pack_agent

    packed = pack_agent(output)
    answer = {"file": str(output), "bytes": len(packed), "sha256": hashlib.sha256(packed).hexdigest()}
    if as_json:
        emit({**answer, "version": VERSION})
    else:
        click.echo(f"{output}: {len(packed) / 1000:.0f} kB; on the device: python3 {output.name} --help")


@agent.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(arguments: tuple[str, ...]) -> None:
    """Run an agent on this machine; --help lists its options.

    \b
    Example:
      ofa-deploy agent run --server http://127.0.0.1:8800 --code CODE
    """
    from device_agents.__main__ import main

    sys.exit(main(list(arguments), "ofa-deploy agent run"))


@agent.command("web-assets")
@option(
    "--from",
    "archive",
    metavar="FILE.tgz",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Package file from npm's registry, for a machine without network.",
)
@json_option
@click.pass_obj
def web_assets(workspace: Path | None, archive: Path | None, as_json: bool) -> None:
    """Install ONNX Runtime Web into the workspace, from npm.

    The browser agent, a web page, measures with it.

    \b
    Example:
      ofa-deploy agent web-assets
      ofa-deploy device register phone-1 --profile browser
    """
    from ofa_deploy.fleet.web_assets import install, locked
    from ofa_deploy.store import Workspace

    with Workspace.open(workspace) as opened:
        files = install(opened.root, archive)
    version = locked().version
    if as_json:
        emit({"version": version, "files": [{"file": str(path), "bytes": path.stat().st_size} for path in files]})
    else:
        click.echo(f"ONNX Runtime Web {version} is in {files[0].parent}; `ofa-deploy serve` delivers it to browsers")


COMMANDS = [agent]
