"""Routes for agents: enrolment, claims, and runs."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response

from ofa_deploy.fleet.bodies import answer
from ofa_deploy.fleet.records import check_result, make_records
from ofa_deploy.fleet.routes_jobs import Id
from ofa_deploy.fleet.schemas import RETRY_REASONS, Claim, Enrolment, RunFailure, RunProgress, RunResult
from ofa_deploy.fleet.service import Forbidden, Service, Unauthorized
from ofa_deploy.fleet.tokens import Bearer, device_token, digest
from ofa_deploy.fleet.watch import note
from ofa_deploy.fleet.work import WorkItem
from ofa_deploy.store import Run


def _agent(request: Request) -> Bearer:
    return request.state.bearer


Agent = Annotated[Bearer, Depends(_agent)]


def add_agent_routes(app: FastAPI, service: Service) -> None:
    """Add them to an app."""
    store = service.store

    def admit(request: Request) -> None:
        run = request.path_params.get("run", "")
        if run.isascii() and run.isalnum():  # another name is refused when it is validated
            _check_owner(service, run, _agent(request))

    app.state.admit = admit

    @app.post("/api/enroll")
    def enroll(asked: Enrolment) -> dict[str, str]:
        device = store.access.enrol(digest(asked.code), digest(asked.secret), asked.facts)
        if device is None:
            raise Unauthorized("this code is wrong, used or too old; another: ofa-deploy device register NAME")
        note("enrolled", device=device)
        return {"device": device, "token": device_token(device, asked.secret)}

    @app.post("/api/claim", response_model=None, responses={204: {"description": "There is no work."}})
    async def claim(asked: Claim, agent: Agent, request: Request) -> Response:
        if asked.queue != agent.queue:
            raise Forbidden(f"this token is for {_named(agent.queue)}, not for {_named(asked.queue)}")
        device = agent.device
        await asyncio.to_thread(service.heard_of, device, asked.facts)
        loop = asyncio.get_running_loop()
        end = loop.time() + asked.wait_s
        while not await request.is_disconnected():  # nobody would measure what an agent that is gone is given
            with service.bells.listening((device, asked.queue)) as bell:
                with app.state.metrics.claim_seconds.time():
                    run = await asyncio.to_thread(store.runs.claim, device, asked.queue, service.lease_s, asked.run)
                if run is not None:
                    note("claimed", device=device, run=run.run, job=run.job)
                    return await asyncio.to_thread(_work, run, service.lease_s)
                if loop.time() >= end or service.bells.closed:
                    break
                await asyncio.wait([bell], timeout=end - loop.time())
        return Response(status_code=204)

    @app.post("/api/runs/{run}/progress", status_code=204)
    def progress(run: Id, state: RunProgress, agent: Agent) -> None:
        _check_owner(service, run, agent)
        store.runs.beat(run, state.model_dump(exclude_none=True), service.lease_s)
        service.heard_of(agent.device)

    @app.post("/api/runs/{run}/result")
    def result(run: Id, result: RunResult, agent: Agent) -> dict[str, bool]:
        _check_owner(service, run, agent)
        asked = store.runs.run(run)
        check_result(asked, result)
        measured, errors, level = make_records(asked, result)
        records = {item: one.to_json() for item, one in measured.items()}
        failures = {item: error.model_dump() for item, error in errors.items()}
        new = store.runs.finish(run, _digest(result), records, failures, vars(level))
        note("result" if new else "replayed", device=agent.device, job=asked.job)
        service.heard_of(agent.device)
        service.tidy(asked.job)
        return {"new": new}

    @app.post("/api/runs/{run}/failure", status_code=204)
    def failure(run: Id, error: RunFailure, agent: Agent) -> None:
        _check_owner(service, run, agent)
        store.runs.give_back(run, error.model_dump(), error.reason in RETRY_REASONS)
        given = store.runs.run(run)
        note("returned", device=agent.device, job=given.job, detail=f"{error.reason}: {error.message}")
        service.bells.ring((agent.device, given.queue))
        service.tidy(given.job)


def _check_owner(service: Service, run: str, agent: Bearer) -> None:
    if service.store.runs.owner(run) != (agent.device, agent.queue):
        raise Forbidden(f"run {run} is another agent's")


def _digest(result: RunResult) -> str:
    """By which a result that comes twice is recognised; item by item, so that other threads get their turn."""
    found = hashlib.sha256(result.model_copy(update={"items": []}).model_dump_json().encode())
    for item in result.items:
        found.update(item.model_dump_json().encode())
    return found.hexdigest()


def _named(queue: str) -> str:
    return f"the queue {queue!r} of a command" if queue else "the work of a registered device"


def _work(run: Run, lease_s: float) -> Response:
    """What an agent needs to know of a run."""
    items = [vars(WorkItem.of(one.item, one.blob, one.payload)) for one in run.items]
    told = {name: getattr(run, name) for name in ("run", "attempt", "device", "run_s")}
    return answer({**told, "lease_s": lease_s, **run.request, "items": items})
