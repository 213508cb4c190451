"""The fleet server: gives work to the agents that ask for it, and takes results. It never connects to a device."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse

from ofa_deploy import __version__
from ofa_deploy.errors import OfaDeployError, UsageError
from ofa_deploy.fleet.blobs import Blobs
from ofa_deploy.fleet.chunks import models_at_once, split
from ofa_deploy.fleet.guard import Guard
from ofa_deploy.fleet.metrics import Metrics
from ofa_deploy.fleet.pages import add_pages
from ofa_deploy.fleet.records import check_result, make_records
from ofa_deploy.fleet.schemas import (
    RETRY_REASONS,
    Claim,
    JobRequest,
    JobStatus,
    RunFailure,
    RunProgress,
    RunResult,
)
from ofa_deploy.fleet.watch import Watch, note
from ofa_deploy.store import StaleRun, Store

LEASE_S = 60.0  # an agent says every second or so that it lives
POLL_S = 0.2
Hash = Annotated[str, InPath(pattern=r"^[0-9a-f]{64}$")]


class Missing(OfaDeployError):
    """What was asked for does not exist."""


class Conflict(OfaDeployError):
    """The request does not fit to what the server has."""


def create_app(
    store: Store,
    token: str,
    blobs: Path,
    queue: str = "",
    lease_s: float = LEASE_S,
    workspace: Path | None = None,
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        token: what every request must bear.
        blobs: folder for model files while jobs need them.
        queue: servers over one database take only work of their own queue.
        lease_s: a run that is not heard of for so long is given to the next agent.
        workspace: whose audits and bundles the dashboard shows.
    """
    app = FastAPI(title="ofa-deploy fleet", version=__version__, docs_url=None, redoc_url=None)  # these need a CDN
    metrics = Metrics(store)
    app.state.metrics = metrics
    app.add_middleware(Guard, token=token)
    app.add_middleware(Watch, metrics=metrics)
    _answer_errors(app)
    files = Blobs(blobs)
    _job_routes(app, store, files, queue)
    _agent_routes(app, store, files, queue, lease_s)
    _blob_and_device_routes(app, store, files)
    add_pages(app, store, metrics, workspace)
    return app


def _answer_errors(app: FastAPI) -> None:
    statuses = {StaleRun: 409, Conflict: 409, Missing: 404, UsageError: 422, OfaDeployError: 500}
    for kind, status in statuses.items():
        app.add_exception_handler(kind, _refusal(status))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]  # without its input: that may be huge, or NaN, which JSON cannot hold
        where = ".".join(str(part) for part in first["loc"][:20])
        return JSONResponse({"detail": f"{where}{_item_named(error)}: {first['msg']}"[:1000]}, 422)


def _item_named(error: RequestValidationError) -> str:
    """Which item of a result a refusal is about, if it is about one."""
    place, body = error.errors()[0]["loc"], error.body
    try:
        return f" (item {str(body['items'][place[2]]['item'])[:300]})" if place[1] == "items" else ""
    except (LookupError, TypeError):
        return ""


def _refusal(status: int) -> Any:
    async def answer(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, StaleRun):
            note("stale", detail=str(error))
        return JSONResponse({"detail": str(error)}, status)

    return answer


def _job_routes(app: FastAPI, store: Store, files: Blobs, queue: str) -> None:
    @app.post("/api/jobs", status_code=201)
    def create_job(job: JobRequest) -> dict[str, str]:
        if store.jobs.status(job.id) is None:
            needed = {item.blob for item in job.items} | set(job.sentinels)
            missing = {blob for blob in needed if not files.path(blob)}
            if missing:
                raise Conflict(f"model {min(missing)} was not uploaded ({len(missing)} such models)")
            _queue_job(store, files, queue, job)
        return {"id": job.id}

    @app.get("/api/jobs/{job}")
    def job_status(job: str) -> JobStatus:
        status = store.jobs.status(job)
        if status is None:
            raise Missing(f"there is no job {job[:100]}")
        return JobStatus(**status)

    @app.get("/api/jobs/{job}/records")
    def job_records(job: str) -> list[dict[str, Any]]:
        if store.jobs.status(job) is None:
            raise Missing(f"there is no job {job[:100]}")
        return [{**record, "position": position} for position, record in sorted(store.jobs.records(job).items())]

    @app.delete("/api/jobs/{job}", status_code=204)
    def cancel_job(job: str) -> None:
        store.jobs.cancel(job)
        _tidy(store, files, queue, job)


