"""`space`: list the search spaces, count their parameters and MACs, compare them on a device, and compose one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ofa_deploy.cli.options import json_option, option
from ofa_deploy.cli.output import emit
from ofa_deploy.cli.space_choice import compare, suggest


@dataclass(frozen=True)
class Sizes:
    """A network's counts; memory is that of fp32 at batch size 1."""

    params: int
    macs: int
    memory_mb: float


@click.group()
def space() -> None:
    """List, show, compare and compose search spaces.

    \b
    Example:
      ofa-deploy space list
    """


@space.command("list")
def list_spaces() -> None:
    """List the presets.

    \b
    Example:
      ofa-deploy space list
    """
    from ofa_deploy.space import PRESETS

    for name in PRESETS:
        click.echo(name)


@space.command()
@click.argument("name")
@option("--arch", type=click.Path(path_type=Path), help="Also count the subnet in this JSON file.")
@json_option
def show(name: str, arch: Path | None, as_json: bool) -> None:
    """Show a space's parameters, MACs and memory.

    NAME is a preset or a YAML file. Memory is that of fp32 at batch size 1.

    \b
    Example:
      ofa-deploy space show ofa_mbv3_w1.0 --json
    """
    from ofa_deploy.space import Arch, load_space, network_macs, network_memory, network_params, supernet_params

    found = load_space(name)

    archs: dict[str, Arch] = {"largest": found.largest, "smallest": found.smallest}
    if arch:
        archs["arch"] = found.canonical(read_arch(arch))
    networks = {part: found.network(one) for part, one in archs.items()}
    sizes = {
        part: Sizes(network_params(network), network_macs(network), network_memory(network) / 1e6)
        for part, network in networks.items()
    }
    params = supernet_params(found)
    if as_json:
        keys = {part: {"key": archs[part].key} if part == "arch" else {} for part in archs}
        counted = {part: {**keys[part], **vars(one)} for part, one in sizes.items()}
        emit({"space": found.name, "supernet_params": params, **counted})
        return
    click.echo(f"{found.name}: a supernet of {params:,} parameters")
    for part, one in sizes.items():
        click.echo(
            f"  {part:9} {one.params:>12,} parameters  {one.macs / 1e6:>10.2f} M MACs  {one.memory_mb:>8.2f} MB in "
            "memory (fp32)"
        )


def read_arch(path: Path) -> dict[str, Any]:
    """Read a subnet's JSON file.

    Raises:
        UsageError: the file is missing or holds no JSON object.
    """
    from ofa_deploy.errors import UsageError

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON (truncated?): {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path}: the file must hold a JSON object")
    return data


space.add_command(compare)
space.add_command(suggest)

COMMANDS = (space,)
