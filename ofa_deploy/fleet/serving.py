"""Running the server: its socket, its patience, its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from ofa_deploy.errors import OfaDeployError, UsageError

HEADERS_S = 10.0  # for a request's headers to arrive
CONNECTIONS = 2000  # at once; more are answered with 503
STOP_S = 5.0  # until a server inside has ended
GRACE_S = 3  # for requests in progress when the server ends


Ends = tuple[tuple[object, ...], ...]  # of a connection: the address here and the one there


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose next request's headers do not arrive in time.

    It learns from ``Attended`` when a request is answered, not from what uvicorn's protocol keeps to itself.
    """

    open: ClassVar[dict[Ends, PatientProtocol]] = {}
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A client is there."""
        super().connection_made(transport)
        self._watched = transport
        self._ends = tuple(tuple((transport.get_extra_info(end) or ())[:2]) for end in ("sockname", "peername"))
        self.open[self._ends] = self
        self.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or waited for in vain.

        A process that was forked meanwhile, such as a loader of images, holds the socket open: the client has to be
        told of the end, or it sends its next request to nobody.
        """
        with contextlib.suppress(OSError):
            self._watched.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self.stop_waiting()
        self.open.pop(self._ends, None)
        super().connection_lost(exc)

    def wait(self) -> None:
        """From now on the next request may come, but not too late."""
        if self._timer is None and not self._watched.is_closing():
            self._timer = asyncio.get_running_loop().call_later(HEADERS_S, self._watched.close)

    def stop_waiting(self) -> None:
        """A request is here."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Attended:
    """ASGI middleware: tells a request's connection when it is answered, and when it is waited for the next one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        ends = tuple(tuple(scope.get(end) or ()) for end in ("server", "client"))
        connection = PatientProtocol.open.get(ends)
        if connection:
            connection.stop_waiting()
        try:
            await self.app(scope, receive, send)
        finally:
            if connection:
                connection.wait()


class Server(uvicorn.Server):
    """A server that sends waiting agents home when it ends, and for which a signal to end is no failure."""

    def __init__(
        self, app: FastAPI, tls: tuple[Path, Path] | None = None, started: Callable[[], None] = lambda: None
    ) -> None:
        self._app, self._tell = app, started
        super().__init__(
            uvicorn.Config(
                Attended(app),
                http=PatientProtocol,
                ws="none",
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=tls[0] if tls else None,
                ssl_keyfile=tls[1] if tls else None,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and tell of it: from now on a signal ends it in an orderly way."""
        await super().startup(sockets)
        self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: no new connections, waiting agents are answered, and the others get their time."""
        self._app.state.bells.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at SIGINT and SIGTERM, where this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def serve_app(
    app: FastAPI, listening: socket.socket, tls: tuple[Path, Path] | None, started: Callable[[], None]
) -> None:
    """Serve until SIGINT or SIGTERM; ``started`` is called when the server answers."""
    Server(app, tls, started).run([listening])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: there is no such host.
        OfaDeployError: the port is taken, or not to be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server((address[0], port), family=family, backlog=1024)
        answer_at_once(listening)
        return listening
    except socket.gaierror as error:
        raise UsageError(f"cannot listen on {host!r}: {error.strerror}") from error
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = f"it is taken; choose another with --port, e.g. --port {port + 1}" if taken else error.strerror
        raise OfaDeployError(f"cannot listen on port {port} of {host}: {why}") from error


def answer_at_once(listening: socket.socket) -> None:
    """Send what is written on its connections without waiting for more; asyncio sees to that for its own sockets only.

    Without it an answer in two parts takes 40 ms, until the client acknowledges the first.
    """
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def check_tls(certificate: Path, key: Path) -> None:
    """Whether a certificate and its key can be used.

    Raises:
        UsageError: they cannot.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use {certificate} with {key}: {error.strerror or error}") from error


def url_of(listening: socket.socket, tls: bool) -> str:
    """How to reach it from this machine."""
    host, port = listening.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
    name = f"[{address}]" if address.version == 6 else str(address)
    return f"{'https' if tls else 'http'}://{name}:{port}"


class LocalServer:
    """The fleet server in a thread of this process, on a loopback port: 0 takes a free one."""

    def __init__(self, app: FastAPI, port: int = 0) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        answer_at_once(self._socket)
        self._socket.bind(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = Server(app)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        self._wait_until_started()

    def _wait_until_started(self) -> None:
        end = time.monotonic() + 30
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise OfaDeployError("the server inside did not start; is another firewall or sandbox in the way?")
            time.sleep(0.01)

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(STOP_S)
        self._socket.close()