def _queue_job(store: Store, files: Blobs, queue: str, job: JobRequest) -> None:
    items = [
        {"position": i, "blob": item.blob, "payload": item.model_dump(exclude={"blob"})}
        for i, item in enumerate(job.items)
    ]
    sizes = [(files.folder / item.blob).stat().st_size for item in job.items]
    device = store.device(job.device)
    room = models_at_once(device["facts"] if device else {})
    chunks = split(items, sizes, [item.kind == "network" for item in job.items], max_bytes=room)
    request = job.model_dump(include={"runtime", "settings", "sentinels"})
    store.jobs.create(job.id, job.device, {**request, "blobs": job.sentinels}, chunks, queue)


def _tidy(store: Store, files: Blobs, queue: str, job: str) -> None:
    """Delete the models of a job that is over, but for those that another one needs."""
    status = store.jobs.status(job)
    if status is not None and status["state"] != "active":
        files.drop(store.jobs.blobs_of(job) - store.jobs.blobs(queue))


def _agent_routes(app: FastAPI, store: Store, files: Blobs, queue: str, lease_s: float) -> None:
    @app.post("/api/claim", response_model=None)
    async def claim(asked: Claim, request: Request) -> Response | dict[str, Any]:
        _storable(asked.facts)
        await asyncio.to_thread(store.touch_device, asked.device, asked.facts)
        loop = asyncio.get_running_loop()
        end = loop.time() + asked.wait_s
        while not await request.is_disconnected():  # nobody would measure what an agent that is gone is given
            with app.state.metrics.claim_seconds.time():
                run = await asyncio.to_thread(store.jobs.claim, asked.device, queue, lease_s)
            if run is not None:
                note("claimed", device=run["device"], run=run["run"], job=run["job"])
                return _work(run)
            if loop.time() >= end:
                break
            await asyncio.sleep(POLL_S)
        return Response(status_code=204)

    @app.post("/api/runs/{run}/progress", status_code=204)
    def progress(run: str, state: RunProgress) -> None:
        store.jobs.beat(run, state.model_dump(exclude_none=True), lease_s)

    @app.post("/api/runs/{run}/result")
    def result(run: str, result: RunResult) -> dict[str, bool]:
        _storable(result.facts)
        asked = store.jobs.run(run)
        check_result(asked, result)
        digest = hashlib.sha256(result.model_dump_json().encode()).hexdigest()
        new = store.jobs.finish(run, digest, *make_records(asked, result))
        note("result" if new else "replayed", device=asked["device"], job=asked["job"])
        _tidy(store, files, queue, asked["job"])
        return {"new": new}

    @app.post("/api/runs/{run}/failure", status_code=204)
    def failure(run: str, error: RunFailure) -> None:
        store.jobs.give_back(run, error.model_dump(), error.reason in RETRY_REASONS)
        _tidy(store, files, queue, store.jobs.run(run)["job"])


def _storable(facts: dict[str, Any]) -> None:
    """Refuse what JSON columns cannot hold: NaN, and text that is not Unicode."""
    try:
        json.dumps(facts, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:
        raise UsageError(f"facts cannot be stored: {error}") from error


def _work(run: dict[str, Any]) -> dict[str, Any]:
    """What an agent needs to know of a run."""
    request = run["request"]
    items = [{"item": i["item"], "blob": i["blob"], "key": i["payload"]["key"]} for i in run["items"]]
    asked = {name: request[name] for name in ("runtime", "settings", "sentinels")}
    return {"run": run["run"], "attempt": run["attempt"], "items": items, **asked}


def _blob_and_device_routes(app: FastAPI, store: Store, files: Blobs) -> None:
    @app.put("/api/blobs/{sha256}", status_code=204)
    async def put_blob(sha256: Hash, request: Request) -> None:
        await files.receive(sha256, request.stream())

    @app.get("/api/blobs/{sha256}", response_class=FileResponse)
    def get_blob(sha256: Hash) -> FileResponse:
        path = files.path(sha256)
        if path is None:
            raise Missing(f"there is no model {sha256}")
        return FileResponse(path, media_type="application/octet-stream")

    @app.get("/api/devices")
    def devices() -> list[dict[str, Any]]:
        return store.devices()
