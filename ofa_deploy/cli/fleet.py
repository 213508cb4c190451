"""`serve` and `device`: the fleet's server, and who may measure for it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ofa_deploy.cli.output import emit

if TYPE_CHECKING:
    from ofa_deploy.fleet import Fleet

AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
SERVER_AWAY = "ofa-deploy serve --host 0.0.0.0 --tls-cert FILE --tls-key FILE"

LOOPBACK = ("https://127.", "https://localhost", "https://[::1]")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8800, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--database", envvar="OFA_DATABASE", help="postgresql://…  [default: ofa.db in the workspace]")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key (PEM).")
@click.option(
    "--log",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How events are written to stderr.",
)
@click.option(
    "--lease",
    "lease_s",
    default=60.0,
    show_default=True,
    type=click.FloatRange(1, 3600),
    help="Seconds without a sign of life after which an agent's work is given out again.",
)
@click.option("--insecure", is_flag=True, help="Let other machines in without TLS: tokens can be overheard.")
@AS_JSON
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
    """Serve the fleet: devices enrol here, take work and bring results.  Ctrl-C ends it.

    Commands of the same workspace find the server by themselves; elsewhere set OFA_SERVER and OFA_TOKEN, and
    OFA_CA_FILE for a certificate of your own. Several servers may share a database and a workspace folder, each on a
    port of its own; commands find the one that was started first. The description of the API is at /docs.

    Example: ofa-deploy serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
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
            raise click.UsageError(f"{host} can be reached by others: give --tls-cert and --tls-key, or --insecure")
        with Workspace.open(workspace, database) as opened:
            token, url = admin_token(opened.root), url_of(listening, bool(tls))
            app = create_app(opened.store, token, opened.root / "blobs" / "server", lease_s, opened.root)
            write_logs(style)
            with announced(opened.root, url) as found:
                serve_app(app, listening, tls, lambda: _say_where(url, token, found, as_json))
    click.echo("ofa-deploy: the server ended; agents wait for it to come back", err=True)


def _tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate and key:
        return certificate, key
    if certificate or key:
        raise click.UsageError("--tls-cert and --tls-key belong together: give both")
    return None


def _say_where(url: str, token: str, found: bool, as_json: bool) -> None:
    dashboard = f"{url}/#token={token}"
    if as_json:
        emit({"url": url, "dashboard": dashboard, "found_by_commands": found})
    else:
        click.echo(f"serving     {url}  (API: {url}/docs)")
        click.echo(f"dashboard   {dashboard}")
        click.echo("let a device in with: ofa-deploy device register NAME --profile PROFILE")
        if not found:
            click.echo("another server of this workspace runs already; commands here go on finding that one")
    sys.stdout.flush()


@click.group()
def device() -> None:
    """Devices: which may measure, and how they are."""


@device.command()
@click.argument("name")
@click.option("--profile", required=True, help="What it is: a profile's name, or a YAML file.")
@click.option("--simulated", "stand_in", is_flag=True, help="Its agent makes latencies up from the profile's figures.")
@AS_JSON
@click.pass_obj
def register(workspace: Path | None, name: str, profile: str, stand_in: bool, as_json: bool) -> None:
    """Let a device in: prints a code that its agent trades for a token, once, within a day.

    For a device that is in already: changes its profile, and gives another code. With the profile of a browser, it is a
    link to open there, also as a QR code.

    Example: ofa-deploy device register nano-1 --profile jetson_nano
    """
    from ofa_deploy.config import LOCAL
    from ofa_deploy.fleet.targets import read_profile, simulated

    if name == LOCAL:
        raise click.UsageError(f"{LOCAL} is this machine, which needs no registration; choose another name")
    kind = simulated(read_profile(profile)) if stand_in else read_profile(profile)
    with _fleet(workspace) as fleet:
        answer: dict[str, Any] = fleet.client.register(name, kind.model_dump(mode="json"))
        server, lasts = fleet.client.url if fleet.lasts else "https://HOST:8800", fleet.lasts
    if kind.browser:
        _say_link(answer, server, lasts, as_json)
    else:
        _say_command(answer, server, lasts, as_json)
    if not (lasts or as_json):
        click.echo(f"no server runs for this workspace: start one first, where the device can reach it: {SERVER_AWAY}")


