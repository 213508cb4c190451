"""The fleet server: gives work to the agents that ask for it, and takes results. It never connects to a device."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, OperationalError, TimeoutError
from starlette.routing import Match

from ofa_deploy import __version__
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.fleet.blobs import Blobs
from ofa_deploy.fleet.bodies import LargeBodyRoute, clean, refusal
from ofa_deploy.fleet.guard import Guard
from ofa_deploy.fleet.metrics import Metrics
from ofa_deploy.fleet.pages import add_pages
from ofa_deploy.fleet.routes_agents import add_agent_routes
from ofa_deploy.fleet.routes_devices import add_device_routes
from ofa_deploy.fleet.routes_jobs import add_job_routes
from ofa_deploy.fleet.schemas import Problem
from ofa_deploy.fleet.service import Conflict, Forbidden, Missing, Service, Unauthorized
from ofa_deploy.fleet.watch import Watch, note
from ofa_deploy.fleet.web_agent import add_web_agent
from ofa_deploy.store import StaleRun, Store

LEASE_S = 60.0  # an agent says every second or so that it lives
REFUSALS = {
    400: "The body is not JSON.",
    401: "There is no token, or a wrong or a revoked one.",
    403: "The token is not enough for this.",
    404: "There is no such thing.",
    405: "There is no such method here.",
    408: "The body took too long to arrive.",
    409: "The request does not fit to what the server has; a run that is not the agent's any more.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "The request makes no sense.",
    503: "The database cannot do this now.",
}


def create_app(
    store: Store, token: str, blobs: Path, lease_s: float = LEASE_S, workspace: Path | None = None
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        token: the admin's.
        blobs: folder for model files while jobs need them.
        lease_s: a run that is not heard of for so long is given to the next agent.
        workspace: whose audits and bundles the dashboard shows, and whose ONNX Runtime Web the browser agent gets.
    """
    service = Service(store, Blobs(blobs), lease_s)
    app = FastAPI(
        title="ofa-deploy fleet",
        version=__version__,
        lifespan=_lifespan(service),
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own page needs the internet; ``add_pages`` has one that does not
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses={status: {"description": text, "model": Problem} for status, text in REFUSALS.items()},
    )
    app.state.bells = service.bells
    metrics = Metrics(store)
    app.state.metrics = metrics
    app.add_middleware(Guard, store=store, token=token)
    app.add_middleware(Watch, metrics=metrics)
    app.router.route_class = LargeBodyRoute
    _answer_errors(app)
    add_job_routes(app, service)
    add_agent_routes(app, service)
    add_device_routes(app, service)
    add_pages(app, store, metrics, workspace)
    add_web_agent(app, workspace)
    return app


def _lifespan(service: Service) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.sweep)
        polling = asyncio.create_task(service.bells.poll())
        yield
        polling.cancel()

    return running


def _answer_errors(app: FastAPI) -> None:
    statuses = {StaleRun: 409, Conflict: 409, Missing: 404, Forbidden: 403, Unauthorized: 401, UsageError: 422}
    for kind, status in {**statuses, OfaDeployError: 500}.items():
        app.add_exception_handler(kind, _refusal(status))

    @app.exception_handler(OperationalError)
    @app.exception_handler(TimeoutError)
    @app.exception_handler(IntegrityError)  # somebody else did the same at the same moment
    async def away(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the database cannot do this now; try again"}, 503, {"Retry-After": "1"})

    @app.exception_handler(405)
    async def no_such_method(request: Request, _: Exception) -> JSONResponse:
        here = [route for route in app.router.routes if route.matches(request.scope)[0] is not Match.NONE]
        methods = sorted({method for route in here for method in getattr(route, "methods", None) or ()})
        return JSONResponse({"detail": "there is no such method here"}, 405, {"Allow": ", ".join(methods)})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]  # without its input: that may be huge, or NaN, which JSON cannot hold
        return JSONResponse({"detail": refusal(first["loc"], first["msg"], error.body)}, 422)


def _refusal(status: int) -> Callable[[Request, Exception], Awaitable[JSONResponse]]:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, StaleRun):
            note("stale", detail=str(error))
        code = {"code": error.code} if isinstance(error, Conflict) else {}
        return JSONResponse({"detail": clean(str(error)), **code}, status)

    return answer
