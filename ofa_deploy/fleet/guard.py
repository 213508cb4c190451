"""What every request meets first: the bearer token, and a limit on its body."""

from __future__ import annotations

import hmac

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PUBLIC = frozenset({"/", "/healthz", "/docs", "/openapi.json"})  # they hold no data
PUBLIC_FILES = ("/dashboard/",)
JSON_BYTES = 64 * 2**20
BLOB_BYTES = 2**30


class Guard:
    """ASGI middleware. A request without the token is answered with 401 before anything of it is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app = app
        self.expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an authorised request on, with its body limited."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        limit = BLOB_BYTES if scope["path"].startswith("/api/blobs/") else JSON_BYTES
        public = scope["path"] in PUBLIC or scope["path"].startswith(PUBLIC_FILES)
        if not public and not hmac.compare_digest(headers.get(b"authorization", b""), self.expected):
            refusal = JSONResponse({"detail": "a valid bearer token is needed"}, 401, {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
        elif _announced(headers) > limit:
            await JSONResponse({"detail": f"the body is larger than {limit} bytes"}, 413)(scope, receive, send)
        else:
            await self.app(scope, _limited(receive, limit), send)


def _announced(headers: dict[bytes, bytes]) -> int:
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() else 0


def _limited(receive: Receive, limit: int) -> Receive:
    left = limit

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"the body is larger than {limit} bytes")
        return message

    return counted
