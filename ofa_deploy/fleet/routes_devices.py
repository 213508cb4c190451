"""Routes for hosts: devices, who they are and what was measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import FastAPI, Query, Response

from ofa_deploy.config import TargetProfile, read_document
from ofa_deploy.errors import UsageError
from ofa_deploy.fleet.bodies import answer
from ofa_deploy.fleet.known_devices import DeviceDetails, KnownDevice
from ofa_deploy.fleet.routes_jobs import Id
from ofa_deploy.fleet.schemas import Admission, Registration
from ofa_deploy.fleet.service import Missing, Service
from ofa_deploy.fleet.tokens import CODE_S, digest, new_code
from ofa_deploy.fleet.watch import note
from ofa_deploy.store import Device, utc_now

PAGE = 200  # measurements in one answer: a few megabytes
Number = Annotated[int, Query(ge=0, lt=2**31)]


def add_device_routes(app: FastAPI, service: Service) -> None:
    """Add them to an app."""
    store = service.store

    @app.get("/api/devices")
    def devices() -> list[Mapping[str, object]]:
        return [KnownDevice.of(device).to_json() for device in store.devices()]

    @app.post("/api/devices", status_code=201)
    def register(asked: Registration) -> Admission:
        profile = read_document(TargetProfile, asked.profile).model_dump(mode="json")
        if asked.name.endswith((".yaml", ".yml", ".json", ".csv")):
            raise UsageError(f"{asked.name} would be taken for a file; choose another name")
        code, expires_at = new_code(), utc_now(CODE_S)
        store.access.register(asked.name, profile, digest(code), expires_at, asked.queue)
        return Admission(name=asked.name, code=code, expires_at=expires_at)

    @app.get("/api/devices/{name}")
    def device(name: Id) -> Mapping[str, object]:
        found = KnownDevice.of(_known(service, name))
        return DeviceDetails(found, tuple(store.access.tokens(name)), tuple(store.jobs.of_device(name))).to_json()

    @app.post("/api/devices/{name}/revoke", status_code=204)
    def revoke(name: Id) -> None:
        """End a device's tokens, codes and jobs."""
        _known(service, name)
        store.access.revoke(name)
        note("revoked", device=name)
        for job in store.jobs.cancel_device(name):
            service.tidy(job)

    @app.get("/api/devices/{name}/measurements", response_model=dict[str, object])
    def measurements(name: Id, after: Number = 0) -> Response:
        """Records with an ``id`` above ``after``, oldest first, a page of them; ``newest`` is the device's last id."""
        records = store.measurements_after(name, after, PAGE)
        return answer({"records": records, "newest": store.newest_measurement(name)})


def _known(service: Service, name: str) -> Device:
    found = service.store.device(name)
    if found is None:
        raise Missing(f"there is no device {name}")
    return found
