"""`space`: list the search spaces, count their parameters and MACs, and compare them on a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ofa_deploy.cli.options import json_option, option
from ofa_deploy.cli.output import emit
from ofa_deploy.cli.space_choice import compare


@click.group()
def space() -> None:
    """List, show and compare search spaces.

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

    def counts(one: Arch) -> dict[str, Any]:
        network = found.network(one)
        memory = network_memory(network) / 1e6
        return {"params": network_params(network), "macs": network_macs(network), "memory_mb": memory}

    answer: dict[str, Any] = {
        "space": found.name,
        "supernet_params": supernet_params(found),
        "largest": counts(found.largest),
        "smallest": counts(found.smallest),
    }
    if arch:
        one = found.canonical(read_arch(arch))
        answer["arch"] = {"key": one.key, **counts(one)}
    if as_json:
        emit(answer)
        return
    click.echo(f"{found.name}: a supernet of {answer['supernet_params']:,} parameters")
    for part in ("largest", "smallest", "arch"):
        if part in answer:
            params, macs, memory = (answer[part][name] for name in ("params", "macs", "memory_mb"))
            click.echo(
                f"  {part:9} {params:>12,} parameters  {macs / 1e6:>10.2f} M MACs  {memory:>8.2f} MB in memory (fp32)"
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

COMMANDS = (space,)
