"""Watches every request: how long it took, how it ended, and what it did, for the log and the metrics."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ofa_deploy.fleet.metrics import Metrics

log = logging.getLogger(__name__)
logging.getLogger("ofa_deploy").addHandler(logging.NullHandler())  # silent, unless somebody asks to hear it
_happened: ContextVar[dict[str, str] | None] = ContextVar("happened", default=None)


def note(event: str, **fields: str) -> None:
    """Say what the request being handled did: ``note("claimed", device="nano-1", run="…")``.

    It is logged when the request ends; see ``logs.FIELDS`` for the fields. Outside of a request nothing happens.
    """
    happened = _happened.get()
    if happened is not None:
        happened.update(fields, event=event)


class Watch:
    """ASGI middleware, to be added last, so that it sees what the others refuse."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and account for it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        happened, status, start = dict[str, str](), 500, time.perf_counter()
        _happened.set(happened)

        async def answer(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            self._account(scope, status, time.perf_counter() - start, happened)

    def _account(self, scope: Scope, status: int, seconds: float, happened: dict[str, str]) -> None:
        route = getattr(scope.get("route"), "path", None)  # never the path: it is whatever somebody asked for
        event = happened.pop("event", None)
        self.metrics.observe(scope["method"], route or "none", status, seconds, event)
        if event is None and status < 400:
            return
        request = {"method": scope["method"], "route": route, "status": status, "duration_ms": round(1000 * seconds, 1)}
        level = logging.ERROR if status >= 500 else logging.WARNING if status >= 400 else logging.INFO
        run = scope.get("path_params", {}).get("run")
        log.log(level, event or "refused", extra={"run": run and str(run)[:100], **request, **happened})
