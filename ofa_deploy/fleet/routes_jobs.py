"""Routes for hosts: jobs, and the models that they need."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import FileResponse

from ofa_deploy.fleet.blobs import PART_BYTES
from ofa_deploy.fleet.bodies import answer
from ofa_deploy.fleet.chunks import models_at_once, split
from ofa_deploy.fleet.schemas import JobRequest, JobStatus
from ofa_deploy.fleet.service import Conflict, Missing, Service, ending, unavailable
from ofa_deploy.fleet.work import Asked, payload_of
from ofa_deploy.store import Encoded, JobState, NewItem

Hash = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Wait = Annotated[float, Query(ge=0, le=20)]


class ModelFile(FileResponse):
    """A model on its way to a device."""

    chunk_size = PART_BYTES  # each is read in another thread, and beside busy neighbours each waits for a core


def add_job_routes(app: FastAPI, service: Service) -> None:
    """Add them to an app."""
    store = service.store

    @app.post("/api/jobs", status_code=201)
    def create_job(job: JobRequest) -> dict[str, str]:
        if store.jobs.status(job.id) is None:
            _queue_job(service, job)
        return {"id": job.id}

    @app.get("/api/jobs/{job}")
    async def job_status(job: Id, wait_s: Wait = 0.0) -> JobStatus:
        """How far a job is; while it is active, only after ``wait_s``, or as soon as it ends."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            with service.bells.listening(ending(job)) as bell:
                status = await asyncio.to_thread(_status, service, job)
                if status.state != "active" or loop.time() >= end or service.bells.closed:
                    return status
                await asyncio.wait([bell], timeout=end - loop.time())

    @app.get("/api/jobs/{job}/records", response_model=list[dict[str, object]])
    def job_records(job: Id) -> Response:
        _known(service, job)
        found = sorted(store.jobs.records(job).items())
        return answer([{**record, "position": position} for position, record in found])

    @app.delete("/api/jobs/{job}", status_code=204)
    def cancel_job(job: Id) -> None:
        store.jobs.cancel(job)
        service.tidy(job)

    @app.delete("/api/queues/{queue}", status_code=204)
    def end_queue(queue: Id) -> None:
        """A command is over: so are its jobs, and the tokens of the agents that it started."""
        service.end_queue(queue)

    @app.put("/api/blobs/{sha256}", status_code=204)
    async def put_blob(sha256: Hash, request: Request) -> None:
        await service.files.receive(sha256, request.stream())

    @app.get("/api/blobs/{sha256}", response_class=FileResponse)
    def get_blob(sha256: Hash) -> FileResponse:
        path = service.files.path(sha256)
        if path is None:
            raise Missing(f"there is no model {sha256}")
        return ModelFile(path, media_type="application/octet-stream")


def _status(service: Service, job: str) -> JobStatus:
    service.expire()  # so that an answer is never older than a limit that has passed
    status = _known(service, job)
    told = {name: getattr(status, name) for name in JobStatus.model_fields if name != "lost"}
    return JobStatus(**told, lost=service.lost(status))


def _known(service: Service, job: str) -> JobState:
    status = service.store.jobs.status(job)
    if status is None:
        raise Missing(f"there is no job {job}")
    return status


def _queue_job(service: Service, job: JobRequest) -> None:
    store, files = service.store, service.files
    device = store.device(job.device)
    # the agent of a command's own queue is that command's to look after
    problem = None if device and job.queue else unavailable(job.device, device)
    if problem:
        raise Conflict(problem, "device-unavailable")
    sizes = {blob: files.size(blob) for blob in {item.blob for item in job.items}}
    missing = [blob for blob, size in sizes.items() if size is None]
    if missing:
        raise Conflict(f"model {min(missing)} was not uploaded ({len(missing)} such models)", "model-missing")
    items = [NewItem(i, one.blob, Encoded(payload_of(one))) for i, one in enumerate(job.items)]
    room = models_at_once(device.facts if device else {})
    networks = [item.kind != "op" for item in job.items]
    chunks = split(items, [sizes[item.blob] or 0 for item in job.items], networks, max_bytes=room)
    request = Asked.of_job(job).to_json()
    store.jobs.create(job.id, job.device, request, chunks, job.queue, job.queue_s, job.run_s)
    service.bells.ring((job.device, job.queue))