def _say_command(answer: dict[str, Any], server: str, lasts: bool, as_json: bool) -> None:
    command = f"python3 ofa-agent.pyz --server {shlex.quote(server)} --code {answer['code']}"
    if as_json:
        emit({**answer, "command": command, "server_runs": lasts})
        return
    until = f"{answer['name']} may enrol until {answer['expires_at']}, once"
    click.echo(f"{until}. Copy the agent there and run:\n\n  {command}\n")
    click.echo("the agent is one file, which this makes: ofa-deploy agent pack -o ofa-agent.pyz")


def _say_link(answer: dict[str, Any], server: str, lasts: bool, as_json: bool) -> None:
    """For a browser: a link, and the same as a QR code where it leads somewhere."""
    import segno

    link = f"{server}/agent#{answer['code']}"
    if as_json:
        emit({**answer, "link": link, "server_runs": lasts})
        return
    click.echo(
        f"{answer['name']} may enrol until {answer['expires_at']}, once. Open there, and leave open:\n\n  {link}\n"
    )
    if lasts:
        segno.make(link, micro=False).terminal(out=sys.stdout, compact=True)
    if not server.startswith("https://") or server.startswith(LOOPBACK):
        click.echo(
            "another device reaches it by https and a name that is not this machine's loopback: serve so "
            f"({SERVER_AWAY}), and put that address in OFA_SERVER here and the workspace's token in OFA_TOKEN, so that "
            "the link has it"
        )
    click.echo("the server needs ONNX Runtime Web, once: ofa-deploy agent web-assets")


@device.command("list")
@AS_JSON
@click.pass_obj
def list_devices(workspace: Path | None, as_json: bool) -> None:
    """Print the devices and when they were last heard of.  Example: ofa-deploy device list --json"""
    with _fleet(workspace) as fleet:
        found = fleet.client.devices()
    if as_json:
        emit(found)
        return
    if not found:
        click.echo("no devices yet; let one in with: ofa-deploy device register NAME --profile PROFILE")
    for one in found:
        click.echo(f"{one['name']:24} {_state(one):8} {_profile(one):20} last seen {one['seen_at'] or 'never'}")


@device.command()
@click.argument("name")
@AS_JSON
@click.pass_obj
def show(workspace: Path | None, name: str, as_json: bool) -> None:
    """Print what is known of a device: facts, last seen, tokens, jobs.  Example: ofa-deploy device show nano-1"""
    with _fleet(workspace) as fleet:
        found = fleet.client.device(name)
    if as_json:
        emit(found)
        return
    click.echo(f"{name}: {_profile(found)}, {_state(found)}, last seen {found['seen_at'] or 'never'}")
    for key, value in sorted(found["facts"].items()):
        click.echo(f"  {key:20} {value}")
    for token in found["tokens"]:
        click.echo(
            f"  token of {token['created_at']}" + (f", revoked {token['revoked_at']}" * bool(token["revoked_at"]))
        )
    for job in found["jobs"]:
        click.echo(f"  job {job['id']}  {job['state']:10} of {job['created_at']}")


@device.command()
@click.argument("name")
@AS_JSON
@click.pass_obj
def revoke(workspace: Path | None, name: str, as_json: bool) -> None:
    """Shut a device out at once: its tokens, codes and jobs end; what it measured stays.

    Example: ofa-deploy device revoke nano-1
    """
    with _fleet(workspace) as fleet:
        fleet.client.revoke(name)
        found = fleet.client.device(name)
    if as_json:
        emit(found)
    else:
        click.echo(f"{name} is shut out; let it in again with: ofa-deploy device register {name} --profile PROFILE")


@contextmanager
def _fleet(workspace: Path | None) -> Iterator[Fleet]:
    from ofa_deploy.fleet import Fleet
    from ofa_deploy.store import Workspace

    with Workspace.open(workspace) as opened, Fleet.open(opened) as fleet:
        yield fleet


def _state(found: dict[str, Any]) -> str:
    return "revoked" if found["revoked_at"] else "online" if found["online"] else "away"


def _profile(found: dict[str, Any]) -> str:
    return (found["profile"] or {}).get("name", "no profile")


COMMANDS = (serve, device)
