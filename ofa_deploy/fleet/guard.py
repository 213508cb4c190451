"""What every request meets first: whose token it bears, and limits on its body, before anything of it is read.

And what every answer passes last: nobody but who asked may keep it.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ofa_deploy.fleet.tokens import Bearer, Role, who
from ofa_deploy.store import Store

PUBLIC = frozenset({"/", "/healthz", "/docs", "/openapi.json", "/api/enroll", "/agent"})
PUBLIC_FILES = ("/dashboard/", "/docs/", "/agent/")
JSON_BYTES = 256 * 2**10
RESULT_BYTES = 32 * 2**20  # 600 items, each with thousands of timings
JOB_BYTES = 64 * 2**20
BLOB_BYTES = 512 * 2**20
BODY_S = 60.0  # for a body to arrive
BLOB_S = 900.0


def roles(method: str, path: str) -> frozenset[Role]:
    """Who may ask for something; whatever is not named here is the admin's."""
    if path == "/api/claim" or path.startswith("/api/runs/"):
        return frozenset({"device"})
    if path.startswith("/api/blobs/") and method in ("GET", "HEAD"):
        return frozenset({"admin", "device"})
    return frozenset({"admin"})


def limits(path: str) -> tuple[int, float]:
    """The largest body in bytes, and the seconds that it may take to arrive."""
    if path.startswith("/api/blobs/"):
        return BLOB_BYTES, BLOB_S
    if path == "/api/jobs":
        return JOB_BYTES, BODY_S
    return (RESULT_BYTES if path.startswith("/api/runs/") and path.endswith("/result") else JSON_BYTES), BODY_S


class Guard:
    """ASGI middleware: 401 without a token, 403 with one that is not enough, 413, 415 and 408 for bodies.

    Handlers find the ``Bearer`` in ``request.state.bearer``.
    """

    def __init__(self, app: ASGIApp, store: Store, token: str) -> None:
        self.app, self.store, self.token = app, store, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an authorised request on, with its body limited."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, path = dict(scope["headers"]), scope["path"]
        send = _private(send, path)
        bearer = None
        if path not in PUBLIC and not path.startswith(PUBLIC_FILES):
            header = headers.get(b"authorization", b"")
            bearer = await asyncio.to_thread(who, self.store, header, self.token) if header else None
            if bearer is None or bearer.role not in roles(scope["method"], path):
                await _refusal(bearer)(scope, receive, send)
                return
        most, seconds = limits(path)
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            await JSONResponse({"detail": "bodies are taken as they are, not compressed"}, 415)(scope, receive, send)
        elif _announced(headers) > most:
            await JSONResponse({"detail": f"the body is larger than {most} bytes"}, 413)(scope, receive, send)
        else:
            scope.setdefault("state", {})["bearer"] = bearer
            await self.app(scope, _limited(receive, most, seconds), send)


def _private(send: Send, path: str) -> Send:
    """No cache keeps an answer of the API, and no browser guesses its type. Pages say for themselves what is kept."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            if path.startswith("/api/"):
                headers["Cache-Control"] = "no-store"
            else:
                headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return answer


def _refusal(bearer: Bearer | None) -> JSONResponse:
    if bearer is None:
        return JSONResponse({"detail": "a valid bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
    needed = "a device's token" if bearer.role == "admin" else "the admin's token"
    return JSONResponse({"detail": f"this needs {needed}, not {bearer.device or 'the admin'}'s"}, 403)


def _announced(headers: dict[bytes, bytes]) -> int:
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() and len(text) < 20 else 0


def _limited(receive: Receive, most: int, seconds: float) -> Receive:
    left, end, more = most, asyncio.get_running_loop().time() + seconds, True

    async def counted() -> Message:
        nonlocal left, more
        if not more:  # it is here; what is waited for now is the connection's end
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"the body took longer than {seconds:g} s", {"Connection": "close"}) from None
        left -= len(message.get("body", b""))
        more = message.get("more_body", False)
        if left < 0:
            raise HTTPException(413, f"the body is larger than {most} bytes")
        return message

    return counted
