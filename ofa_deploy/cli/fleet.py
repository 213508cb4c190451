"""`serve` and `device`: the fleet's server, and the devices that measure for it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ofa_deploy.cli.options import NETWORK, OUTPUT, command, json_option, option
from ofa_deploy.cli.output import emit

if TYPE_CHECKING:
    from ofa_deploy.fleet import Fleet
    from ofa_deploy.fleet.known_devices import KnownDevice
    from ofa_deploy.fleet.schemas import Admission

SERVER_AWAY = "ofa-deploy serve --host 0.0.0.0 --tls-cert FILE --tls-key FILE"

LOOPBACK = ("https://127.", "https://localhost", "https://[::1]")


@command(first=("host", "port", "tls_cert", "tls_key", "insecure", "database"))
@option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    group=NETWORK,
    help="Address to listen on. 0.0.0.0 means every address of this machine.",
)
@option(
    "--port",
    default=8800,
    show_default=True,
    type=click.IntRange(0, 65535),
    group=NETWORK,
    help="Port to listen on. 0 takes a free one.",
)
@option(
    "--database",
    envvar="OFA_DATABASE",
    metavar="URL",
    help="PostgreSQL database, postgresql://…  [default: $OFA_DATABASE, or ofa.db in the workspace]",
)
@option("--tls-cert", type=click.Path(path_type=Path), group=NETWORK, help="TLS certificate (PEM file).")
@option("--tls-key", type=click.Path(path_type=Path), group=NETWORK, help="Private key of the certificate (PEM file).")
@option(
    "--log",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    group=OUTPUT,
    help="Format of the log on standard error.",
)
@option(
    "--lease",
    "lease_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 3600),
    help="Give an agent's work to another one after this many seconds without a heartbeat.",
)
@option(
    "--insecure",
    is_flag=True,
    group=NETWORK,
    help="Accept other machines without TLS. Anyone on the network can then read the tokens.",
)
@json_option
@click.pass_obj
def serve(
    workspace: Path | None,
    host: str,
    port: int,
    database: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    style: Literal["text", "json"],
    lease_s: float,
    insecure: bool,
    as_json: bool,
) -> None:
    """Run the fleet's server until Ctrl-C.

    Devices enrol at the server, fetch work and deliver results. Commands in the same workspace find the server on
    their own. On another machine, set OFA_SERVER and OFA_TOKEN, and OFA_CA_FILE if you use your own certificate.

    Several servers can share a database and a workspace, each on its own port. Commands use the one that started
    first. The page /docs describes the server's API.

    \b
    Examples:
      ofa-deploy serve
      ofa-deploy serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
    """
    from ofa_deploy.fleet.logs import write_logs
    from ofa_deploy.fleet.presence import announced
    from ofa_deploy.fleet.server import create_app
    from ofa_deploy.fleet.serving import check_tls, is_loopback, listen, serve_app, url_of
    from ofa_deploy.fleet.tokens import admin_token
    from ofa_deploy.store import Workspace

    tls = _tls(tls_cert, tls_key)
    if tls:
        check_tls(*tls)
    with listen(host, port) as listening:
        if not (tls or insecure or is_loopback(listening)):
            raise click.UsageError(
                f"other machines can reach {host}: give --tls-cert and --tls-key, or allow it with --insecure"
            )
        with Workspace.open(workspace, database) as opened:
            token, url = admin_token(opened.root), url_of(listening, bool(tls))
            app = create_app(opened.store, token, opened.root / "blobs" / "server", lease_s, opened.root)
            write_logs(style)
            with announced(opened.root, url) as found:
                serve_app(app, listening, tls, lambda: _say_where(url, token, found, as_json))
    click.echo("ofa-deploy: the server has stopped; agents wait until it is back", err=True)


def _tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate and key:
        return certificate, key
    if certificate or key:
        raise click.UsageError("--tls-cert and --tls-key go together: give both")
    return None


def _say_where(url: str, token: str, found: bool, as_json: bool) -> None:
    dashboard = f"{url}/#token={token}"
    if as_json:
        emit({"url": url, "dashboard": dashboard, "found_by_commands": found})
    else:
        click.echo(f"serving     {url}  (API: {url}/docs)")
        click.echo(f"dashboard   {dashboard}")
        click.echo("register a device with: ofa-deploy device register NAME --profile PROFILE")
        if not found:
            click.echo("another server of this workspace is running already; commands here keep using that one")
    sys.stdout.flush()


@click.group()
def device() -> None:
    """Register, list, show or revoke devices.

    \b
    Example:
      ofa-deploy device list
    """


@device.command()
@click.argument("name")
@option("--profile", required=True, help="Kind of device: the name of a profile such as jetson_nano, or a YAML file.")
@option(
    "--simulated",
    "stand_in",
    is_flag=True,
    help="Simulate the device: its agent computes latencies from the profile instead of measuring them.",
)
@json_option
@click.pass_obj
def register(workspace: Path | None, name: str, profile: str, stand_in: bool, as_json: bool) -> None:
    """Register a device, and print the code with which its agent enrols.

    The code is valid once, for one day. For a browser the command prints a link, also as a QR code. If the device is
    registered already, the command changes its profile and prints a new code.

    \b
    Example:
      ofa-deploy device register nano-1 --profile jetson_nano
    """
    from ofa_deploy.config import LOCAL
    from ofa_deploy.fleet.targets import read_profile, simulated

    if name == LOCAL:
        raise click.UsageError(f"{LOCAL} is this machine, which needs no registration: choose another name")
    kind = simulated(read_profile(profile)) if stand_in else read_profile(profile)
    with _fleet(workspace) as fleet:
        answer = fleet.client.register(name, kind.model_dump(mode="json"))
        server, lasts = fleet.client.url if fleet.lasts else "https://HOST:8800", fleet.lasts
    if kind.browser:
        _say_link(answer, server, lasts, as_json)
    else:
        _say_command(answer, server, lasts, as_json)
    if not (lasts or as_json):
        click.echo(f"no server runs for this workspace. First start one that the device can reach: {SERVER_AWAY}")


def _say_command(answer: Admission, server: str, lasts: bool, as_json: bool) -> None:
    command = f"python3 ofa-agent.pyz --server {shlex.quote(server)} --code {answer.code}"
    if as_json:
        emit({**answer.model_dump(), "command": command, "server_runs": lasts})
        return
    until = f"{answer.name} can enrol once, until {answer.expires_at}"
    click.echo(f"{until}. Copy the agent to the device and run there:\n\n  {command}\n")
    click.echo("the agent is one file; make it with: ofa-deploy agent pack -o ofa-agent.pyz")


def _say_link(answer: Admission, server: str, lasts: bool, as_json: bool) -> None:
    """For a browser: a link, also as a QR code if a server answers there."""
    import segno

    link = f"{server}/agent#{answer.code}"
    if as_json:
        emit({**answer.model_dump(), "link": link, "server_runs": lasts})
        return
    click.echo(
        f"{answer.name} can enrol once, until {answer.expires_at}. Open this page there, and keep it open:"
        f"\n\n  {link}\n"
    )
    if lasts:
        segno.make(link, micro=False).terminal(out=sys.stdout, compact=True)
    if not server.startswith("https://") or server.startswith(LOOPBACK):
        click.echo(
            "this link works on this machine only. For another device, start a server that it can reach "
            f"({SERVER_AWAY}), and set OFA_SERVER here to that server's https address and OFA_TOKEN to the "
            "workspace's token"
        )
    click.echo("the server needs ONNX Runtime Web; install it once with: ofa-deploy agent web-assets")


@device.command("list")
@json_option
@click.pass_obj
def list_devices(workspace: Path | None, as_json: bool) -> None:
    """List the devices, with their state and last heartbeat.

    \b
    Example:
      ofa-deploy device list --json
    """
    with _fleet(workspace) as fleet:
        found = fleet.client.devices()
    if as_json:
        emit([one.to_json() for one in found])
        return
    if not found:
        click.echo("there are no devices yet; register one with: ofa-deploy device register NAME --profile PROFILE")
    for one in found:
        click.echo(f"{one.name:24} {_state(one):8} {_profile(one):20} last seen {one.seen_at or 'never'}")


@device.command()
@click.argument("name")
@json_option
@click.pass_obj
def show(workspace: Path | None, name: str, as_json: bool) -> None:
    """Show a device: its facts, tokens and jobs.

    \b
    Example:
      ofa-deploy device show nano-1
    """
    with _fleet(workspace) as fleet:
        found = fleet.client.device(name)
    if as_json:
        emit(found.to_json())
        return
    device = found.device
    click.echo(f"{name}: {_profile(device)}, {_state(device)}, last seen {device.seen_at or 'never'}")
    for key, value in sorted(device.facts.items()):
        click.echo(f"  {key:20} {value}")
    for token in found.tokens:
        click.echo(f"  token of {token.created_at}" + (f", revoked {token.revoked_at}" * bool(token.revoked_at)))
    for job in found.jobs:
        click.echo(f"  job {job.id}  {job.state:10} of {job.created_at}")


@device.command()
@click.argument("name")
@json_option
@click.pass_obj
def revoke(workspace: Path | None, name: str, as_json: bool) -> None:
    """Revoke a device at once.

    Its tokens and codes become invalid, and its jobs end. The workspace keeps what it measured.

    \b
    Example:
      ofa-deploy device revoke nano-1
    """
    with _fleet(workspace) as fleet:
        fleet.client.revoke(name)
        found = fleet.client.device(name)
    if as_json:
        emit(found.to_json())
    else:
        click.echo(f"{name} is revoked; register it again with: ofa-deploy device register {name} --profile PROFILE")


@contextmanager
def _fleet(workspace: Path | None) -> Iterator[Fleet]:
    from ofa_deploy.fleet import Fleet
    from ofa_deploy.store import Workspace

    with Workspace.open(workspace) as opened, Fleet.open(opened) as fleet:
        yield fleet


def _state(device: KnownDevice) -> str:
    return "revoked" if device.revoked_at else "online" if device.online else "away"


def _profile(device: KnownDevice) -> str:
    return str((device.profile or {}).get("name", "no profile"))


COMMANDS = (serve, device)
